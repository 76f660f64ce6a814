"""`evaluate clinreadnet`: the quality network and arms of its ablation on patients and families never trained on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from node.cli.learning import filled, in_words, progress_bar, tell, trainings_by_arm
from node.errors import ConfigurationError

if TYPE_CHECKING:
    from models.clinreadnet.config import NetworkConfig
    from models.clinreadnet.network import QualityNetwork

_FACTS = "training.json"


def register(evaluate: typer.Typer) -> None:
    """Add the command to the group `evaluate`."""
    evaluate.command("clinreadnet")(evaluate_clinreadnet)


def evaluate_clinreadnet(
    data: Path = typer.Option(
        ..., "--data", exists=True, file_okay=False, help="Samples of a training run: folders train and test."
    ),
    weights: Path = typer.Option(..., "--weights", exists=True, dir_okay=False, help="Weights of a training run."),
    out: Path = typer.Option(..., "--out", file_okay=False, help="The tables go here."),
    arm: list[str] | None = typer.Option(
        None,
        "--arm",
        help="NAME=FILE: weights to be compared with the first (repeatable). The same NAME again: another seed of it.",
    ),
    seed: int = typer.Option(0, "--seed", help="Of the pseudo-readers, and of the patients drawn."),
    draws: int = typer.Option(1000, "--draws", min=10, help="Bootstrap draws."),
    most: int | None = typer.Option(
        None, "--slices", min=1, help="At most so many test slices, evenly.", show_default=False
    ),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of tables."),
) -> None:
    """PLCC, SROCC, KROCC and grade error with intervals over patients; whether scores fall with dose and with views.

    Beside the weights stand a curve through the noise's standard deviation and natural-scene statistics. Labels are
    simulated: nothing here compares with figures on the public challenge. What it writes, evaluation.json, is what a
    card shows.

    \b
    pacsnode evaluate clinreadnet --data ./run1/samples --weights ./run1/weights.safetensors --out ./run1
    pacsnode evaluate clinreadnet --data ./run1/samples --weights ./run1/weights.safetensors \\
        --arm run1=./run2/weights.safetensors --arm plain-swin=./swin/weights.safetensors --out ./compared
    """
    import numpy as np

    from models.clinreadnet.config import DataConfig
    from models.clinreadnet.evaluate import evaluate, speed_table
    from models.clinreadnet.samples import sample_files
    from models.evaluation.froc import Bootstrap
    from models.evaluation.table import Measured

    files = trainings_by_arm(arm or [], {weights.parent.name or weights.stem: weights})
    with in_words(), progress_bar() as progress:
        networks = {name: [network_of(path) for path in paths] for name, paths in files.items()}
        test, training = (sample_files(data / split) for split in ("test", "train"))
        if most is not None and most < len(test):
            test = [test[index] for index in np.linspace(0, len(test) - 1, most).round().astype(int)]
        evaluation = evaluate(
            networks, test, training, DataConfig(), seed=seed, bootstrap=Bootstrap(draws, seed),
            workers=os.cpu_count() or 1, on_progress=progress,
        )  # fmt: skip
        progress("speed", 0, 1)
        speed = speed_table({name: seeds[0] for name, seeds in networks.items()})
        progress("speed", 1, 1)
    measured = Measured(
        hashlib.sha256(weights.read_bytes()).hexdigest(), facts_of(weights), (*evaluation.tables, speed)
    )
    tell(measured, out, as_json=as_json)


def network_of(weights: Path) -> QualityNetwork:
    """Ready to run, on the GPU where there is one; of the size that its facts tell. raises ConfigurationError"""
    from models.clinreadnet.network import build
    from models.clinreadnet.run import prepare
    from models.device import best

    return prepare(filled(build(_network_config(weights)), weights), best())


def _network_config(weights: Path) -> NetworkConfig:
    """As the training wrote it beside the weights; the shipped one where it wrote nothing."""
    from models.clinreadnet.config import NetworkConfig

    told: Any = facts_of(weights).get("network", {})
    try:
        sizes: dict[str, Any] = {key: tuple(one) if isinstance(one, list) else one for key, one in told.items()}
        return NetworkConfig(**sizes)
    except (AttributeError, TypeError) as exc:
        raise ConfigurationError(f"{weights.with_name(_FACTS)}: not the facts of this network") from exc


def facts_of(weights: Path) -> Mapping[str, object]:
    """What the weights were made of, as far as that is on record."""
    path = weights.with_name(_FACTS)
    found: Mapping[str, object] = json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
    return found
