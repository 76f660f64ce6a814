"""How the command line speaks: exit codes (one table), errors in words, times, durations, tables, JSON."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import pwd
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from node.errors import (
    AnalysisFailed,
    ConfigurationError,
    NodeError,
    NotEligible,
    Permanent,
    Refused,
    Transient,
)

DONE = 0
NOTHING = 1
WRONG = 2
LATER = 3
NEVER = 4
BROKEN = 5

EXIT_CODES: Mapping[int, str] = {
    DONE: "done",
    NOTHING: "nothing found, or a check did not pass",
    WRONG: "what was asked cannot be carried out: options, settings or site file",
    LATER: "passing trouble (peer, database or broker does not answer): the same command may succeed later",
    NEVER: "a peer or the node refused for good: something must be changed first",
    BROKEN: "an analysis or the program itself broke",
}
CODE_OF: Mapping[type[NodeError], int] = {
    ConfigurationError: WRONG,
    NotEligible: NOTHING,
    Transient: LATER,
    Permanent: NEVER,
    Refused: NEVER,
    AnalysisFailed: BROKEN,
}
"""Exit code for every branch of the error tree; a test holds it complete."""

_WIDE = 240  # into a file or a pipe nothing need be folded
out = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
err = Console(stderr=True, highlight=False)


def exit_code_of(error: NodeError) -> int:
    for kind in type(error).__mro__:
        if kind in CODE_OF:
            return CODE_OF[kind]
    return BROKEN


def complain(text: str) -> None:
    """To standard error, as plain text."""
    err.print(text, style="red", markup=False, soft_wrap=True)


def remark(text: str) -> None:
    err.print(text, style="yellow", markup=False, soft_wrap=True)


def say(text: str) -> None:
    out.print(text, markup=False, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on standard output; a name that begins with ">" is right-aligned, one with "=" is never folded."""
    drawn = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        drawn.add_column(column.lstrip(">="), justify=justify, overflow="fold", no_wrap=column[0] in "=>")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row))
    out.print(drawn)


def _cell(value: object) -> Text:
    # text from DICOM headers is never markup
    return Text("" if value is None else str(value))


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, default=_plain, indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat(timespec="milliseconds")
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    return str(value)


def clock_time(at: dt.datetime | None) -> str:
    """Local time to the second; with the date where it is not today's."""
    if at is None:
        return ""
    local = at.astimezone()
    today = dt.datetime.now().astimezone().date()
    return local.strftime("%H:%M:%S" if local.date() == today else "%Y-%m-%d %H:%M:%S")


def duration(seconds: float | None) -> str:
    """ "0.4 s", "12 s", "3 min 05 s", "2 h 10 min", "3 d 4 h"."""
    if seconds is None:
        return ""
    seconds = max(seconds, 0.0)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(octets: float) -> str:
    """Binary units, as disks are measured by operating systems."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if octets < 1024:
            return f"{octets:.0f} {unit}" if unit == "B" or octets >= 100 else f"{octets:.1f} {unit}"
        octets /= 1024
    return f"{octets:.1f} TiB"


_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}


def moment(text: str, *, option: str) -> str:
    """ "2h", "30min", "7d" ago, or an ISO date or time (local where it names no zone), as the trail writes times.

    raises   typer.BadParameter
    """
    if not text:
        return ""
    try:
        return _moment(text.strip()).astimezone(dt.UTC).isoformat(timespec="microseconds")
    except OverflowError as exc:
        raise typer.BadParameter(f"{option} {text!r}: too long ago, or too far ahead, to be a date") from exc
    except ValueError as exc:
        raise typer.BadParameter(
            f"{option} {text!r}: give how long ago (30min, 2h, 7d) or a date or time like 2026-01-31T07:10"
        ) from exc


def _moment(text: str) -> dt.datetime:
    """raises   ValueError, OverflowError"""
    ago = _AGO.fullmatch(text)
    if ago is None:
        return dt.datetime.fromisoformat(text)
    return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=float(ago[1]) * _SECONDS[ago[2]])


def person() -> str:
    """Who types, for the audit trail: as the system knows it, since USER and LOGNAME may say anything."""
    user, login = os.getuid(), _login()
    name = _name(user) if login in (None, user) else f"{_name(login)} as {_name(user)}"
    return f"{name}@{socket.gethostname()}"


_LOGIN = Path("/proc/self/loginuid")
_NO_LOGIN = 2**32 - 1


def _login() -> int | None:
    """Who logged in, whoever they have become since: pam_loginuid sets it, once. None where that is not known."""
    try:
        found = int(_LOGIN.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if found == _NO_LOGIN else found


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:  # a container's user may have a number only
        return f"uid {user}"
