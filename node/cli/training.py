"""`train`, `evaluate`: the groups of commands; numbers and recipe of each paper are its folder under models/."""

from __future__ import annotations

import typer

from node.cli import (
    ablation,
    categories,
    evaluate_clinreadnet,
    evaluate_deeplesion,
    evaluate_diffusionxray,
    evaluate_lefusion,
    evaluate_lidnet,
    training_clinreadnet,
    training_deeplesion,
    training_diffusionxray,
    training_lefusion,
    training_lidnet,
)

_PANEL = "Models"


def register(app: typer.Typer) -> None:
    train = typer.Typer(help="Train a network: seeded, resumable.", no_args_is_help=True)
    training_lidnet.register(train)
    training_deeplesion.register(train)
    training_clinreadnet.register(train)
    training_diffusionxray.register(train)
    training_lefusion.register(train)
    ablation.register(train)
    categories.register(train)
    evaluate = typer.Typer(help="Measure a network on patients it has not seen.", no_args_is_help=True)
    evaluate_lidnet.register(evaluate)
    evaluate_deeplesion.register(evaluate)
    evaluate_clinreadnet.register(evaluate)
    evaluate_diffusionxray.register(evaluate)
    evaluate_lefusion.register(evaluate)
    app.add_typer(train, name="train", rich_help_panel=_PANEL)
    app.add_typer(evaluate, name="evaluate", rich_help_panel=_PANEL)
