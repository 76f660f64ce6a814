"""`audit export`: the trail into a file, in a standard form or as it is sealed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import typer

from node.cli import home as homes
from node.cli.studies import open_database
from node.cli.words import moment, person, remark
from node.errors import ConfigurationError


class Form(StrEnum):
    dicom = "dicom"
    fhir = "fhir"
    jsonl = "jsonl"


def export(
    ctx: typer.Context,
    form: Form = typer.Option(
        Form.jsonl,
        "--format",
        help="dicom: PS3.15 audit messages (XML). fhir: AuditEvents (R4, NDJSON). jsonl: events as they are sealed.",
    ),
    since: str = typer.Option("", "--since", help="How long ago (30min, 2h, 7d), or an ISO date or time."),
    until: str = typer.Option("", "--until", help="Likewise; not included."),
    out: Path | None = typer.Option(None, "--out", dir_okay=False, help="File to be written, which must not be there."),
) -> None:
    """Write the trail out, one message or event a line, oldest first. That you did is recorded too.

    dicom leaves out bookkeeping and tells of a transfer in one message, as the audit repository is told it; fhir and
    jsonl have every event. What jsonl holds can be checked elsewhere: each line names the digest of the one before.

    \b
    pacsnode --home DIR audit export --format fhir --since 7d --out week.ndjson
    """
    from node.db.trail import Question
    from node.jobs import telling

    question = Question(since=moment(since, option="--since"), until=moment(until, option="--until"))
    settings = homes.load(ctx.obj)
    lines = telling.export(open_database(ctx), settings, question, form.value, actor=person())
    if out is None:
        _write(sys.stdout.buffer, lines)
        return
    count = _write_file(out, lines)
    remark(f"{count} lines written to {out}; they name patients by their ids")


def _write_file(path: Path, lines: Iterable[bytes]) -> int:
    """Whole or not there, and for its owner's eyes. raises ConfigurationError"""
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        if path.exists():
            raise FileExistsError(17, "it is there already")
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            count = _write(file, lines)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except OSError as exc:
        unfinished.unlink(missing_ok=True)
        raise ConfigurationError(f"{path} cannot be written ({exc.strerror})") from exc
    return count


def _write(file: BinaryIO, lines: Iterable[bytes]) -> int:
    count = 0
    for line in lines:
        file.write(line + b"\n")
        count += 1
    return count
