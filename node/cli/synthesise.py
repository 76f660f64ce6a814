"""`synthesise`: lesions into a CT series, as a new series that says of itself that it is no patient's."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from node.cli.learning import in_words, progress_bar
from node.cli.series import LEAST_SLICES, in_air, longest_series
from node.cli.words import say
from node.errors import ConfigurationError, NotEligible

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from models.contract import Volume
    from models.lefusion.insert import Artist, Inserted

IMAGES, TRUTH = "images", "lesions.csv"
COLUMNS = (
    "number", "slice", "row", "column", "x_mm", "y_mm", "z_mm", "diameter_mm", "long_axis_mm", "middle_axis_mm",
    "short_axis_mm", "voxels", "contrast_hu", "mean_hu", "texture", "seen_as", "seed", "by",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Models")(synthesise)


def synthesise(
    folder: Path = typer.Argument(..., exists=True, file_okay=False, help="Chest CT of one patient, DICOM files."),
    out: Path = typer.Option(
        ..., "--out", file_okay=False, help="The new series and its truth; must not be there yet."
    ),
    lesions: int = typer.Option(3, "--lesions", min=1, max=50, help="In the lungs; fewer where there is no room."),
    seed: int = typer.Option(1, "--seed", min=0, help="Same series, seed and options: same bytes."),
    by: Path | None = typer.Option(
        None,
        "--by",
        exists=True,
        file_okay=False,
        help="Folder of a run of `train lefusion` (textures and masks). Without it, lesions are drawn by formula:"
        " no weights of LeFusion ship.",
    ),
    histograms: Literal["published", "trained"] = typer.Option(
        "trained", "--histograms", help="With --by: greys of lesions trained on, or of the three published classes."
    ),
    evaluations: int = typer.Option(
        30, "--evaluations", min=2, max=300, help="With --by: of each network, per lesion; 300 is the paper's."
    ),
    marking: bool = typer.Option(True, "--marking/--no-marking", help="SYNTHETIC in the corner of each image."),
) -> None:
    """Put lung lesions of known truth into a CT series, for acceptance tests of a node.

    A new study of a patient called SYNTHETIC goes to OUT/images, and to OUT/lesions.csv what is in it: places in the
    patient's millimetres (LPS), diameters, axes, greys, seeds. Voxels beyond the lesions' edges and the word in the
    corner are those received. Lesions are added to finished images: nothing says that they look like a patient's.

    \b
    pacsnode synthesise ./chest --out ./synthetic --lesions 5 --seed 7
    pacsnode synthesise ./chest --out ./synthetic --by ./run
    pacsnode send ./synthetic/images --to NODE
    """
    import numpy as np

    from models.lefusion.insert import insert_lesions
    from node.dicom.read.volume import read_volume
    from node.dicom.write.source import SeriesSource
    from node.dicom.write.synthetic_ct import Making, synthetic_images

    if out.exists() and any(out.iterdir()):
        raise ConfigurationError(f"{out}: there is something already; a new folder is wanted")
    paths = _only_series(folder)
    with in_words(), progress_bar("reading") as progress:
        artist, digest = _artist(by, histograms, evaluations)
        volume = read_volume(paths, on_progress=partial(progress, "reading"))
        if not volume.even_steps:
            raise NotEligible("Its slices are unevenly spaced.")
        voxels = np.array(in_air(volume), np.float32)
        progress("lesions", 0, lesions)
        changed, truth = insert_lesions(
            voxels, volume.spacing_zyx_mm, artist, count=lesions, seed=seed, on_progress=partial(progress, "lesions")
        )
        if not truth:
            raise NotEligible("There is no room for a lesion in these lungs.")
        making = Making(seed, artist.name, digest, marked=marking)
        (out / IMAGES).mkdir(parents=True, exist_ok=True)
        made = synthetic_images(changed, volume, SeriesSource.load(paths), making, lesions=len(truth))
        for number, (name, content) in enumerate(made, start=1):
            (out / IMAGES / name).write_bytes(content)
            progress("writing", number, len(paths))
    _write_truth(truth, volume, artist.name, out / TRUTH)
    say(f"{len(truth)} lesions by {artist.name}\nimages: {out / IMAGES}\ntruth: {out / TRUTH}")


def _only_series(folder: Path) -> list[Path]:
    """The longest CT series of the one patient there. raises NotEligible, ConfigurationError"""
    found = [paths for _, paths in longest_series(folder)]
    if not found:
        raise NotEligible(f"There is no CT series of {LEAST_SLICES} images or more in this folder.")
    if len(found) > 1:
        raise ConfigurationError(f"{folder}: CT of {len(found)} patients; the folder of one is wanted")
    return found[0]


def _artist(by: Path | None, histograms: Literal["published", "trained"], evaluations: int) -> tuple[Artist, str]:
    """What draws, and the digest of its weights. raises ModelError"""
    from models.lefusion.insert import ByHand
    from models.lefusion.synthesis import Sampling, read_synthesiser
    from models.lefusion.train import WEIGHTS

    if by is None:
        return ByHand(), ""
    made = read_synthesiser(by, sampling=Sampling(evaluations), source=histograms)
    parts = [(by / stage / WEIGHTS).read_bytes() for stage in ("texture", "mask")]
    return made, hashlib.sha256(b"".join(parts) + f"{histograms}/{evaluations}".encode()).hexdigest()


def _write_truth(truth: Sequence[Inserted], volume: Volume, by: str, path: Path) -> None:
    with path.open("w", newline="", encoding="utf8") as stream:
        rows = csv.writer(stream)
        rows.writerow(COLUMNS)
        for number, lesion in enumerate(truth, start=1):
            rows.writerow([number, *_row(lesion, volume.affine), by])


def _row(lesion: Inserted, affine: NDArray[np.float64]) -> list[object]:
    """Slices are numbered from 1 as the new series' Instance Number, rows and columns from 0."""
    z, y, x = lesion.centre
    place = affine @ (z, y, x, 1.0)
    numbers = (*place[:3], lesion.diameter_mm, *lesion.axes_mm)
    return [
        round(z) + 1, round(y, 1), round(x, 1), *(round(float(value), 2) for value in numbers),
        int(lesion.mask.sum()), round(lesion.contrast_hu, 1), round(lesion.mean_hu, 1), lesion.kind, lesion.seen_as,
        lesion.seed,
    ]  # fmt: skip
