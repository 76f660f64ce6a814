"""`harvest`: the marks that radiologists left in a PACS, as a training set without names."""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from node.cli import home as homes
from node.cli.send import peer_of
from node.cli.studies import JSON
from node.cli.words import NOTHING, complain, err, exit_code_of, moment, print_json, remark, say, table
from node.errors import (
    AnalysisFailed,
    ConfigurationError,
    NoCommonContext,
    NodeError,
    PeerBusy,
    PeerUnreachable,
)

if TYPE_CHECKING:
    from node.cli.harvested import TrainingSet
    from node.dicom.holdings import FoundStudy
    from node.dicom.marks.shelf import Shelf
    from node.dicom.read.codec import Codec
    from node.dicom.retrieve import Destination
    from node.settings import Peer, Settings

_SAVE_EVERY_S = 60.0
_GIVE_UP_AFTER = 3
"""Studies in a row for which the peer could not be reached."""

Opened = Callable[[Path], "Shelf"]
"""A study as a shelf whose fetched files lie in the folder given."""


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Models")(harvest)


def harvest(
    ctx: typer.Context,
    out: Path = typer.Option(
        ..., "--out", file_okay=False, help="The training set; an earlier one there is continued."
    ),
    peer: str = typer.Option("", "--peer", help="A known peer's AE title, or [AET@]host:port."),
    folder: Path | None = typer.Option(None, "--folder", exists=True, help="Instead of a peer: DICOM files here."),
    since: str = typer.Option("", "--since", help="Studies from this date on (2025-01-31, or 7d for a week ago)."),
    until: str = typer.Option("", "--until", help="Studies up to this date."),
    patient_list: Path | None = typer.Option(
        None, "--patient-list", exists=True, dir_okay=False, help="Patient IDs, one a line."
    ),
    study: list[str] | None = typer.Option(None, "--study", help="Only this Study Instance UID (repeatable)."),
    mapping: Path | None = typer.Option(
        None, "--mapping", dir_okay=False, help="Where numbers are tied to patients. Default: OUT.mapping.json."
    ),
    move_to: str = typer.Option(
        "",
        "--move-to",
        metavar="AET:PORT",
        help="Fetch by C-MOVE to this AE title: the harvest listens on that port, and the peer must know both."
        " Default: C-GET.",
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say which studies would be looked at."),
    as_json: bool = JSON,
) -> None:
    """Turn RECIST marks (GSPS, SR by TID 1500) into a training set: DL_info.csv and 16-bit images, no names.

    Also lesions that were contoured or segmented (RTSTRUCT, SEG), told apart as derived. Looks for studies with such
    documents, fetches these first and then only the series that they mark (C-FIND, C-GET or C-MOVE). A study that was
    harvested is asked for again, and fetched only where its marks or images have changed: its rows are then replaced.
    What key object notes reject is not used, and rows of it go. Every refused mark is counted.

    \b
    pacsnode --home DIR harvest --peer MAINPACS --since 2024-01-01 --out ./lesions
    pacsnode harvest --peer PACS@10.0.0.5:104 --study 1.2.3 --out ./lesions --dry-run
    pacsnode harvest --peer MAINPACS --move-to HARVEST:11115 --since 30d --out ./lesions
    pacsnode harvest --folder ./export --out ./lesions
    """
    if bool(peer) == (folder is not None):
        raise typer.BadParameter("give either --peer or --folder")
    if folder is not None and (since or until or patient_list or move_to):
        raise typer.BadParameter("--since, --until, --patient-list and --move-to are for a --peer")
    kept_apart = mapping or out.absolute().with_name(f"{out.absolute().name}.mapping.json")
    if kept_apart.resolve().is_relative_to(out.resolve()):
        raise ConfigurationError(f"{kept_apart}: the mapping leads back to patients; keep it outside of {out}")
    source = {"kind": "peer" if folder is None else "folder"}  # no AE title: it may name the hospital
    made = _opened(out, kept_apart)
    cut: list[NodeError] = []
    if folder is not None:
        studies = _in_folder(folder, study)
    else:
        settings, called = homes.load(ctx.obj), peer_of(ctx, peer)
        dates = _dates(since, until)
        chosen = _Chosen(dates, _lines(patient_list) or [""], study or [""])
        studies, cut = _of_peer(settings, called, chosen, _destination(move_to), made.knows)
    if dry_run:
        for error in cut:
            complain(error.reason)
        _say_plan(made, studies, as_json=as_json)
        raise typer.Exit(0 if studies else NOTHING)
    with _alone(out) as fetched:
        made = _opened(out, kept_apart)  # another harvest may have ended meanwhile
        looked = harvest_all(made, studies, source, fetched)
        looked.troubles += cut
        said = made.save(source)
    said |= {"found": len(studies), "harvested_before": looked.unchanged, "changed": looked.changed}
    said |= {"new_rows": made.new, "dropped_rows": made.dropped}
    _report(said, looked.troubles, out, kept_apart, as_json=as_json)
    if looked.troubles:
        raise typer.Exit(max(exit_code_of(error) for error in looked.troubles))
    raise typer.Exit(0 if len(made) else NOTHING)


def _opened(out: Path, kept_apart: Path) -> TrainingSet:
    from node.cli.harvested import TrainingSet
    from node.dicom.marks.deidentify import Mapping

    return TrainingSet(out, Mapping.open(kept_apart))


@dataclass
class Looked:
    """What became of the studies that were looked at.

    troubles    of those that are left for the next time
    unchanged   harvested before, and as they were; changed: harvested before, and anew now
    """

    troubles: list[NodeError] = field(default_factory=list)
    unchanged: int = 0
    changed: int = 0


def harvest_all(
    made: TrainingSet, studies: dict[str, Opened], source: dict[str, str], fetched: Path | None = None
) -> Looked:
    """All studies that are new or have changed; where nothing can go well any more, it ends.

    fetched   folder for the files of the study under way; None: the system's
    """
    from node.dicom.read.codec import Codec

    looked = Looked()
    unreachable, saved_at = 0, time.monotonic()
    made.mapping.save()
    with _bar() as bar, Codec() as codec:
        task = bar.add_task("harvesting", total=len(studies))
        try:
            for done, opened in enumerate(studies.values(), start=1):
                trouble = _harvest_one(made, opened, codec, fetched, looked)
                if trouble is not None:
                    looked.troubles.append(trouble)
                unreachable = unreachable + 1 if isinstance(trouble, PeerUnreachable) else 0
                if unreachable == _GIVE_UP_AFTER and done < len(studies):
                    words = f"no connection {unreachable} times in a row: {len(studies) - done} studies were not tried"
                    looked.troubles.append(PeerUnreachable(words))
                    break
                bar.update(task, advance=1, description=f"harvesting, {len(made)} rows")
                if time.monotonic() - saved_at > _SAVE_EVERY_S:
                    made.save(source)
                    saved_at = time.monotonic()
        except (KeyboardInterrupt, NodeError):
            made.save(source)  # what was finished before
            raise
    return looked


def _harvest_one(
    made: TrainingSet, opened: Opened, codec: Codec, fetched: Path | None, looked: Looked
) -> NodeError | None:
    """Why a study, or some of it, is left for the next time. raises NoCommonContext, ConfigurationError"""
    from node.dicom.marks.study import marks_of

    with tempfile.TemporaryDirectory(dir=fetched) as folder:
        shelf = opened(Path(folder))
        try:
            holdings = shelf.holdings()
            if made.is_current(shelf.study_uid, holdings):
                looked.unchanged += 1
                return None
            known = made.knows(shelf.study_uid)
            found = marks_of(shelf, codec)
            if not made.add(found, codec, holdings=holdings, not_sent=shelf.failed):
                return PeerBusy(f"study {shelf.study_uid}: {shelf.failed} objects did not come; its earlier rows stay")
            looked.changed += known
        except (NoCommonContext, ConfigurationError):
            raise
        except NodeError as exc:
            return type(exc)(f"study {shelf.study_uid}: {exc.reason}")
        except Exception as exc:  # noqa: BLE001  (one study that breaks us must not stop all those behind it)
            where = "".join(traceback.format_tb(exc.__traceback__))
            err.print(f"{where}{type(exc).__name__}", markup=False)  # its text may hold values of the study
            return AnalysisFailed(f"study {shelf.study_uid} broke the program (lines above)")
    if shelf.failed:
        return PeerBusy(f"study {shelf.study_uid}: {shelf.failed} objects did not come; what came is kept")
    return None


@contextmanager
def _alone(out: Path) -> Iterator[Path]:
    """A folder beside the set for files as fetched, emptied first: a harvest that was killed leaves them there.

    raises   ConfigurationError where another harvest is at work on the same set
    """
    place = out.absolute().with_name(f"{out.absolute().name}.fetched")
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(place, os.O_RDONLY)
    except OSError as exc:
        raise ConfigurationError(f"{place}: cannot be made ({exc.strerror})") from exc
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(handle)
        raise ConfigurationError(f"another harvest is at work on {out}") from exc
    try:
        for left in place.iterdir():
            shutil.rmtree(left)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(handle)


def _in_folder(folder: Path, wanted: list[str] | None) -> dict[str, Opened]:
    from node.dicom.marks.shelf import shelves

    def opened(shelf: Shelf) -> Opened:
        return lambda _: shelf

    left_out: Counter[str] = Counter()
    found = shelves(folder, lambda reason: left_out.update([reason]))
    for reason, count in left_out.most_common():
        remark(f"{count} files left out: {reason}")
    return {it.study_uid: opened(it) for it in found if not wanted or it.study_uid in wanted}


def _of_peer(
    settings: Settings, peer: Peer, chosen: _Chosen, move_to: Destination | None, is_known: Callable[[str], bool]
) -> tuple[dict[str, Opened], list[NodeError]]:
    """Studies that may hold marks: those whose modalities say so, whose peer does not say, or that were named; and
    those that held some when they were harvested. Beside them, what the peer would not list."""
    from node.dicom.holdings import find_studies
    from node.dicom.marks.shelf import MARKED_MODALITIES, PeerShelf

    cut: list[NodeError] = []

    def matches(uid: str) -> list[FoundStudy]:
        return find_studies(
            settings,
            peer,
            dates=chosen.dates,
            patient_ids=chosen.patients,
            study_instance_uid=uid,
            on_cut=lambda words: cut.append(PeerBusy(f"{words}: others are not known; --patient-list asks for less")),
        )

    found = [
        match
        for uid in chosen.studies
        for match in matches(uid)
        if uid
        or not match.modalities
        or set(match.modalities) & set(MARKED_MODALITIES)
        or is_known(match.study_instance_uid)
    ]

    def opened(uid: str) -> Opened:
        return lambda folder: PeerShelf(settings, peer, uid, folder, move_to=move_to)

    return {match.study_instance_uid: opened(match.study_instance_uid) for match in found}, cut


@dataclass(frozen=True)
class _Chosen:
    """What a peer is asked for; "" anything."""

    dates: str
    patients: list[str]
    studies: list[str]


def _destination(said: str) -> Destination | None:
    from node.dicom.retrieve import Destination

    aet, _, port = said.rpartition(":")
    if not said:
        return None
    if not (0 < len(aet.strip()) <= 16 and aet.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise typer.BadParameter(f"--move-to {said}: AET:PORT is wanted, as in HARVEST:11115")
    return Destination(aet.strip(), int(port))


def _dates(since: str, until: str) -> str:
    """A range as C-FIND has it; "" where neither side is given."""
    ends = [_day(moment(text, option=option)) for text, option in ((since, "--since"), (until, "--until"))]
    return "-".join(ends) if any(ends) else ""


def _day(at: str) -> str:
    return dt.datetime.fromisoformat(at).astimezone().strftime("%Y%m%d") if at else ""


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        found = [line.strip() for line in path.read_text(encoding="utf8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path}: cannot be read as a list of Patient IDs ({type(exc).__name__})") from exc
    if not found:
        raise ConfigurationError(f"{path}: holds no Patient ID")
    if any(sign in line for line in found for sign in "*?\\"):
        raise ConfigurationError(f"{path}: a Patient ID with *, ? or a backslash would ask for others too")
    return found


def _say_plan(made: TrainingSet, studies: dict[str, Opened], *, as_json: bool) -> None:
    todo = []
    for uid, opened in studies.items():
        if not made.has(uid) or not made.is_current(uid, opened(made.out).holdings()):
            todo.append(uid)
    counts = {"found": len(studies), "harvested_before": len(studies) - len(todo)}
    if as_json:
        print_json({**counts, "to_harvest": todo})
        return
    for uid in todo:
        say(uid)
    say(f"{counts['found']} studies may hold marks, {counts['harvested_before']} of them harvested as they are")


def _report(said: dict[str, Any], troubles: list[NodeError], out: Path, kept_apart: Path, *, as_json: bool) -> None:
    for error in troubles:
        complain(f"left for the next time: {error.reason}")
    if as_json:
        print_json({**said, "left": [error.reason for error in troubles]})
        return
    if said["refused"]:
        table("", [">marks", "refused because"], [[count, reason] for reason, count in said["refused"].items()])
    say(
        f"{said['new_rows']} new rows, {said['dropped_rows']} dropped, {said['rows']} in all, of"
        f" {said['patients']} patients in {out} ({said['found']} studies found, {said['harvested_before']} harvested"
        f" before and unchanged, {said['changed']} changed since)"
    )
    if said["objects_rejected"]:
        remark(f"{said['objects_rejected']} images or documents are rejected by notes in their studies: not used")
    if said["objects_not_sent"]:
        remark(f"{said['objects_not_sent']} objects could not be sent by the peer")
    if said["possibly_noisy"]:
        remark(f"{said['possibly_noisy']} rows are possibly noisy (flat, dark, slender); no training takes them")
    if said["neighbours_left_out"]:
        remark(f"{said['neighbours_left_out']} slices beside key slices are not usable and were left out")
    remark(f"{kept_apart} ties numbers to patients: keep it apart from {out}, and safe")


@contextmanager
def _bar() -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=err, transient=True) as bar:
        yield bar
