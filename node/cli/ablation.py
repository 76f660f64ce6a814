"""`train ablation`: LIDnet's arms side by side, each trained from the same start and judged by another detector."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Literal, get_args

import typer

from node.cli.evaluate_deeplesion import config_of
from node.cli.learning import filled, in_words, progress_bar
from node.errors import ConfigurationError

ARMS = (
    "A1 pixel loss; A2 whole-map perceptual; A3 ROI perceptual; A4 detector's loss; A5 both, detector frozen; A6 both"
)
ARMS += ", detector learns in turns (LIDnet); A6-shuffled: regions of another image, the control"


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
    seeds: int = typer.Option(3, "--seeds", min=1, help="Trainings of each arm."),
    preset: Literal["cpu", "gpu"] = typer.Option("cpu", "--preset", help="Length and size of each training."),
    workers: int = typer.Option(0, "--workers", min=0, help="Processes that train arms side by side; 0: none."),
    rounds: int | None = typer.Option(None, "--rounds", min=1, help="Instead of the preset's.", show_default=False),
    seed: int = typer.Option(0, "--seed", help="Of the simulated patients."),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of tables."),
) -> None:
    """Train LIDnet's arms (A1 to A6 and the shuffled control) and judge them on patients that none of them saw.

    Every arm starts from the same denoiser and detector and takes the same number of steps. The same command goes on
    where it was stopped.

    \b
    pacsnode train ablation --denoiser d/weights.safetensors --detector l1/weights.safetensors \\
      --judge l2/weights.safetensors --out ./arms
    """
    import torch

    from models.deeplesion.model import FAST
    from models.deeplesion.network import build
    from models.lidnet.ablation import AblationConfig, run
    from models.lidnet.collaborate import Arm, collaboration_of
    from models.lidnet.config import LidnetConfig
    from models.lidnet.socket import plug

    known = get_args(Arm)
    if unknown := set(arms or ()) - set(known):
        raise ConfigurationError(f"no arm {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if detector.read_bytes() == judge.read_bytes():
        raise ConfigurationError("detector and judge are the same weights: a judge must not have taken part")
    collaboration = collaboration_of(preset, socket)
    if rounds is not None:
        collaboration = dataclasses.replace(collaboration, rounds=rounds)
    config = AblationConfig(
        collaboration, arms=tuple(arm for arm in known if not arms or arm in arms), seeds=tuple(range(1, seeds + 1))
    )
    detectors = dataclasses.replace(FAST, network=config_of(detector))
    device = torch.device("cuda" if preset == "gpu" and torch.cuda.is_available() else "cpu")
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
    typer.echo(data if as_json else text)
