"""`train lidnet`: the denoiser, on simulated low-dose data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from node.cli.learning import PRESET, RESUME, SEED, STEPS, in_words, progress_bar
from node.cli.words import say
from node.errors import ConfigurationError

if TYPE_CHECKING:
    from models.lidnet.config import LidnetConfig

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


def register(train: typer.Typer) -> None:
    """Add the command to the group `train`."""
    train.command("lidnet")(train_lidnet)


def train_lidnet(
    data: Path = DATA,
    out: Path = OUT,
    preset: Literal["cpu", "gpu"] = PRESET,
    seed: int = SEED,
    steps: int | None = STEPS,
    resume: bool = RESUME,
    hold_out: list[str] | None = HOLD_OUT,
    workers: int | None = typer.Option(
        None, "--workers", min=0, help="Processes that make pairs and batches; the preset's without it."
    ),
    socket: Literal["unet", "red-cnn"] = typer.Option("unet", "--socket", help="Which denoiser; only unet ships."),
) -> None:
    """Train LIDnet's denoiser on simulated low-dose data.

    Ctrl-C loses at most the steps since the last checkpoint: the same command goes on from it.

    \b
    pacsnode train lidnet --data ./ct --out ./run1
    pacsnode train lidnet --data ./ct --out ./run2 --preset gpu
    """
    from models.lidnet.train import train

    slices = prepared(data, out)
    config = dataclasses.replace(config_of(slices, hold_out), socket=socket)
    with progress_bar() as progress, in_words():
        weights = train(
            config,
            slices,
            out,
            preset=preset,
            seed=seed,
            resume=resume,
            on_progress=progress,
            steps=steps,
            workers=workers,
        )
    say(f"weights: {weights}\nmeasure them: pacsnode evaluate lidnet --data {slices} --weights {weights} --out {out}")


def prepared(data: Path, out: Path) -> Path:
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


def config_of(slices: Path, hold_out: list[str] | None) -> LidnetConfig:
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
