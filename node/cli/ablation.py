"""`train ablation`: LIDnet's arms side by side, each trained from the same start and judged by another detector."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import typer

from node.cli.evaluate_deeplesion import config_of
from node.cli.intervals import draw_intervals
from node.cli.learning import filled, in_words, progress_bar
from node.errors import ConfigurationError

if TYPE_CHECKING:
    from models.lidnet.ablation import AblationConfig, Tables
    from models.lidnet.collaborate import CollaborationConfig
    from models.lidnet.joint import JointConfig

ARMS = (
    "A1 pixel loss; A2 whole-map perceptual; A3 ROI perceptual; A4 detector's loss; A5 both, detector frozen; A6 both"
)
ARMS += ", detector learns in turns (LIDnet); A6-shuffled: regions of another image, the control; A6-joint: both learn"
ARMS += " in every step"
LOWER, HIGHER = 0.8, 2.0
"""Doses trained on reach beyond those judged on, by these factors."""


def _weights(name: str, words: str) -> Path:
    option: Path = typer.Option(..., name, exists=True, dir_okay=False, help=words)
    return option


def _count(name: str, words: str, *, least: int = 1) -> int | None:
    option: int | None = typer.Option(None, name, min=least, help=words, show_default=False)
    return option


DENOISER = _weights("--denoiser", "Weights of `train lidnet`: where every arm starts.")
DETECTOR = _weights("--detector", "Weights of `train deeplesion`: gives feedback.")
JUDGE = _weights("--judge", "Weights of `train deeplesion` with another seed, and with --single too.")
OUT = typer.Option(..., "--out", file_okay=False, help="Samples, checkpoints and tables go here.")
SWEEP = typer.Option(
    False,
    "--sweep",
    help="The feedback's weights times 0.1, 1 and 10, on validation patients; without --arm: A3, A4 and A6.",
)
ROUNDS = _count("--rounds", "Instead of the preset's.")
STEPS = _count("--steps", "Of each training, instead of the preset's: as many rounds, shorter turns.")
CROP = _count("--crop", "Side of the squares trained on, pixels of 0.8 mm, instead of the preset's.", least=32)
DOSES = typer.Option(
    None,
    "--dose",
    min=0.005,
    max=1,
    help="Judged on, as a fraction of the full dose (repeatable; 0.25 and 0.1 without it). Trained on: from 0.8"
    " times the lowest to twice the highest.",
)
SIDE = _count(
    "--judged-side",
    "Judge on squares of so many pixels around the lesions, not on whole slices: quicker, with less in it that"
    " could be a false positive.",
    least=64,
)
CASES = _count("--cases", "Patients of each family that arms are trained on. Default: 24.")
JUDGED = _count(
    "--judged-cases",
    "Patients of each family that arms are judged on, and half as many without lesions. Default: 10.",
)
SLICES = _count("--slices", "Key slices of each patient. Default: 8 to train on, 4 to judge on.")


def register(train: typer.Typer) -> None:
    """Add the command to the group `train`."""
    train.command("ablation")(train_ablation)


def train_ablation(
    denoiser: Path = DENOISER,
    detector: Path = DETECTOR,
    judge: Path = JUDGE,
    out: Path = OUT,
    socket: Literal["unet", "red-cnn"] = typer.Option("unet", "--socket", help="What the denoiser's weights are of."),
    arms: list[str] | None = typer.Option(None, "--arm", help=f"Repeatable; all without it. {ARMS}."),
    sweep: bool = SWEEP,
    seeds: int = typer.Option(3, "--seeds", min=1, help="Trainings of each arm."),
    preset: Literal["cpu", "gpu"] = typer.Option("cpu", "--preset", help="Length and size of each training."),
    workers: int = typer.Option(0, "--workers", min=0, help="Processes that train arms side by side; 0: none."),
    rounds: int | None = ROUNDS,
    steps: int | None = STEPS,
    crop: int | None = CROP,
    doses: list[float] | None = DOSES,
    side: int | None = SIDE,
    cases: int | None = CASES,
    judged: int | None = JUDGED,
    slices: int | None = SLICES,
    seed: int = typer.Option(0, "--seed", help="Of the simulated patients."),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of tables."),
) -> None:
    """Train LIDnet's arms (A1 to A6 and their controls) and judge them on patients that none of them saw.

    Every arm starts from the same denoiser and detector and takes the same number of steps. The same command goes on
    where it was stopped. Tables of the seeds that are complete lie in ablation.md while it runs.

    \b
    pacsnode train ablation --denoiser d/weights.safetensors --detector l1/weights.safetensors \\
      --judge l2/weights.safetensors --out ./arms
    """
    from models.deeplesion.model import FAST
    from models.deeplesion.network import build
    from models.device import of_preset
    from models.lidnet.ablation import run
    from models.lidnet.collaborate import collaboration_of
    from models.lidnet.config import LidnetConfig
    from models.lidnet.socket import plug

    collaboration = collaboration_of(preset, socket)
    if rounds is not None:
        collaboration = dataclasses.replace(collaboration, rounds=rounds)
    if steps is not None:
        collaboration = collaboration.lasting(steps)
    if crop is not None:
        collaboration = dataclasses.replace(collaboration, crop_px=crop)
    config = what_of(collaboration, arms or (), seeds=seeds, sweep=sweep)
    config = dataclasses.replace(
        config,
        side_px=side,
        training=_sized(config.training, cases, slices),
        test=_sized(config.test, judged, slices),
        healthy=_sized(config.healthy, None if judged is None else max(judged // 2, 1), slices),
    )
    config = at_doses(config, doses or ())
    if detector.read_bytes() == judge.read_bytes():
        raise ConfigurationError("detector and judge are the same weights: a judge must not have taken part")
    detectors = dataclasses.replace(FAST, network=config_of(detector))
    device = of_preset(preset)
    with progress_bar() as progress, in_words():
        tables = run(
            filled(plug(LidnetConfig(socket=socket)), denoiser),
            filled(build(detectors.network), detector),
            filled(build(config_of(judge)), judge),
            out,
            config,
            detectors,
            seed=seed,
            device=device,
            workers=workers,
            on_progress=progress,
            on_tables=lambda tables: _write(tables, out),
        )
    if tables[1].rows:
        draw_intervals(tables[1], out / "differences.png")
    typer.echo(_as_json(tables) if as_json else _as_text(tables))


def _write(tables: Tables, out: Path) -> None:
    (out / "ablation.md").write_text(_as_text(tables), encoding="utf8")
    (out / "ablation.json").write_text(_as_json(tables), encoding="utf8")


def _as_text(tables: Tables) -> str:
    return "\n".join(table.markdown() for table in tables)


def _as_json(tables: Tables) -> str:
    return json.dumps([table.data() for table in tables], indent=1, ensure_ascii=False)


def what_of(collaboration: CollaborationConfig, arms: Sequence[str], *, seeds: int, sweep: bool) -> AblationConfig:
    """What is trained and on whom it is judged. raises ConfigurationError: no such arm"""
    from models.lidnet.ablation import SWEEP, SWEPT, AblationConfig
    from models.lidnet.collaborate import Arm

    known = get_args(Arm)
    if unknown := set(arms) - set(known):
        raise ConfigurationError(f"no arm {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    wanted = arms or (SWEPT if sweep else known)
    config = AblationConfig(
        collaboration, arms=tuple(arm for arm in known if arm in wanted), seeds=tuple(range(1, seeds + 1))
    )
    return dataclasses.replace(config, times=SWEEP, judged_on="validation") if sweep else config


def at_doses(config: AblationConfig, doses: Sequence[float]) -> AblationConfig:
    """Judged on these doses, and trained on those around them; as it was without any."""
    if not doses:
        return config
    trained = dataclasses.replace(config.training, fractions=(LOWER * min(doses), min(HIGHER * max(doses), 1.0)))
    return dataclasses.replace(config, fractions=tuple(sorted(set(doses), reverse=True)), training=trained)


def _sized(samples: JointConfig, cases: int | None, slices: int | None) -> JointConfig:
    return dataclasses.replace(samples, cases=cases or samples.cases, slices_per_case=slices or samples.slices_per_case)
