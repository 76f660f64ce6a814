"""What the commands that train and evaluate networks share: progress, errors in words, weights into a network."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from node.cli.words import err, remark
from node.errors import ConfigurationError, Transient

if TYPE_CHECKING:
    from torch import nn

    from models.catalogue import Model
    from models.evaluation.table import Measured

Network = TypeVar("Network", bound="nn.Module")


def _told_where(preset: str) -> str:
    """A training for a GPU takes a CPU weeks: not begun there without a word."""
    if preset == "gpu":
        import torch

        if not torch.cuda.is_available():
            remark("--preset gpu: torch sees no GPU here, so that the CPU does all of it, which takes very long")
    return preset


PRESET: Any = typer.Option("cpu", "--preset", callback=_told_where, help="Length and size of the training, and where.")
SEED: Any = typer.Option(1, "--seed", help="Same seed, data and preset: same weights.")
STEPS: Any = typer.Option(None, "--steps", min=1, help="Instead of the preset's.", show_default=False)
CASES: Any = typer.Option(None, "--cases", min=2, help="Drawn patients per family.", show_default=False)
RESUME: Any = typer.Option(True, "--resume/--afresh", help="Go on from the checkpoint in --out.")


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
    """What a network cannot do, as an error of what was asked; and a disk without room, as passing trouble.

    raises   ConfigurationError, Transient
    """
    from models.contract import ModelError

    try:
        yield
    except ModelError as exc:
        raise ConfigurationError(str(exc)) from exc
    except (NotADirectoryError, FileExistsError) as exc:
        raise ConfigurationError(f"{exc.filename}: a part of this path is a file") from exc
    except OSError as exc:
        if exc.errno not in _NO_ROOM:
            raise
        raise Transient(
            f"no room to write ({exc.strerror}): what was finished before is whole, and the same command goes on there"
        ) from exc


def tell(measured: Measured, out: Path, *, as_json: bool) -> None:
    """The tables of an evaluation: shown first, since the disk may fail, then as OUT/evaluation.md and .json, whole."""
    from models.weights import write_whole

    typer.echo(measured.json() if as_json else measured.markdown())
    write_whole(measured.markdown().encode("utf8"), out / "evaluation.md")
    write_whole(measured.json().encode("utf8"), out / "evaluation.json")


def facts_of(weights: Path | None, shipped: Model[Any, Any], beside: str) -> Mapping[str, object]:
    """What weights were made of, as far as that is on record in the file `beside` them; None: those that ship."""
    if weights is None:
        return shipped.card().training_data
    path = weights.with_name(beside)
    found: Mapping[str, object] = json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
    return found


def trainings_by_arm(said: Sequence[str], first: Mapping[str, Path]) -> dict[str, list[Path]]:
    """Weights given as NAME=FILE, several files of one name being trainings of one arm, after what is there `first`.

    raises   ConfigurationError     no such file, or a file twice in one arm
    """
    files = {name: [file] for name, file in first.items()}
    for one in said:
        name, _, file = one.partition("=")
        if not name or not Path(file).is_file():
            raise ConfigurationError(f"--arm {one}: NAME=FILE with a file of weights is wanted")
        several = files.setdefault(name, [])
        if any(known.samefile(file) for known in several):
            raise ConfigurationError(f"--arm {one}: that file is already one of the arm's trainings")
        several.append(Path(file))
    return files


def arm_files(said: Sequence[str], *, taken: Collection[str]) -> dict[str, dict[str, Path]]:
    """Weights given as NAME=FILE: arm → label → file.

    Files of one name are trainings of one arm, labelled NAME 1, NAME 2 and so on; one alone is labelled NAME.

    taken    names that are not an arm's
    raises   ConfigurationError     no such file, a file twice in one arm, or a label that is another's too
    """
    files = trainings_by_arm(said, {})
    known_labels = set(taken)
    arms = {}
    for name, several in files.items():
        labels = [name] if len(several) == 1 else [f"{name} {number}" for number in range(1, len(several) + 1)]
        if both := known_labels & {name, *labels}:
            raise ConfigurationError(f"--arm {name}: there is another arm of that name, {', '.join(sorted(both))}")
        known_labels |= {name, *labels}
        arms[name] = dict(zip(labels, several, strict=True))
    return arms


def filled(network: Network, weights: Path) -> Network:
    """The network with these weights. raises ConfigurationError where they are of another"""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        network.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    except (RuntimeError, ValueError, SafetensorError) as exc:
        raise ConfigurationError(f"{weights}: not the weights of this network") from exc
    return network
