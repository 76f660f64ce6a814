"""`evaluate deeplesion`: arms of one comparison on the same held-out patients, as tables and as a FROC curve."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from node.cli.learning import arm_files, facts_of, filled, in_words, progress_bar, tell
from node.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from models.contract import FloatArray
    from models.deeplesion.config import NetworkConfig
    from models.deeplesion.evaluate import Detect, Detected, Evaluation, FrocCurve, OnProgress
    from models.deeplesion.network import Detector
    from models.evaluation.froc import Bootstrap
    from models.evaluation.table import Table

_SHIPPED, _DENOISED = "shipped", "on denoised images"


def register(evaluate: typer.Typer) -> None:
    """Add the command to the group `evaluate`."""
    evaluate.command("deeplesion")(evaluate_deeplesion)


def evaluate_deeplesion(
    data: Path = typer.Option(
        ..., "--data", exists=True, file_okay=False, help="Samples of a training run: folders validation and test."
    ),
    out: Path = typer.Option(..., "--out", file_okay=False, help="Tables, curves and figure go here."),
    weights: Path | None = typer.Option(
        None, "--weights", exists=True, dir_okay=False, help="Weights of a training run. Default: those that ship."
    ),
    arm: list[str] | None = typer.Option(
        None,
        "--arm",
        help="NAME=FILE: weights to be compared with the first (repeatable). Files of one name are trainings of one arm"
        " from other seeds; where there are several names, every two of them are compared, their trainings pooled.",
    ),
    seed: int = typer.Option(0, "--seed", help="Of the patients drawn, and of the scans."),
    draws: int = typer.Option(1000, "--draws", min=10, help="Bootstrap draws."),
    scans: int = typer.Option(
        0, "--scans", min=0, help="Whole drawn scans of each test family, so many with lesions and so many without."
    ),
    denoised: bool = typer.Option(
        False, "--denoised", help="The first weights once more, on images that the shipped denoiser went over."
    ),
    timed: bool = typer.Option(True, "--speed/--no-speed", help="Time it beside non-local means, about a minute."),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of tables."),
) -> None:
    """FROC, accuracy, sensitivity by size and contrast, false positives on images without lesions.

    Several weights are compared patient by patient. What it writes, evaluation.json, is what a card shows.

    \b
    pacsnode evaluate deeplesion --data ./run1/samples --weights ./run1/weights.safetensors --out ./run1
    pacsnode evaluate deeplesion --data ./run1/samples --weights ./run1/weights.safetensors \\
        --arm single=./run2/weights.safetensors --out ./compared
    pacsnode evaluate deeplesion --data ./run1/samples --arm multi=./multi1/weights.safetensors \\
        --arm multi=./multi2/weights.safetensors --arm single=./single1/weights.safetensors \\
        --arm single=./single2/weights.safetensors --out ./arms
    pacsnode evaluate deeplesion --data ./run1/samples --denoised --scans 10 --out ./shipped
    """
    from models.deeplesion.model import MODEL
    from models.deeplesion.train import FACTS
    from models.evaluation.froc import Bootstrap
    from models.evaluation.table import Measured

    files, trainings = _arms(weights, arm or [])
    asked = _Asked(trainings, Bootstrap(draws, seed), seed, scans, denoised=denoised, timed=timed)
    with in_words(), progress_bar() as progress:
        evaluation, tables = _measured(data, {name: network_of(path) for name, path in files.items()}, asked, progress)
    tell(Measured(_sha256(weights), facts_of(weights, MODEL, FACTS), tuple(tables)), out, as_json=as_json)
    (out / "froc.json").write_text(evaluation.curves_json(), encoding="utf8")
    draw(evaluation, trainings, out / "froc.png")


@dataclass(frozen=True)
class _Asked:
    """What is to be measured: see the command's options."""

    trainings: Mapping[str, Sequence[str]]
    bootstrap: Bootstrap
    seed: int
    scans: int
    denoised: bool
    timed: bool


def _measured(
    data: Path, networks: Mapping[str, Detector], asked: _Asked, progress: OnProgress
) -> tuple[Evaluation, list[Table]]:
    from models.deeplesion.evaluate import detector_of, drawn_scans, evaluate, evaluate_scans
    from models.deeplesion.model import FAST
    from models.deeplesion.speed import speed

    test, validation = _samples(data)
    detectors = {name: detector_of(network) for name, network in networks.items()}
    if asked.denoised:
        detectors[_DENOISED] = _after_denoising(next(iter(detectors.values())))
    evaluation = evaluate(
        detectors, test, validation, trainings=asked.trainings, bootstrap=asked.bootstrap, on_progress=progress
    )
    tables = list(evaluation.tables)
    if asked.scans:
        drawn = list(drawn_scans(FAST, count=asked.scans, seed=asked.seed))
        tables += evaluate_scans(networks, drawn, bootstrap=asked.bootstrap, on_progress=progress)
    if asked.timed:
        progress("speed", 0, 1)
        tables.append(speed(next(iter(networks.values()))))
        progress("speed", 1, 1)
    return evaluation, tables


def draw(evaluation: Evaluation, trainings: Mapping[str, Sequence[str]], to: Path) -> None:
    """FROC curves of all arms with their 95 % intervals, as PNG; trainings of one arm have one colour."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5.2), layout="constrained")
    axis = figure.subplots()
    arm_of = {name: arm for arm, names in trainings.items() for name in names}
    colours: dict[str, str] = {}
    for name, curve in evaluation.curves.items():
        arm = arm_of.get(name, name)
        known = arm in colours
        _draw_curve(axis, None if known else arm, curve, colours.setdefault(arm, f"C{len(colours)}"))
    axis.set_xscale("log", base=2)
    axis.set_xticks([0.125, 0.25, 0.5, 1, 2, 4, 8, 16], ["1/8", "1/4", "1/2", "1", "2", "4", "8", "16"])
    axis.set_ylim(0, 1)
    axis.set_xlabel("false positives per image")
    axis.set_ylabel("sensitivity (IoU ≥ 0.5)")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    axis.set_title("Key slices; band: 95 % bootstrap interval over patients", fontsize=10)
    figure.savefig(to, dpi=120)


def _draw_curve(axis: Axes, label: str | None, curve: FrocCurve, colour: str) -> None:
    axis.plot(curve.rates, curve.sensitivity, label=label, color=colour)
    axis.fill_between(curve.rates, curve.low, curve.high, alpha=0.2, color=colour, linewidth=0)


def _samples(data: Path) -> tuple[list[Path], list[Path]]:
    """Test and validation samples. raises ConfigurationError"""
    found = []
    for split in ("test", "validation"):
        files = sorted((data / split).glob("*.npz"))
        if not files:
            raise ConfigurationError(f"{data}: no samples in {split}/; pacsnode train deeplesion makes them")
        found.append(files)
    return found[0], found[1]


def _arms(weights: Path | None, said: list[str]) -> tuple[dict[str, Path | None], dict[str, list[str]]]:
    """Weights by name, the reference first, None for those that ship; and the names of each other arm's trainings.

    raises   ConfigurationError
    """
    first = _SHIPPED if weights is None else weights.parent.name or weights.stem
    arms = arm_files(said, taken=(first, _DENOISED))
    files = {label: file for trainings in arms.values() for label, file in trainings.items()}
    return {first: weights, **files}, {arm: list(trainings) for arm, trainings in arms.items()}


def network_of(weights: Path | None) -> Detector:
    """Ready to run, on the GPU where there is one; shaped as the file is. raises ConfigurationError"""
    from models.deeplesion.model import MODEL
    from models.deeplesion.network import build
    from models.device import best
    from models.weights import load_weights

    device = best()
    if weights is None:
        network = MODEL.build()
        load_weights(network, MODEL.card())
        return MODEL.prepare(network, device)
    return MODEL.prepare(filled(build(config_of(weights)), weights), device)


def config_of(weights: Path) -> NetworkConfig:
    """The shipped detector's, with categories, slices and fused images as the file has. raises ConfigurationError"""
    from safetensors import SafetensorError, safe_open

    from models.contract import ModelError
    from models.deeplesion.model import FAST
    from models.deeplesion.network import shaped_like

    try:
        with safe_open(weights, framework="pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        return shaped_like(shapes, FAST.network)
    except (OSError, SafetensorError, ModelError) as exc:
        raise ConfigurationError(f"{weights}: not the weights of this detector") from exc


def _after_denoising(detect: Detect) -> Detect:
    """The same detector, behind the denoiser that ships."""
    import numpy as np

    from models import lidnet
    from models.device import best
    from models.lidnet.run import BATCH, denoise
    from models.weights import load_weights

    denoiser = lidnet.MODEL.build()
    load_weights(denoiser, lidnet.MODEL.card())
    ready = lidnet.MODEL.prepare(denoiser, best())

    def behind(hu: FloatArray) -> Detected:
        parts = [denoise(ready, hu[start : start + BATCH]) for start in range(0, len(hu), BATCH)]
        return detect(np.concatenate(parts))

    return behind


def _sha256(weights: Path | None) -> str:
    from models.deeplesion.model import MODEL

    return MODEL.card().sha256 if weights is None else hashlib.sha256(weights.read_bytes()).hexdigest()
