"""`evaluate diffusionxray`: the restorer and arms beside it under every degradation, on patients never trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from node.cli.learning import arm_files, in_words, progress_bar, tell
from node.cli.words import remark

if TYPE_CHECKING:
    from models.diffusionxray.evaluate import Shown
    from models.evaluation.table import Measured, Table

_STEPS = (1, 2, 4, 8)


def register(evaluate: typer.Typer) -> None:
    """Add the command to the group `evaluate`."""
    evaluate.command("diffusionxray")(evaluate_diffusionxray)


def evaluate_diffusionxray(
    data: Path = typer.Option(..., "--data", exists=True, file_okay=False, help="Folder of a training run."),
    weights: Path = typer.Option(
        ..., "--weights", exists=True, dir_okay=False, help="A restorer, as `bundle` makes it."
    ),
    out: Path = typer.Option(..., "--out", file_okay=False, help="Tables and figure go here."),
    arm: list[str] | None = typer.Option(
        None,
        "--arm",
        help="NAME=FILE: another restorer, a regressor or a ddpm, to be compared (repeatable). Files of"
        " one name are trainings of one arm from other seeds, and are pooled where arms are compared.",
    ),
    step: list[int] | None = typer.Option(
        None, "--steps", min=1, help="Of the refiner (repeatable). Without it: 1, 2, 4 and 8.", show_default=False
    ),
    most: int = typer.Option(24, "--pictures", min=1, help="Test pictures at most, evenly."),
    crop: int = typer.Option(512, "--crop", min=64, help="Side of the square that is cut out of each, pixels."),
    cases: int = typer.Option(24, "--cases", min=0, help="Drawn chests with nodules; made once, half a minute each."),
    chests: int = typer.Option(
        200,
        "--chests",
        min=0,
        help="Drawn chests for other physics and, where there are arms, for their comparison; made once, some seconds"
        " each.",
    ),
    seed: int = typer.Option(0, "--seed", help="Of degradations and crops."),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of tables."),
) -> None:
    """PSNR, SSIM and RMSE of every arm under every degradation, beside filters; nodules kept, moved and invented;
    intervals calibrated on validation patients and held to test patients; all this under other physics; speed.

    Degradations are made, one of them by a family that nothing was trained on: no number says what is gained on
    radiographs as they come. What it writes, evaluation.json, is what a card shows; pictures.png shows, under each
    degradation, what was changed most.

    \b
    pacsnode evaluate diffusionxray --data ./run --weights ./run/restorer/weights.safetensors --out ./run
    pacsnode evaluate diffusionxray --data ./run --weights ./run/restorer/weights.safetensors \\
        --arm bicubic=./run/bicubic/weights.safetensors --arm learnt=./run/munit-1/weights.safetensors \\
        --arm learnt=./run/munit-2/weights.safetensors --out ./compared
    """
    from models.device import best
    from models.diffusionxray.comparison import RESTORER, Comparison
    from models.diffusionxray.evaluate import EvaluationConfig

    files = arm_files(arm or [], taken=(RESTORER,))
    what = EvaluationConfig(crop_px=crop, most=most)
    with in_words(), progress_bar() as progress:
        out.mkdir(parents=True, exist_ok=True)  # what cannot be is said before hours of work
        compared = Comparison.of(
            data,
            weights,
            files,
            steps=step or _STEPS,
            what=what,
            seed=seed,
            device=best(),
            report=progress,
            say=remark,
        )
        parts = (
            compared.restoration,
            partial(compared.nodules, data / "cases", cases),
            compared.intervals,
            partial(compared.on_chests, data / "rays", chests),
            compared.speed,
        )
        measured = in_parts(parts, weights, out / "evaluation.unfinished.md")
        shown = compared.most_changed()
    with in_words():
        tell(measured, out, as_json=as_json)
        draw(shown, out / "pictures.png")


def in_parts(parts: Sequence[Callable[[], tuple[Table, ...]]], weights: Path, so_far: Path) -> Measured:
    """All tables, one part after the other; `so_far` has those of the parts that are done until all are."""
    from models.diffusionxray.facts import facts_of
    from models.evaluation.table import Measured
    from models.weights import write_whole

    sha256, facts = hashlib.sha256(weights.read_bytes()).hexdigest(), facts_of(weights)
    measured = Measured(sha256, facts, ())
    for part in parts:
        measured = Measured(sha256, facts, (*measured.tables, *part()))
        with suppress(OSError):  # a full disk is no reason to stop measuring
            write_whole(measured.markdown().encode("utf8"), so_far)
    with suppress(OSError):
        so_far.unlink()
    return measured


def draw(shown: Sequence[Shown], to: Path) -> None:
    """Under each degradation: degraded, restored, what was changed, and the truth, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2 * len(shown)), layout="constrained")
    rows = figure.subplots(len(shown), 4, squeeze=False)
    for row, one in zip(rows, shown, strict=True):
        low, high = float(one.truth.min()), float(one.truth.max())
        changed = one.restored - one.degraded
        images = (
            (f"before: {one.condition}", one.degraded, "gray", (low, high)),
            ("after", one.restored, "gray", (low, high)),
            ("after - before (±0.2)", changed, "RdBu_r", (-0.2, 0.2)),
            ("truth", one.truth, "gray", (low, high)),
        )
        for axis, (title, image, cmap, (least, most)) in zip(row, images, strict=True):
            axis.imshow(image, cmap=cmap, vmin=least, vmax=most)
            axis.set_title(title, fontsize=10)
            axis.set_axis_off()
    figure.savefig(to, dpi=110)
