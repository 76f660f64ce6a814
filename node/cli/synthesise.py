"""`synthesise`: lesions into a CT series, as a new series that says of itself that it is no patient's."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from node.cli.learning import Report, in_words, progress_bar
from node.cli.planting import Histograms, Made, Organ, Wish, check, only_series, plant
from node.cli.words import remark, say
from node.errors import ConfigurationError

if TYPE_CHECKING:
    from models.contract import Volume
    from models.lefusion.insert import Inserted

IMAGES, DOCUMENTS, TRUTH, TRUTH_JSON = "images", "truth", "lesions.csv", "lesions.json"
COLUMNS = (
    "number", "slice", "row", "column", "x_mm", "y_mm", "z_mm", "diameter_mm", "long_axis_mm", "middle_axis_mm",
    "short_axis_mm", "voxels", "contrast_hu", "mean_hu", "texture", "seen_as", "seed", "by", "key_slice",
    "recist_long_mm", "recist_short_mm",
)  # fmt: skip

LESIONS: Any = typer.Option(3, "--lesions", min=1, max=50, help="How many; fewer where there is no room.")
SEED: Any = typer.Option(1, "--seed", min=0, help="Same series, seed and options: same bytes.")
ORGAN: Any = typer.Option("lungs", "--organ", help="Where they are put. The liver's place must be given, by --mask.")
MASK: Any = typer.Option(
    None, "--mask", exists=True, dir_okay=False, help="DICOM segmentation of the liver, drawn on this series."
)
SEGMENT: Any = typer.Option(None, "--segment", min=1, help="Its segment that is the liver, where none is called so.")
DOSE: Any = typer.Option(
    None, "--dose", help="Add noise as at this part of the scan's dose (0.25), after the lesions are in."
)


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Models")(synthesise)


def synthesise(
    folder: Path = typer.Argument(..., exists=True, file_okay=False, help="CT of one patient, DICOM files."),
    out: Path = typer.Option(
        ..., "--out", file_okay=False, help="The new series and its truth; must not be there yet."
    ),
    lesions: int = LESIONS,
    seed: int = SEED,
    organ: Organ = ORGAN,
    mask: Path | None = MASK,
    segment: int | None = SEGMENT,
    dose: float | None = DOSE,
    by: Path | None = typer.Option(
        None,
        "--by",
        exists=True,
        file_okay=False,
        help="Folder of a run of `train lefusion` (textures and masks). Without it, lesions are drawn by formula:"
        " no weights of LeFusion ship.",
    ),
    histograms: Histograms = typer.Option(
        "trained", "--histograms", help="With --by: greys of lesions trained on, or of the three published classes."
    ),
    evaluations: int = typer.Option(
        30, "--evaluations", min=2, max=300, help="With --by: of each network, per lesion; 300 is the paper's."
    ),
    marking: bool = typer.Option(True, "--marking/--no-marking", help="SYNTHETIC in the corner of each image."),
) -> None:
    """Put lesions of known truth into a CT series, for acceptance tests of a node.

    A new study of a patient called SYNTHETIC goes to OUT/images; to OUT/truth its truth as a DICOM segmentation and
    report, that viewers show and `harvest` reads; to OUT/lesions.csv and .json the same by place, in the patient's
    millimetres (LPS). Voxels beyond the lesions' edges and the word in the corner are those received, unless noise of a
    lower dose is asked for. Lesions are added to finished images: nothing says that they look like a patient's.

    \b
    pacsnode synthesise ./chest --out ./synthetic --lesions 5 --seed 7
    pacsnode synthesise ./chest --out ./synthetic --dose 0.25
    pacsnode synthesise ./abdomen --out ./synthetic --organ liver --mask liver-seg.dcm
    pacsnode send ./synthetic/images --to NODE
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigurationError(f"{out}: there is something already; a new folder is wanted")
    wish = Wish(
        lesions, seed, organ=organ, dose=dose, mask=mask, segment=segment, by=by, histograms=histograms,
        evaluations=evaluations, marking=marking,
    )  # fmt: skip
    check(wish)
    paths = only_series(folder)
    with in_words(), progress_bar("reading") as progress:
        made = plant(paths, wish, progress)
        _write(made, out, progress)
    say(
        f"{len(made.truth)} lesions by {made.study.making.by}\nimages: {out / IMAGES}\n"
        f"truth: {out / TRUTH}, and as DICOM {out / DOCUMENTS}"
    )
    for words in made.assumed:
        remark(f"noise: the header does not say it believably, so {words} was assumed")


def _write(made: Made, out: Path, progress: Report) -> None:
    from node.dicom.write.synthetic_truth import header_of, truth_documents

    (out / IMAGES).mkdir(parents=True, exist_ok=True)
    headers = []
    for number, (name, content) in enumerate(made.images(), start=1):
        (out / IMAGES / name).write_bytes(content)
        headers.append(header_of(content))
        progress("writing", number, len(made.voxels))
    (out / DOCUMENTS).mkdir()
    step_mm = made.volume.spacing_zyx_mm[0]
    for name, content in truth_documents(headers, made.planted(), made.study, step_mm=step_mm):
        (out / DOCUMENTS / name).write_bytes(content)
    (out / TRUTH).write_text(_table(made), encoding="utf8")
    (out / TRUTH_JSON).write_text(_document(made), encoding="utf8")


def _table(made: Made) -> str:
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows(_rows(made))
    return stream.getvalue()


def _document(made: Made) -> str:
    making = made.study.making
    said = {
        "synthetic": True,
        "note": "Simulated lesions in the images of a scan. Not a patient's images, not for diagnosis.",
        "patient_id": made.study.patient_id,
        "study_instance_uid": made.study.study_instance_uid,
        "organ": made.organ,
        "seed": making.seed,
        "by": making.by,
        "dose": making.dose,
        "assumed_of_the_dose": list(made.assumed),
        "lesions": [dict(zip(COLUMNS, row, strict=True)) for row in _rows(made)],
    }
    return json.dumps(said, indent=2) + "\n"


def _rows(made: Made) -> list[list[object]]:
    return [
        _row(number, lesion, made.volume, made.study.making.by) for number, lesion in enumerate(made.truth, start=1)
    ]


def _row(number: int, lesion: Inserted, volume: Volume, by: str) -> list[object]:
    """Slices are numbered from 1 as the new series' Instance Number, rows and columns from 0."""
    z, y, x = lesion.centre
    place = volume.affine @ (z, y, x, 1.0)
    numbers = (*place[:3], lesion.diameter_mm, *lesion.axes_mm)
    return [
        number, round(z) + 1, round(y, 1), round(x, 1), *(round(float(value), 2) for value in numbers),
        int(lesion.mask.sum()), round(lesion.contrast_hu, 1), round(lesion.mean_hu, 1), lesion.kind, lesion.seen_as,
        lesion.seed, by, lesion.recist.index + 1, round(lesion.recist.long_mm, 2), round(lesion.recist.short_mm, 2),
    ]  # fmt: skip
