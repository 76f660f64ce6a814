"""A progress bar for whoever trains at a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

OnProgress = Callable[[str, int, int, float], None]


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[OnProgress]:
    """A callback for `train`: one bar per kind of work, with the loss of late."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as progress:

        def report(what: str, done: int, total: int, loss: float) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total, loss="")
            text = "" if math.isnan(loss) else f"loss {loss:.4f}"
            progress.update(bars[what], completed=done, loss=text)

        yield report
