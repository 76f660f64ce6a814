"""Drawn chests on disk: cases of known truth for the audit, and pictures of both domains for the training.

A chest takes some seconds to draw and project, so each is made once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.contract import FloatArray, ModelError
from models.diffusionxray.audit import Case, Nodule
from models.diffusionxray.data import Picture, save_picture, split_of
from models.diffusionxray.stored import read_arrays, write_arrays
from models.simulation.exposures import USUAL, WAYS, Rays, draw_rays, truth_of
from models.simulation.exposures import VIEW as RAYS_VIEW
from models.simulation.radiograph_cases import DrrCase, RadiographCase, nodule_case, phantom_drr_case

OnProgress = Callable[[int, int], None]
NODULES = 5
"""In each chest of the audit, where its lungs have room for so many."""
FIRST_AUDIT_SEED = 1_000_000
"""Chests of the audit begin here: those drawn for training come before."""
FIRST_RAYS_SEED = 2_000_000
COLLECTION = "drawn"
RAYS_STEP_G_CM2 = 1e-3
"""Of a chest's rays on disk; noise of 9,000 photons in air is sixty times as much where they all arrive."""


def cases_in(
    folder: Path,
    count: int,
    *,
    draw: Callable[[int], RadiographCase] = partial(nodule_case, nodules=NODULES),
    on_progress: OnProgress | None = None,
) -> list[Case]:
    """So many cases, from the folder where they are there, else drawn and kept there; no training saw such a chest.

    raises   ModelError     a file is no case
    """
    cases = []
    for number in range(count):
        seed = FIRST_AUDIT_SEED + number
        path = folder / f"case-{seed}.npz"
        if not path.exists():
            write_case(_case(seed, draw(seed)), path)
        cases.append(read_case(path))
        if on_progress is not None:
            on_progress(number + 1, count)
    return cases


def write_case(case: Case, path: Path) -> None:
    """Whole or not at all."""
    nodules = [(one.row, one.column, one.diameter_px) for one in case.nodules]
    write_arrays(
        path,
        present=case.present,
        absent=case.absent,
        nodules=np.array(nodules, np.float64).reshape(-1, 3),
        spacing_mm=case.spacing_mm,
    )


def read_case(path: Path) -> Case:
    """raises   ModelError     the file is no case"""

    def made(content: Mapping[str, NDArray[Any]]) -> Case:
        nodules = tuple(Nodule(*(float(number) for number in row)) for row in content["nodules"])
        return Case(path.stem, content["present"], content["absent"], nodules, float(content["spacing_mm"]))

    return read_arrays(path, made, what="a case of known truth")


def rays_in(
    folder: Path,
    count: int,
    *,
    draw: Callable[[int], Rays] = draw_rays,
    on_progress: OnProgress | None = None,
) -> list[Path]:
    """Files of so many chests along the rays of their view (`read_rays`); those that are not there are drawn.

    No training saw such a chest, nor does the audit.
    """
    paths = []
    for number in range(count):
        seed = FIRST_RAYS_SEED + number
        path = folder / f"rays-{seed}.npz"
        if not path.exists():
            write_rays(draw(seed), path)
        paths.append(path)
        if on_progress is not None:
            on_progress(number + 1, count)
    return paths


def chest_pictures(paths: Sequence[Path]) -> list[Picture]:
    """Radiographs of these chests as they are taken usually, with nodules and without noise. raises   ModelError"""
    pictures = []
    for path in paths:
        rays = read_rays(path)
        unit = truth_of(rays, WAYS[USUAL])[1]
        pictures.append(Picture(path.stem, COLLECTION, unit, rays.spacing_mm, "hq", "test"))
    return pictures


def write_rays(rays: Rays, path: Path) -> None:
    """Whole or not at all, in steps of `RAYS_STEP_G_CM2`."""
    soft, bone = (np.rint(part / RAYS_STEP_G_CM2).clip(0, 65535).astype(np.uint16) for part in (rays.soft, rays.bone))
    write_arrays(path, soft=soft, bone=bone, nodules=rays.nodules, pixel_mm=rays.view.pixel_mm)


def read_rays(path: Path) -> Rays:
    """raises   ModelError     the file is none of rays"""

    def made(content: Mapping[str, NDArray[Any]]) -> Rays:
        soft, bone = (content[name].astype(np.float32) * np.float32(RAYS_STEP_G_CM2) for name in ("soft", "bone"))
        rows, columns = soft.shape[1:]
        view = replace(RAYS_VIEW, detector_px=(rows, columns), pixel_mm=float(content["pixel_mm"]))
        return Rays(soft, bone, content["nodules"], view)

    return read_arrays(path, made, what="a chest along its rays")


def prepare_drawn(
    out: Path,
    seeds: Sequence[int],
    *,
    draw: Callable[[int], DrrCase] = phantom_drr_case,
    on_progress: OnProgress | None = None,
) -> int:
    """Pictures of drawn chests in both domains: the radiograph, and the DRR of a CT of it. How many are there.

    Those already there are kept. Both pictures of a chest share its key, and so its split.

    raises   ModelError     a seed that belongs to the audit
    """
    if any(seed >= FIRST_AUDIT_SEED for seed in seeds):
        raise ModelError(f"chests from {FIRST_AUDIT_SEED} on are for the audit")
    for done, seed in enumerate(seeds):
        key = f"chest{seed:06d}"
        if not any((out / "lq").glob(f"*/{COLLECTION}-{key}-*.npz")):
            case = draw(seed)
            if case.high is not None:
                _save(case.high, key, case.spacing_mm, "hq", out)
            _save(case.low, key, case.spacing_mm, "lq", out)  # last: it says that the chest is done
        if on_progress is not None:
            on_progress(done + 1, len(seeds))
    return len(list(out.glob(f"*/*/{COLLECTION}-*.npz")))


def _save(unit: FloatArray, key: str, spacing_mm: float, domain: str, out: Path) -> None:
    picture = Picture(key, COLLECTION, unit, spacing_mm, "hq" if domain == "hq" else "lq", split_of(key))
    save_picture(picture, out)


def _case(seed: int, drawn: RadiographCase) -> Case:
    nodules = tuple(Nodule(one.row, one.column, one.diameter_px) for one in drawn.nodules)
    return Case(f"case-{seed}", drawn.picture, drawn.without, nodules, drawn.spacing_mm)
