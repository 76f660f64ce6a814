"""`evaluate lefusion`: what synthetic lesions are, beside simulated ones, copies and lesions drawn by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from node.cli.learning import in_words, progress_bar, tell
from node.cli.training_lefusion import LESIONS, TEXTURE
from node.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from models.contract import FloatArray

_MAIN = "LeFusion"


def register(evaluate: typer.Typer) -> None:
    """Add the command to the group `evaluate`."""
    evaluate.command("lefusion")(evaluate_lefusion)


def evaluate_lefusion(
    data: Path = typer.Option(..., "--data", exists=True, file_okay=False, help="Folder of a training run."),
    out: Path = typer.Option(..., "--out", file_okay=False, help="Tables and figure go here."),
    arm: list[str] | None = typer.Option(
        None, "--arm", help="Another texture network of the run, by the --name it was trained with (repeatable)."
    ),
    lesions: int = typer.Option(40, "--lesions", min=2, help="Lesions of chests for tests, evenly, for every method."),
    slow: int = typer.Option(0, "--slow", min=0, help="Of them, so many also by the paper's 598 evaluations."),
    repeats: int = typer.Option(3, "--repeats", min=2, help="Seeds per lesion, for diversity."),
    shapes: int = typer.Option(8, "--shapes", min=2, help="Per radius of the control sphere."),
    evaluations: int = typer.Option(30, "--evaluations", min=2, max=300, help="Of a network, per lesion."),
    outlines: Path | None = typer.Option(
        None, "--outlines", exists=True, dir_okay=False, help="Readers' outlines (array `agree` of an .npz) to compare."
    ),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of tables."),
) -> None:
    """Background, edges, greys and noise; what histogram and sphere control; diversity; can the edge be told.

    All of it against simulated lesions of other chests and other shapes: no number says that a lesion looks real, and
    none what a detector gains. What it writes is evaluation.md and evaluation.json; lesions.png shows some.

    \b
    pacsnode evaluate lefusion --data ./run --out ./run --slow 6
    pacsnode evaluate lefusion --data ./run --arm global --out ./run
    """
    from models.evaluation.table import Measured
    from models.lefusion import evaluate as measure
    from models.lefusion.data import load_crops
    from models.lefusion.shapes import mask_tables, reader_outlines
    from models.lefusion.synthesis import Sampling, read_synthesiser
    from models.lefusion.train import WEIGHTS

    if _MAIN in (arm or []) or len(set(arm or [])) < len(arm or []):
        raise ConfigurationError("--arm: every arm has a name of its own")
    sampling = Sampling(evaluations)
    known = [] if outlines is None else reader_outlines(_agreement(outlines))
    with in_words(), progress_bar() as progress:
        main = read_synthesiser(data, texture=TEXTURE)
        arms = {_MAIN: main, **{name: read_synthesiser(data, texture=name) for name in arm or []}}
        train, test = (load_crops(data / LESIONS, split) for split in ("train", "test"))
        sites = measure.sites_of(test, lesions)
        few = measure.sites_of(test, max(2, lesions // 3))
        methods = measure.texturers(arms, train, sampling)
        tables = [measure.texture_table(sites, methods, progress)]
        tables.append(measure.histogram_table(main, few, sampling, progress))
        tables.append(measure.diversity_table(main, few, sampling, repeats, progress))
        if slow:
            tables.append(measure.speed_table(main, sites[:slow], sampling, progress))
        tables += mask_tables(
            main.mask.network, per_radius=shapes, sampling=sampling, outlines=known, on_progress=progress
        )
        shown = measure.examples(few, methods)
    weights = data / TEXTURE / WEIGHTS
    measured = Measured(hashlib.sha256(weights.read_bytes()).hexdigest(), main.texture.facts, tuple(tables))
    tell(measured, out, as_json=as_json)
    draw(shown, out / "lesions.png")


def _agreement(path: Path) -> NDArray[np.uint8]:
    """raises ConfigurationError where the file has none"""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            agree: NDArray[np.uint8] = arrays["agree"]
    except (KeyError, ValueError, OSError) as exc:
        raise ConfigurationError(f"{path}: no outlines of readers (an .npz with the array `agree`)") from exc
    return agree


def draw(shown: Mapping[str, Sequence[FloatArray]], to: Path) -> None:
    """The middle slices of some lesions, a row for each method, as PNG."""
    from matplotlib.figure import Figure

    columns = max(map(len, shown.values()))
    figure = Figure(figsize=(1.6 * columns + 1.6, 1.7 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), columns, squeeze=False)
    for row, (name, planes) in zip(axes, shown.items(), strict=True):
        row[0].set_title(name, fontsize=8, loc="left")
        for axis, plane in zip(row, planes, strict=True):
            axis.imshow(plane, cmap="gray", vmin=-1000, vmax=200)
            axis.set_axis_off()
    figure.savefig(to, dpi=120)
