"""`send`: a folder of DICOM files to a peer, as a modality or PACS would send it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from node.cli import home as homes
from node.cli.studies import JSON, open_database
from node.cli.words import NEVER, NOTHING, complain, err, exit_code_of, print_json, remark, say, table
from node.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from node.dicom.folder import Found
    from node.dicom.send import Sent
    from node.settings import Peer, Settings

_ADDRESS = re.compile(r"(?:(?P<aet>[^@]{1,16})@)?(?P<host>[^@]+):(?P<port>\d{1,5})")


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Peers")(send)


def send(
    ctx: typer.Context,
    folder: Path = typer.Argument(..., exists=True, help="Read with all its sub-folders; or one file."),
    to: str = typer.Option(..., "--to", help="A known peer's AE title, or [AET@]host:port."),
    calling: str = typer.Option("", "--as", help="AE title to call as. Default: the node's own.", show_default=False),
    as_json: bool = JSON,
) -> None:
    """Send DICOM files as they lie (C-STORE) and say what the peer answered for each.

    What is not DICOM is passed over with a note. Exit code 0 only when every object was taken.

    \b
    pacsnode --home DIR send ./study --to MAINPACS
    pacsnode send ./study --to PACSNODE@127.0.0.1:11112 --as CT2
    """
    from node.dicom import folder as folders

    settings = homes.load(ctx.obj)
    if calling:
        settings = homes.load(ctx.obj, aet=calling)
    peer = peer_of(ctx, to)
    found = list(folders.scan(folder))
    objects = [item for item in found if item.outgoing is not None]
    if not as_json:
        for item in found:
            if item.outgoing is None:
                remark(f"{item.path}: passed over: {item.reason}")
    if not objects:
        complain(f"{folder}: no DICOM object to send")
        raise typer.Exit(NOTHING)
    answers = send_with_progress(settings, peer, objects, label=f"to {peer.aet}")
    _report(found, answers, as_json=as_json, peer=peer)
    raise typer.Exit(max((exit_code_of(a.error) if a.error else 0 for a in answers), default=NEVER))


def peer_of(ctx: typer.Context, to: str) -> Peer:
    """A known peer by AE title, or one by its address. raises ConfigurationError"""
    from node.settings import Peer

    address = _ADDRESS.fullmatch(to)
    if address is not None:
        return Peer(aet=address["aet"] or "ANY-SCP", host=address["host"], port=int(address["port"]))
    from node.db import peers

    with open_database(ctx).read() as session:
        peer = peers.peer(session, to)
    if peer is None or peer.port is None:
        known = "is not known" if peer is None else "has no port, so it takes nothing"
        raise ConfigurationError(f"peer {to} {known}; give AET@host:port, or add it to the site file")
    return peer


def send_with_progress(settings: Settings, peer: Peer, objects: Sequence[Found], *, label: str) -> list[Sent]:
    """C-STORE with a bar on standard error."""
    from node.dicom.send import send as c_store

    outgoing = [item.outgoing for item in objects if item.outgoing is not None]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(f"sending {label}", total=len(outgoing))
        return c_store(settings, peer, outgoing, on_progress=lambda done, _total: bar.update(task, completed=done))


def _report(found: Sequence[Found], answers: Sequence[Sent], *, as_json: bool, peer: Peer) -> None:
    from node.dicom import status

    objects = [item for item in found if item.outgoing is not None]
    lines = [
        {
            "path": str(item.path),
            "sop_instance_uid": answer.sop_instance_uid,
            "status": answer.status,
            "answer": answer.error.reason
            if answer.error
            else "taken"
            if not answer.status
            else f"taken with a remark: {status.in_words(answer.status)}",
            "taken": answer.error is None,
        }
        for item, answer in zip(objects, answers, strict=True)
    ]
    if as_json:
        passed = [{"path": str(item.path), "reason": item.reason} for item in found if item.outgoing is None]
        print_json({"peer": peer.aet, "objects": lines, "passed_over": passed})
        return
    odd = [line for line in lines if line["answer"] != "taken"]
    if odd:
        table("", ["file", "answer"], [[line["path"], line["answer"]] for line in odd])
    counts = Counter(bool(line["taken"]) for line in lines)
    say(
        f"{counts[True]} of {len(lines)} objects taken by {peer.aet}"
        + (f", {counts[False]} not" if counts[False] else "")
    )
