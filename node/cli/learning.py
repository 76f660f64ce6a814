"""What the commands that train and evaluate networks share: progress, errors in words, weights into a network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from node.cli.words import err
from node.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import nn

Network = TypeVar("Network", bound="nn.Module")

PRESET: Any = typer.Option("cpu", "--preset", help="Length and size of the training, and where.")
SEED: Any = typer.Option(1, "--seed", help="Same seed, data and preset: same weights.")
STEPS: Any = typer.Option(None, "--steps", min=1, help="Instead of the preset's.", show_default=False)
CASES: Any = typer.Option(None, "--cases", min=2, help="Drawn patients per family.", show_default=False)
RESUME: Any = typer.Option(True, "--resume/--afresh", help="Go on from the checkpoint in --out.")


class Report(Protocol):
    """Called with what is being done, done, total, and the loss of late (NaN for none)."""

    def __call__(self, what: str, done: int, total: int, loss: float = math.nan, /) -> None: ...


@contextmanager
def progress_bar(what: str = "starting") -> Iterator[Report]:
    """One bar on the terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(what, total=None)

        def report(now: str, done: int, total: int, loss: float = math.nan, /) -> None:
            shown = now if math.isnan(loss) else f"{now}, loss {loss:.4f}"
            bar.update(task, description=shown, completed=done, total=total)

        yield report


@contextmanager
def in_words() -> Iterator[None]:
    """What a network cannot do, as an error of what was asked. raises ConfigurationError"""
    from models.contract import ModelError

    try:
        yield
    except ModelError as exc:
        raise ConfigurationError(str(exc)) from exc


def filled(network: Network, weights: Path) -> Network:
    """The network with these weights. raises ConfigurationError where they are of another"""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        network.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    except (RuntimeError, ValueError, SafetensorError) as exc:
        raise ConfigurationError(f"{weights}: not the weights of this network") from exc
    return network
