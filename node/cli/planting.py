"""Lesions of known truth in a CT series, in memory: what `synthesise` writes and `accept` looks for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from node.cli.series import LEAST_SLICES, in_air, longest_series
from node.errors import ConfigurationError, NotEligible

if TYPE_CHECKING:
    from models.contract import Code, FloatArray, Volume
    from models.lefusion.insert import Artist, Inserted
    from models.lefusion.places import Places
    from node.cli.learning import Report
    from node.dicom.write.source import SeriesSource
    from node.dicom.write.synthetic_ct import SyntheticStudy
    from node.dicom.write.synthetic_truth import Planted

Organ = Literal["lungs", "liver"]
Histograms = Literal["published", "trained"]


@dataclass(frozen=True)
class Wish:
    """What is to be put in.

    by              folder of a run of `train lefusion`; None: by formula
    dose            part of the scan's dose whose noise is simulated; None: none is
    mask, segment   of the liver, where that is the organ
    """

    lesions: int
    seed: int
    organ: Organ = "lungs"
    dose: float | None = None
    mask: Path | None = None
    segment: int | None = None
    by: Path | None = None
    histograms: Histograms = "trained"
    evaluations: int = 30
    marking: bool = True


@dataclass(frozen=True, eq=False)
class Made:
    """A series with lesions.

    volume      as received             voxels      float32, its grid, HU: with lesions, at the dose asked for
    plain       the same without lesions, noise and all
    assumed     about its dose, where the header does not say
    """

    volume: Volume
    source: SeriesSource
    voxels: FloatArray
    plain: FloatArray
    truth: tuple[Inserted, ...]
    study: SyntheticStudy
    organ: Organ
    assumed: tuple[str, ...]

    def images(self) -> Iterator[tuple[str, bytes]]:
        """Name and bytes, slice by slice. raises NotEligible where the pictures may name the patient"""
        from node.dicom.write.synthetic_ct import synthetic_images

        return synthetic_images(self.voxels, self.volume, self.source, self.study, lesions=len(self.truth))

    def planted(self) -> list[Planted]:
        """As the truth's documents tell them."""
        return [_planted(lesion, self.organ, self.volume) for lesion in self.truth]


def only_series(folder: Path) -> list[Path]:
    """The longest CT series of the one patient there. raises NotEligible, ConfigurationError"""
    found = [paths for _, paths in longest_series(folder)]
    if not found:
        raise NotEligible(f"There is no CT series of {LEAST_SLICES} images or more in this folder.")
    if len(found) > 1:
        raise ConfigurationError(f"{folder}: CT of {len(found)} patients; the folder of one is wanted")
    return found[0]


def plant(paths: list[Path], wish: Wish, progress: Report) -> Made:
    """raises NotEligible, ConfigurationError, ModelError"""
    import numpy as np

    from models.lefusion.insert import insert_lesions
    from models.lefusion.low_dose import assumed, at_dose
    from node.dicom.read.volume import read_volume
    from node.dicom.write.source import SeriesSource
    from node.dicom.write.synthetic_ct import Making, SyntheticStudy

    check(wish)
    artist, digest = _artist(wish)
    volume = read_volume(paths, on_progress=partial(progress, "reading"))
    if not volume.even_steps:
        raise NotEligible("Its slices are unevenly spaced.")
    plain = np.array(in_air(volume), np.float32)
    progress("lesions", 0, wish.lesions)
    voxels, truth = insert_lesions(
        plain,
        volume.spacing_zyx_mm,
        artist,
        count=wish.lesions,
        seed=wish.seed,
        places=_places(wish, volume, plain, paths),
        on_progress=partial(progress, "lesions"),
    )
    if not truth:
        raise NotEligible(f"There is no room for a lesion in the {wish.organ}.")
    taken: tuple[str, ...] = ()
    if wish.dose is not None:
        taken = assumed(volume.acquisition)
        noise = at_dose(
            voxels, volume.spacing_zyx_mm, volume.acquisition, wish.dose, seed=wish.seed,
            on_progress=partial(progress, "noise"),
        )  # fmt: skip
        plain = plain + (noise - voxels)
        voxels = noise
    source = SeriesSource.load(paths)
    making = Making(wish.seed, artist.name, digest, marked=wish.marking, dose=wish.dose)
    study = SyntheticStudy.of(voxels, source, making)
    return Made(volume, source, voxels, plain, truth, study, wish.organ, taken)


def check(wish: Wish) -> None:
    """raises ConfigurationError    what is wished for does not go together"""
    if wish.organ == "liver" and wish.mask is None:
        raise ConfigurationError("--organ liver: where the liver is must be given, --mask with a DICOM segmentation")
    if wish.organ == "liver" and wish.by is not None:
        raise ConfigurationError("--by: these networks draw lesions of the lungs alone")
    if wish.organ != "liver" and (wish.mask is not None or wish.segment is not None):
        raise ConfigurationError("--mask and --segment are of --organ liver; lungs are found by their air")
    if wish.dose is not None and not 0 < wish.dose < 1:
        raise ConfigurationError("--dose: a part of the scan's dose is wanted, above 0 and below 1")


def _places(wish: Wish, volume: Volume, voxels: FloatArray, paths: list[Path]) -> Places | None:
    from models.lefusion.places import InLiver
    from node.dicom.organ import liver_mask

    if wish.mask is None:
        return None
    mask = liver_mask(wish.mask, volume, paths, segment=wish.segment)
    return InLiver.of(mask, voxels, volume.spacing_zyx_mm)


def _artist(wish: Wish) -> tuple[Artist, str]:
    """What draws, and the digest of its weights. raises ModelError"""
    from models.lefusion.insert import ByHand
    from models.lefusion.synthesis import Sampling, read_synthesiser
    from models.lefusion.train import WEIGHTS

    if wish.by is None:
        return ByHand(), ""
    made = read_synthesiser(wish.by, sampling=Sampling(wish.evaluations), source=wish.histograms)
    parts = [(wish.by / stage / WEIGHTS).read_bytes() for stage in ("texture", "mask")]
    told = f"{wish.histograms}/{wish.evaluations}".encode()
    return made, hashlib.sha256(b"".join(parts) + told).hexdigest()


def _planted(lesion: Inserted, organ: Organ, volume: Volume) -> Planted:
    from models.deeplesion.place import SITES
    from models.deeplesion.run import LESION, NODULE
    from node.dicom.write.synthetic_truth import Planted

    finding: Code = NODULE if organ == "lungs" else LESION
    down, across = volume.spacing_zyx_mm[1:]
    return Planted(
        words=f"{lesion.kind}, contrast {lesion.contrast_hu:.0f} HU, diameter {lesion.diameter_mm:.1f} mm",
        finding=finding,
        site=SITES["lung" if organ == "lungs" else "liver"],
        box=lesion.box,
        mask=lesion.mask,
        slice_index=lesion.recist.index,
        long_px=lesion.recist.long_px,
        short_px=lesion.recist.short_px,
        long_mm=lesion.recist.long_mm,
        short_mm=lesion.recist.short_mm,
        volume_mm3=float(lesion.mask.sum()) * volume.spacing_zyx_mm[0] * down * across,
    )
