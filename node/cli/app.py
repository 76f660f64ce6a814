"""`pacsnode`: the commands by name, the global options, and the one place where an error becomes an exit code."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from node.cli import (
    accept,
    audit,
    busy,
    check,
    conformance,
    demo,
    harvest,
    hold,
    peers,
    processes,
    purge,
    quality,
    send,
    studies,
    synthesise,
    training,
)
from node.cli import home as homes
from node.cli.words import BROKEN, EXIT_CODES, LATER, WRONG, complain, exit_code_of, remark
from node.errors import NodeError
from node.settings import VERSION, doubtful_names

_HELP = """A PACS processing node: studies in by C-STORE, AI results back as DICOM. Research use, not a medical device.

\b
First steps:
  pacsnode demo                            a phantom study all the way round
  pacsnode --home DIR up --site site.toml  the whole node
  pacsnode --home DIR check                what is not reachable, and what to change
  pacsnode --home DIR studies              what came in and how far it is
  pacsnode --home DIR study 1.2.3          one study, step by step
  pacsnode --home DIR audit --since 2h     who did what
  pacsnode --home DIR quality              which scanner's images became worse
  pacsnode conformance                     the DICOM conformance statement

Every process option can also be set as PACSNODE_<NAME> (PACSNODE_<NAME>_FILE for secrets); what `up` was started
with is remembered in HOME/run/settings.json, so other commands need only --home.
"""
_EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."


class _Commands(TyperGroup):
    """Turns what commands raise into words and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except NodeError as exc:
            complain(exc.reason)
            raise typer.Exit(exit_code_of(exc)) from exc
        except BrokenPipeError as exc:  # `pacsnode audit | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from exc
        except PermissionError as exc:
            complain(f"{exc.filename}: {exc.strerror}. Be the user that the node runs as, or let this one in")
            raise typer.Exit(WRONG) from exc
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            complain(f"{exc.filename or 'what was to be written'}: {exc.strerror}")
            raise typer.Exit(LATER) from exc
        except Exception as exc:
            code = _database_trouble(exc, ctx.obj) or _strange_argument(exc)
            if code is None:
                raise
            raise typer.Exit(code) from exc


def _database_trouble(exc: Exception, home: Path | None) -> int | None:
    if "sqlalchemy.exc" not in sys.modules:
        return None
    from sqlalchemy.exc import DatabaseError

    if not isinstance(exc, DatabaseError):
        return None
    from node.db.session import is_busy

    if is_busy(exc):
        complain(busy.words(homes.load(home)))
        remark("let it end, or end it, and give the command again")
        return LATER
    # the statement and its parameters may hold patient data: only the driver's own words are shown
    complain(f"the database did not do it: {str(exc.orig).splitlines()[0] if exc.orig else type(exc).__name__}")
    remark("`pacsnode check` says what is wrong with it")
    return LATER


def _strange_argument(exc: Exception) -> int | None:
    if not isinstance(exc, UnicodeEncodeError) or "".join(sys.argv).isprintable():
        return None
    complain("what was typed is not text in UTF-8")
    return WRONG


app = typer.Typer(
    name="pacsnode",
    cls=_Commands,
    help=_HELP,
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its listing of local variables could show patient data
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pacsnode {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    home: Path | None = typer.Option(
        None, "--home", envvar="PACSNODE_HOME", help="The folder that holds all the node owns.", show_default=False
    ),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show it and leave."),  # noqa: ARG001
) -> None:
    ctx.obj = home
    if ctx.invoked_subcommand != "check":  # which says it among the rest
        for said in doubtful_names(os.environ):
            remark(said)


processes.register(app)
studies.register(app)
purge.register(app)
hold.register(app)
peers.register(app)
send.register(app)
audit.register(app)
quality.register(app)
check.register(app)
conformance.register(app)
accept.register(app)
training.register(app)
harvest.register(app)
synthesise.register(app)
demo.register(app)


def main() -> None:
    """Entry point of `pacsnode` and of `python -m node`."""
    try:
        app()
    except Exception as exc:  # noqa: BLE001  (the entry point: a defect of ours is said as such, with where it is)
        import traceback

        traceback.print_exception(exc)
        complain("this is a defect of pacsnode, not of your input; the lines above say where")
        sys.exit(BROKEN)
