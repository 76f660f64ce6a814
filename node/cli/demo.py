"""`demo`: a stand-in PACS and a node on this machine, a study there and its results back, with a picture."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from node.cli.words import LATER, NOTHING, complain, duration, out, remark, say, table
from node.errors import ConfigurationError, NodeError

if TYPE_CHECKING:
    from models.contract import FloatArray
    from node.cli.demo_node import DemoNode
    from node.db.timeline import Timeline
    from node.db.views import StudyLine
    from node.dicom.folder import Found
    from node.dicom.standin import Kept, StandInPacs

_MARK = ".made-by-pacsnode-demo"
_ENDED = ("delivered", "incomplete", "unsent")
_MOST_SENTENCES = 14


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Processes")(demo)


def demo(
    study: Path | None = typer.Option(
        None, "--study", exists=True, help="Send this folder of DICOM files instead of the phantom."
    ),
    to: Path = typer.Option(
        Path("demo-out"), "--out", help="Where everything goes; an earlier demo there is replaced."
    ),
    slices: int = typer.Option(16, "--slices", min=8, max=200, help="Slices of the phantom CT."),
    seed: int = typer.Option(1, "--seed", min=1, help="Another seed is another phantom."),
    patience_s: float = typer.Option(900.0, "--patience", help="Give up after so many seconds."),
) -> None:
    """Show the whole way: a study goes in, its results come back to a PACS, and a picture shows what changed.

    Starts a node and a stand-in PACS on loopback ports, makes a low-dose chest CT and a chest radiograph from a
    phantom (or takes --study), sends them, waits until all results are proven stored, and stops everything.

    \b
    pacsnode demo
    pacsnode demo --study ./my-ct --out /tmp/demo
    """
    from node.cli.demo_node import DemoNode
    from node.dicom.standin import StandInPacs

    started = time.monotonic()
    _clear(to)
    pacs = StandInPacs(to / "pacs")
    pacs.start()
    try:
        with DemoNode(to, pacs) as node:
            say(f"stand-in PACS {pacs.aet} on port {pacs.port}; the node starts in {node.home}")
            files, truth = (list_of(study), None) if study is not None else _phantom(to / "input", slices, seed)
            node.wait_ready()
            _send(node, pacs, files)
            lines = _watch(node, patience_s)
            _show(node, pacs, files, to=to, truth=truth)
    finally:
        pacs.stop()
    say(f"took {duration(time.monotonic() - started)}; everything has been stopped")
    if not all(line.state in _ENDED for line in lines):
        complain(f"not everything was delivered within {patience_s:.0f} s; look at it with the commands above")
    raise typer.Exit(0 if all(line.state == "delivered" for line in lines) else LATER)


def _clear(to: Path) -> None:
    """An empty folder; only what an earlier demo made is removed."""
    if to.exists() and any(to.iterdir()):
        if not (to / _MARK).exists():
            raise ConfigurationError(f"{to} holds something else; choose another --out")
        for name in ("home", "pacs", "input"):
            shutil.rmtree(to / name, ignore_errors=True)
    to.mkdir(parents=True, exist_ok=True)
    (to / _MARK).touch()


def list_of(folder: Path) -> list[Found]:
    """What is to be sent from a folder. raises typer.Exit where there is nothing"""
    from node.dicom.folder import scan

    found = list(scan(folder))
    objects = [item for item in found if item.outgoing is not None]
    if len(objects) < len(found):
        remark(f"{len(found) - len(objects)} files below {folder} are not DICOM objects and are not sent")
    if not objects:
        complain(f"{folder}: no DICOM object to send")
        raise typer.Exit(NOTHING)
    return objects


def _phantom(folder: Path, slices: int, seed: int) -> tuple[list[Found], FloatArray]:
    from node.cli.phantom import make_studies

    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=out
    ) as bar:
        task = bar.add_task("making a low-dose chest CT and a radiograph", total=slices + 1)
        made = make_studies(
            folder, slices=slices, seed=seed, on_progress=lambda done, n: bar.update(task, completed=done, total=n)
        )
    return list_of(folder), made.truth


def _send(node: DemoNode, pacs: StandInPacs, files: Sequence[Found]) -> None:
    from node.cli.send import send_with_progress

    answers = send_with_progress(node.settings_of_pacs(pacs), node.as_peer(), files, label="to the node")
    refused = [answer.error for answer in answers if answer.error is not None]
    say(f"{len(answers) - len(refused)} of {len(answers)} objects taken by the node")
    for error in refused[:5]:
        remark(error.reason)


def _watch(node: DemoNode, patience_s: float) -> list[StudyLine]:
    """Until every study has come to its end, or patience has."""
    deadline = time.monotonic() + patience_s
    with Live(console=out, refresh_per_second=4) as live:
        while True:
            lines = node.studies()
            live.update(_progress(lines))
            if (lines and all(line.state in _ENDED for line in lines)) or time.monotonic() > deadline:
                return lines
            node.check()
            time.sleep(0.4)


def _progress(lines: Sequence[StudyLine]) -> Table:
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("study", "images", "state", "analysis", "step", "results delivered"):
        drawn.add_column(name, no_wrap=True)
    for line in lines:
        bar = "█" * round(20 * line.progress) + "░" * (20 - round(20 * line.progress))
        delivered = f"{line.delivered} of {line.deliveries}" if line.deliveries else ""
        drawn.add_row(line.description, str(line.images), line.state, bar, line.step, delivered)
    return drawn


def _show(node: DemoNode, pacs: StandInPacs, files: Sequence[Found], *, to: Path, truth: FloatArray | None) -> None:
    kept = pacs.kept()
    timelines = node.timelines()
    rows = [row for timeline in timelines for row in _came_back(timeline, kept)]
    say("")
    table("What came back to the PACS", ["study", "kind", "class", "series", "description", ">objects", "proof"], rows)
    for timeline in timelines:
        _show_report(timeline, kept)
    _pictures(node, files, kept, to, truth=truth)
    say(f"results     {to / 'pacs'}")
    if truth is not None:
        say(f"sent        {to / 'input'}")
    for timeline in timelines:
        say(f"look again  pacsnode --home {node.home} study {timeline.study_instance_uid}")


def _came_back(timeline: Timeline, kept: Sequence[Kept]) -> list[list[object]]:
    """One row per series of results."""
    revision = timeline.revisions[-1]
    proofs = {(line.kind, line.label): line.proof for line in revision.deliveries}
    rows: list[list[object]] = []
    for result in revision.results:
        objects = [
            k
            for k in kept
            if k.series_instance_uid == result.series_instance_uid and k.sop_class_uid == result.sop_class_uid
        ]
        if objects:
            first = objects[0]
            proof = proofs.get((result.kind, result.label), "")
            rows.append(
                [
                    timeline.description,
                    result.kind,
                    first.class_name,
                    first.series_number,
                    first.series_description,
                    len(objects),
                    proof,
                ]
            )
    return rows


def _show_report(timeline: Timeline, kept: Sequence[Kept]) -> None:
    from node.dicom.standin import sentences_of

    reports = [k for k in kept if k.modality == "SR" and k.study_instance_uid == timeline.study_instance_uid]
    for report in reports[:1]:
        sentences = sentences_of(report.path)
        say(f"\nThe report of {timeline.description or timeline.study_instance_uid} says:")
        for sentence in sentences[:_MOST_SENTENCES]:
            say(f"  {sentence}")
        if len(sentences) > _MOST_SENTENCES:
            say(f"  … and {len(sentences) - _MOST_SENTENCES} more lines in {report.path}")
    say("")


def _pictures(
    node: DemoNode, files: Sequence[Found], kept: Sequence[Kept], to: Path, *, truth: FloatArray | None
) -> None:
    """One of a CT series and one of a radiograph, of those that came back."""
    from node.cli.picture import draw, draw_radiograph

    ct, radiograph = to / "before-after-difference.png", to / "before-after-difference-radiograph.png"
    drawn = _first_drawn(
        ct, (partial(draw, before, after, truth=truth) for before, after in _series_before_and_after(node, files, kept))
    )
    drawn += _first_drawn(
        radiograph, (partial(draw_radiograph, *pair) for pair in _radiographs_before_and_after(node, files, kept))
    )
    if not drawn:
        remark("no picture: no derived images came back; the report says why")


def _first_drawn(to: Path, drawings: Iterable[Callable[[Path], str]]) -> int:
    """How many pictures there are now: 1, or 0 where nothing could be drawn."""
    to.unlink(missing_ok=True)
    for draw in drawings:
        try:
            say(draw(to))
        except NodeError as exc:
            remark(f"no picture: {exc.reason}")
            continue
        say(f"picture     {to}")
        return 1
    return 0


def _series_before_and_after(
    node: DemoNode, files: Sequence[Found], kept: Sequence[Kept]
) -> Iterator[tuple[list[Path], list[Path]]]:
    for derived, source in node.derived_series("CT").items():
        before = [item.path for item in files if item.series_instance_uid == source]
        after = [k.path for k in kept if k.series_instance_uid == derived]
        if before and after:
            yield before, after


def _radiographs_before_and_after(
    node: DemoNode, files: Sequence[Found], kept: Sequence[Kept]
) -> Iterator[tuple[Path, Path]]:
    derived = {**node.derived_series("CR"), **node.derived_series("DX")}
    sent = {item.outgoing.sop_instance_uid: item.path for item in files if item.outgoing is not None}
    for k in kept:
        if k.series_instance_uid in derived and k.made_of in sent:
            yield sent[k.made_of], k.path
