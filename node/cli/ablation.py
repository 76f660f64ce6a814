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
    from models.lidnet.ablation import AblationConfig
    from models.lidnet.collaborate import CollaborationConfig

ARMS = (
    "A1 pixel loss; A2 whole-map perceptual; A3 ROI perceptual; A4 detector's loss; A5 both, detector frozen; A6 both"
)
ARMS += ", detector learns in turns (LIDnet); A6-shuffled: regions of another image, the control; A6-joint: both learn"
ARMS += " in every step"


def _weights(name: str, words: str) -> Path:
    option: Path = typer.Option(..., name, exists=True, dir_okay=False, help=words)
    return option


def register(train: typer.Typer) -> None:
    """Add the command to the group `train`."""
    train.command("ablation")(train_ablation)


def train_ablation(
    denoiser: Path = _weights("--denoiser", "Weights of `train lidnet`: where every arm starts."),
    detector: Path = _weights("--detector", "Weights of `train deeplesion`: gives feedback."),
    judge: Path = _weights("--judge", "Weights of `train deeplesion` with another seed, and with --single too."),
    out: Path = typer.Option(..., "--out", file_okay=False, help="Samples, checkpoints and tables go here."),
    socket: Literal["unet", "red-cnn"] = typer.Option("unet", "--socket", help="What the denoiser's weights are of."),
    arms: list[str] | None = typer.Option(None, "--arm", help=f"Repeatable; all without it. {ARMS}."),
    sweep: bool = typer.Option(
        False,
        "--sweep",
        help="The feedback's weights times 0.1, 1 and 10, on validation patients; without --arm: A3, A4 and A6.",
    ),
    seeds: int = typer.Option(3, "--seeds", min=1, help="Trainings of each arm."),
    preset: Literal["cpu", "gpu"] = typer.Option("cpu", "--preset", help="Length and size of each training."),
    workers: int = typer.Option(0, "--workers", min=0, help="Processes that train arms side by side; 0: none."),
    rounds: int | None = typer.Option(None, "--rounds", min=1, help="Instead of the preset's.", show_default=False),
    seed: int = typer.Option(0, "--seed", help="Of the simulated patients."),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of tables."),
) -> None:
    """Train LIDnet's arms (A1 to A6 and their controls) and judge them on patients that none of them saw.

    Every arm starts from the same denoiser and detector and takes the same number of steps. The same command goes on
    where it was stopped.

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
    config = what_of(collaboration, arms or (), seeds=seeds, sweep=sweep)
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
        )
    text = "\n".join(table.markdown() for table in tables)
    data = json.dumps([table.data() for table in tables], indent=1, ensure_ascii=False)
    (out / "ablation.md").write_text(text, encoding="utf8")
    (out / "ablation.json").write_text(data, encoding="utf8")
    if tables[1].rows:
        draw_intervals(tables[1], out / "differences.png")
    typer.echo(data if as_json else text)


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
