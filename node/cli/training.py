"""`train`, `evaluate`: one command per paper; the numbers and the recipe are the paper's folder under models/."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from node.cli import ablation, categories, evaluate_deeplesion, training_deeplesion
from node.cli.learning import filled, in_words, progress_bar
from node.cli.words import say
from node.errors import ConfigurationError

if TYPE_CHECKING:
    from models.lidnet.config import LidnetConfig
    from models.lidnet.network import Denoiser

_PANEL = "Models"
_HOLD_OUT_EVERY = 5
DATA = typer.Option(
    ..., "--data", exists=True, file_okay=False, help="CT images: DICOM files, or slices prepared from them (*.npz)."
)
OUT = typer.Option(..., "--out", file_okay=False, help="Prepared slices, pairs, checkpoint and results go here.")
HOLD_OUT = typer.Option(
    None,
    "--hold-out",
    help="Key of a patient who is for evaluation only (repeatable; keys are the first part of the slices' names)."
    " Without it: those of the shipped weights where they are there, else every fifth patient.",
)


def register(app: typer.Typer) -> None:
    train = typer.Typer(help="Train a network: seeded, resumable.", no_args_is_help=True)
    train.command("lidnet")(train_lidnet)
    training_deeplesion.register(train)
    ablation.register(train)
    categories.register(train)
    evaluate = typer.Typer(help="Measure a network on patients it has not seen.", no_args_is_help=True)
    evaluate.command("lidnet")(evaluate_lidnet)
    evaluate_deeplesion.register(evaluate)
    app.add_typer(train, name="train", rich_help_panel=_PANEL)
    app.add_typer(evaluate, name="evaluate", rich_help_panel=_PANEL)


def train_lidnet(
    data: Path = DATA,
    out: Path = OUT,
    preset: Literal["cpu", "gpu"] = typer.Option("cpu", "--preset", help="Length and size of the training."),
    seed: int = typer.Option(1, "--seed", help="Same seed, data and preset: same weights."),
    steps: int | None = typer.Option(None, "--steps", min=1, help="Instead of the preset's.", show_default=False),
    resume: bool = typer.Option(True, "--resume/--afresh", help="Go on from the checkpoint in --out."),
    hold_out: list[str] | None = HOLD_OUT,
    socket: Literal["unet", "red-cnn"] = typer.Option("unet", "--socket", help="Which denoiser; only unet ships."),
) -> None:
    """Train LIDnet's denoiser on simulated low-dose data.

    Ctrl-C loses at most the steps since the last checkpoint: the same command goes on from it.

    \b
    pacsnode train lidnet --data ./ct --out ./run1
    pacsnode train lidnet --data ./ct --out ./run2 --preset gpu
    """
    from models.lidnet.train import train

    slices = _prepared(data, out)
    config = dataclasses.replace(_config(slices, hold_out), socket=socket)
    with progress_bar() as progress, in_words():
        weights = train(config, slices, out, preset=preset, seed=seed, resume=resume, on_progress=progress, steps=steps)
    say(f"weights: {weights}\nmeasure them: pacsnode evaluate lidnet --data {slices} --weights {weights} --out {out}")


def evaluate_lidnet(
    data: Path = DATA,
    out: Path = OUT,
    weights: Path | None = typer.Option(
        None, "--weights", exists=True, dir_okay=False, help="Weights of a training run. Default: those that ship."
    ),
    seed: int = typer.Option(0, "--seed"),
    hold_out: list[str] | None = HOLD_OUT,
    inserts: Path | None = typer.Option(
        None,
        "--inserts",
        exists=True,
        dir_okay=False,
        help="Low-contrast phantom of another simulator (iq-lcd-ct.npz).",
    ),
    per_patient: int = typer.Option(4, "--slices-per-patient", min=1, help="At most so many slices of each."),
    pairs: int = typer.Option(200, "--pairs", min=20, help="Images with and without each faint disc."),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of tables."),
) -> None:
    """RMSE, PSNR, SSIM, noise and HU bias on held-out patients, and how well faint discs are still detected.

    Beside it stand simple filters and no filter at all. What it writes, evaluation.json, is what a card shows.

    \b
    pacsnode evaluate lidnet --data ./run1/slices --weights ./run1/weights.safetensors --out ./run1
    """
    import numpy as np

    from models.evaluation.table import Measured
    from models.lidnet.detectability import phantom_inserts, simulated_discs
    from models.lidnet.evaluate import EvaluationConfig, evaluate

    slices = _prepared(data, out)
    config = _config(slices, hold_out)
    network, sha256 = _network(weights, config)
    with progress_bar("held-out patients") as progress, in_words():
        tables = [
            evaluate(
                network,
                slices,
                config,
                what=EvaluationConfig(slices_per_patient=per_patient),
                seed=seed,
                on_progress=lambda done, total: progress("held-out patients", done, total),
            )
        ]
        progress("faint discs", 0, 1)
        tables.append(simulated_discs(network, pairs=pairs, seed=seed))
        if inserts is not None:
            with np.load(inserts, allow_pickle=False) as arrays:
                tables.append(phantom_inserts(network, arrays))
        progress("faint discs", 1, 1)
    measured = Measured(sha256, _facts(weights), tuple(tables))
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.md").write_text(measured.markdown(), encoding="utf8")
    (out / "evaluation.json").write_text(measured.json(), encoding="utf8")
    typer.echo(measured.json() if as_json else measured.markdown())


def _facts(weights: Path | None) -> Mapping[str, object]:
    """What the weights were made of, as far as that is on record."""
    from models.lidnet import MODEL
    from models.lidnet.train import FACTS

    if weights is None:
        return MODEL.card().training_data
    path = weights.with_name(FACTS)
    found: Mapping[str, object] = json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
    return found


def _network(weights: Path | None, config: LidnetConfig) -> tuple[Denoiser, str]:
    """Ready to run, on the GPU where there is one; and the weights' sha256."""
    import torch

    from models.lidnet import MODEL
    from models.lidnet.network import build
    from models.weights import load_weights

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = MODEL.build() if weights is None else build(config.network)
    if weights is None:
        load_weights(network, MODEL.card())
    else:
        filled(network, weights)
    sha256 = MODEL.card().sha256 if weights is None else hashlib.sha256(weights.read_bytes()).hexdigest()
    return MODEL.prepare(network, device), sha256


def _prepared(data: Path, out: Path) -> Path:
    """The folder of prepared slices: `data` itself, or made from its DICOM files. raises ConfigurationError"""
    from node.dicom.slices import prepare_slices

    if any(data.rglob("*.npz")):
        return data
    made = out / "slices"
    if not any(made.glob("*.npz")):
        say(f"preparing slices in {made}")
        if not prepare_slices(data, made, collection=data.name):
            raise ConfigurationError(
                f"{data}: neither prepared slices (*.npz) nor usable axial CT images"
                " (links to folders are not followed)"
            )
    return made


def _config(slices: Path, hold_out: list[str] | None) -> LidnetConfig:
    """The shipped configuration with the patients of this data held out. raises ConfigurationError"""
    from models.lidnet import FAST
    from models.lidnet.slices import patient_of

    patients = sorted({patient_of(path) for path in slices.rglob("*.npz")})
    held_out = tuple(hold_out or [key for key in FAST.held_out if key in patients] or patients[::_HOLD_OUT_EVERY])
    if unknown := set(held_out) - set(patients):
        raise ConfigurationError(f"no slices of {', '.join(sorted(unknown))} in {slices}")
    if len(held_out) == len(patients):
        raise ConfigurationError(f"{slices}: {len(patients)} patients, all held out; nothing is left to train on")
    return dataclasses.replace(FAST, held_out=held_out)
