"""The processes of the node: `up` for all of them on one machine, and each by itself."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Literal, NoReturn

import typer

from node.cli import home as homes
from node.cli.words import say
from node.errors import ConfigurationError, Transient
from node.settings import Settings

_PROCESSES = "Processes"
AET = typer.Option(None, "--aet", help="Our AE title. Default: PACSNODE.", show_default=False)
PORT = typer.Option(None, "--port", help="DICOM port; 0 takes a free one. Default: 11112.", show_default=False)
WEB_PORT = typer.Option(None, "--web-port", help="HTTP port; 0 takes a free one. Default: 8080.", show_default=False)
HOST = typer.Option(None, "--host", help="Address to listen on. Default: 0.0.0.0.", show_default=False)
WEB_HOST = typer.Option(None, "--web-host", help="HTTP address. Default: 127.0.0.1.", show_default=False)
READY_FILE = typer.Option(None, "--ready-file", hidden=True)


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=_PROCESSES)(up)
    app.command(rich_help_panel=_PROCESSES)(receive)
    app.command(rich_help_panel=_PROCESSES)(infer)
    app.command(rich_help_panel=_PROCESSES)(deliver)
    app.command(rich_help_panel=_PROCESSES)(clock)
    app.command(rich_help_panel=_PROCESSES)(web)
    app.command(rich_help_panel=_PROCESSES)(migrate)


def up(
    ctx: typer.Context,
    aet: str | None = AET,
    port: int | None = PORT,
    web_port: int | None = WEB_PORT,
    site: Path | None = typer.Option(
        None, "--site", exists=True, dir_okay=False, help="Peers and routes to apply first (site.toml)."
    ),
    host: str | None = HOST,
    web_host: str | None = WEB_HOST,
    grace_s: float = typer.Option(30.0, "--grace", help="Seconds that running work gets to end when the node stops."),
) -> None:
    """Run the whole node on this machine: broker, receiver, worker, deliverer, clock, web.

    Prints one line beginning "ready" once associations are accepted. Stops cleanly on SIGTERM or Ctrl-C.

    What dies is started again. Everything is kept under --home; logs are in HOME/log.

    \b
    pacsnode --home DIR up --aet PACSNODE --port 11112 --site site.toml
    """
    from node.cli import up as whole

    settings = homes.load(ctx.obj, aet=aet, port=port, web_port=web_port, host=host, web_host=web_host)
    whole.run(settings, site=site, grace_s=grace_s)


def receive(
    ctx: typer.Context,
    aet: str | None = AET,
    port: int | None = PORT,
    host: str | None = HOST,
    ready_file: Path | None = READY_FILE,
) -> None:
    """Take studies in (C-STORE, C-ECHO, storage commitment reports) until SIGTERM."""
    from node import wiring

    settings = _begin(ctx, aet=aet, port=port, host=host)
    stop = _stop_on_signal()

    def ready(bound: int) -> None:
        _tell_ready(ready_file, port=bound)
        say(f"ready receive aet={settings.aet} port={bound}")

    wiring.receive(wiring.build(settings), stop, ready)


def infer(ctx: typer.Context, ready_file: Path | None = READY_FILE) -> None:
    """Plan and analyse studies (queue "infer") until SIGTERM. One per GPU, or one per machine without."""
    _work(_begin(ctx), "infer", ready_file)


def deliver(ctx: typer.Context, ready_file: Path | None = READY_FILE) -> None:
    """Send results to their destinations (queue "deliver") until SIGTERM."""
    _work(_begin(ctx), "deliver", ready_file)


def _work(settings: Settings, queue: Literal["infer", "deliver"], ready_file: Path | None) -> None:
    from celery.signals import worker_ready

    from node import wiring

    def ready(**_: object) -> None:
        _tell_ready(ready_file)
        say(f"ready {queue}")

    worker_ready.connect(ready, weak=False)
    wiring.work(wiring.build(settings), queue)


def clock(ctx: typer.Context, ready_file: Path | None = READY_FILE) -> None:
    """Close studies that are complete, wake workers, give back lapsed work, until SIGTERM."""
    from node import wiring

    node = wiring.build(_begin(ctx))
    stop = _stop_on_signal()
    _tell_ready(ready_file)
    say("ready clock")
    wiring.clock(node, stop)


def web(
    ctx: typer.Context,
    web_port: int | None = WEB_PORT,
    web_host: str | None = WEB_HOST,
    ready_file: Path | None = READY_FILE,
) -> None:
    """Serve /healthz, /readyz, /workz, /metrics, /quality and /fhir/AuditEvent until SIGTERM."""
    from node import wiring
    from node.jobs import telling
    from node.web import app, serve

    settings = _begin(ctx, web_port=web_port, web_host=web_host, migrated=False)
    node = wiring.build(settings)
    ask = telling.Trail(settings, node.database).ask
    site = app.make_app(settings, database=node.database, archive=node.archive, ping_broker=node.broker.ping, ask=ask)

    def ready(bound: int) -> None:
        _tell_ready(ready_file, port=bound)
        say(f"ready web http://{homes.own_address(settings.web_host)}:{bound}")

    serve.serve(site, host=settings.web_host, port=settings.web_port, stop=_stop_on_signal(), on_ready=ready)
    _leave()


def _leave() -> NoReturn:
    """End this process without taking the interpreter down.

    A thread of the HTTP server's own runtime that comes back for the interpreter while it ends aborts the process:
    SIGABRT instead of exit code 0, seen once on a busy machine (PyO3 issue 6084; from Python 3.14 on they wait).
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def migrate(
    ctx: typer.Context,
    target: str = typer.Argument("head", help="Revision to go to.", show_default=True),
    down: bool = typer.Option(False, "--down", help="Go back to TARGET (needs one that is not head)."),
    show: bool = typer.Option(False, "--show", help="Only say where the database stands."),
) -> None:
    """Bring the database to what this version needs. Safe to run from several machines at once."""
    from node import wiring
    from node.db import migrate as migrations

    settings = homes.load(ctx.obj)
    homes.prepare(settings)
    database = wiring.build(settings).database
    if down and target == "head":
        raise ConfigurationError("--down needs the revision to go back to: pacsnode migrate --down REVISION")
    if not show:
        (migrations.downgrade if down else migrations.upgrade)(database, target)
    current, head = migrations.current(database), migrations.head()
    say(f"database at {current or 'nothing yet'}, this version needs {head}")
    if show and current != head:
        raise typer.Exit(1)


def _begin(ctx: typer.Context, *, migrated: bool = True, **given: str | int | None) -> Settings:
    """What every single process does first."""
    log_without_patients()
    settings = homes.load(ctx.obj, **given)
    homes.prepare(settings)
    if any(value is not None for value in given.values()):
        homes.remember(settings)
    if migrated:
        _need_migrated(settings)
    return settings


def log_without_patients() -> None:
    """To standard error, times in UTC."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)sZ %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # it tells of a scanner's garbage in tracebacks with the bytes in them; ours tells in a line without them
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    # it repeats what a header has where it should not: a date of birth, an age
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="Invalid value for VR")


def _need_migrated(settings: Settings) -> None:
    from node import wiring
    from node.db import readiness

    database = wiring.build(settings).database
    lack = readiness.lack(database)
    database.close()
    if lack is not None:
        raise (ConfigurationError if lack.startswith("stands") else Transient)(f"the database {lack}")


def _stop_on_signal() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    return stop


def _tell_ready(path: Path | None, **facts: int) -> None:
    if path is None:
        return
    unfinished = path.with_suffix(".new")
    unfinished.write_text(json.dumps({"pid": os.getpid(), **facts}), encoding="ascii")
    unfinished.replace(path)
