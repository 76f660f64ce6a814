"""`train clinreadnet`: the quality network, on scans whose labels follow from physics, or on the public rated set."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from node.cli.learning import CASES, PRESET, RESUME, SEED, STEPS, in_words, progress_bar
from node.cli.training_lidnet import config_of, prepared
from node.cli.words import say
from node.errors import ConfigurationError

if TYPE_CHECKING:
    from models.clinreadnet.config import Arm, ClinReadNetConfig

DATA = typer.Option(
    None,
    "--data",
    exists=True,
    file_okay=False,
    help="CT images: DICOM files, or slices prepared from them (*.npz). Without it: drawn patients alone.",
)
SAMPLES = typer.Option(
    None, "--samples", exists=True, file_okay=False, help="Samples of another run, instead of making them."
)
CHALLENGE = typer.Option(
    None,
    "--challenge",
    exists=True,
    file_okay=False,
    help="The public set LDCTIQAG2023 (train.json, image/) instead of simulated scans. Read its licence first.",
)
OUT = typer.Option(..., "--out", file_okay=False, help="Slices, samples, checkpoint and weights go here.")
HOLD_OUT = typer.Option(
    None,
    "--hold-out",
    help="Key of a patient who is for evaluation only (repeatable; keys are the first part of the slices' names)."
    " Without it: those whom the shipped denoiser never saw where they are there, else every fifth patient.",
)


def register(train: typer.Typer) -> None:
    """Add the command to the group `train`."""
    train.command("clinreadnet")(train_clinreadnet)


def train_clinreadnet(
    data: Path | None = DATA,
    samples: Path | None = SAMPLES,
    challenge: Path | None = CHALLENGE,
    fold: int = typer.Option(0, "--fold", min=0, max=4, help="Of the public set: which fifth is held out."),
    out: Path = OUT,
    preset: Literal["cpu", "gpu"] = PRESET,
    size: Literal["shipped", "paper"] = typer.Option("shipped", "--size", help="Of the network; paper: as Swin-T."),
    arm: str = typer.Option("clinreadnet", "--arm", help="What is trained: the network, or one arm of its ablation."),
    seed: int = SEED,
    steps: int | None = STEPS,
    cases: int | None = CASES,
    resume: bool = RESUME,
    hold_out: list[str] | None = HOLD_OUT,
) -> None:
    """Train the quality network: dose, views and kernel are simulated, five pseudo-readers grade what comes out.

    Ctrl-C loses at most the steps since the last checkpoint: the same command goes on from it. Arms: clinreadnet, rps,
    ce, single-temperature, no-sobel, plain-swin.

    \b
    pacsnode train clinreadnet --data ./ct --out ./run1
    pacsnode train clinreadnet --samples ./run1/samples --arm plain-swin --out ./swin
    pacsnode train clinreadnet --challenge ./LDCTIQAG2023_train --fold 0 --out ./fold0
    """
    from models.clinreadnet.config import TRAINING
    from models.clinreadnet.train import train, train_on_challenge

    if sum(one is not None for one in (data, samples, challenge)) > 1:
        raise ConfigurationError("one of --data, --samples and --challenge at most")
    config = _config(_arm(arm), size)
    if cases is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, cases=cases))
    training = TRAINING[preset] if steps is None else dataclasses.replace(TRAINING[preset], steps=steps)
    if challenge is not None:
        with in_words(), progress_bar() as progress:
            weights = train_on_challenge(
                config, challenge, out, held_out_fold=fold, preset=preset, seed=seed, training=training,
                resume=resume, on_progress=progress,
            )  # fmt: skip
        say(f"weights: {weights}\non the fold held out: {weights.with_name('validation.json')}")
        return
    slices: list[Path] = []
    if data is not None:
        folder = prepared(data, out)
        slices = sorted(folder.rglob("*.npz"))
        config = dataclasses.replace(config, held_out=config_of(folder, hold_out).held_out)
    with in_words(), progress_bar() as progress:
        weights = train(
            config,
            out,
            preset=preset,
            seed=seed,
            slices=slices,
            samples=samples,
            training=training,
            resume=resume,
            workers=os.cpu_count() or 1,
            on_progress=progress,
        )
    made = samples or out / "samples"
    say(
        f"weights: {weights}\nwhat they gave on validation: {weights.with_name('validation.json')}\n"
        f"measure them: pacsnode evaluate clinreadnet --data {made} --weights {weights} --out {out}"
    )


def _arm(name: str) -> Arm:
    """raises ConfigurationError where there is no such arm"""
    from models.clinreadnet.config import ARMS

    for arm in ARMS:
        if arm == name:
            return arm
    raise ConfigurationError(f"--arm {name}: one of {', '.join(ARMS)} is wanted")


def _config(arm: Arm, size: Literal["shipped", "paper"]) -> ClinReadNetConfig:
    """The arm's switches and loss on a network of this size."""
    from models.clinreadnet.config import ARMS, PAPER_LIKE, ClinReadNetConfig

    network, loss = ARMS[arm]
    if size == "paper":
        network = dataclasses.replace(network, width=PAPER_LIKE.width, depths=PAPER_LIKE.depths, heads=PAPER_LIKE.heads)
    return ClinReadNetConfig(network=network, loss=loss)
