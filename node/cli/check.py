"""`check`: try everything the node needs, and say in words what to change."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import typer

from node.cli import busy
from node.cli import home as homes
from node.cli.studies import JSON
from node.cli.words import NOTHING, duration, out, print_json, say
from node.errors import NodeError
from node.settings import doubtful_names

if TYPE_CHECKING:
    from node.db.views import Failures
    from node.dicom.query import EchoReport
    from node.settings import Peer, Settings
    from node.wiring import Node

Verdict = Literal["ok", "note", "fault"]


@dataclass(frozen=True)
class Tried:
    """One thing that was tried. `change` says what to do about a fault or note."""

    what: str
    verdict: Verdict
    found: str
    change: str = ""


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Processes")(check)


def check(
    ctx: typer.Context,
    as_json: bool = JSON,
    models: bool = typer.Option(True, "--models/--no-models", help="Also load each network's weights (needs torch)."),
) -> None:
    """Try each process and part, the work, every peer and every model, and say what to change.

    Exit code 0 when nothing is at fault. May be run beside a running node, or before the first start.

    \b
    pacsnode --home DIR check
    """
    settings = homes.load(ctx.obj)
    tried = []
    for one in _all(settings, models=models):
        tried.append(one)
        if not as_json:
            _show(one)
    faults = sum(one.verdict == "fault" for one in tried)
    if as_json:
        print_json({"faults": faults, "tried": tried})
    else:
        say("nothing at fault" if not faults else f"{faults} fault{'s' if faults > 1 else ''}")
    if faults:
        raise typer.Exit(NOTHING)


def _show(one: Tried) -> None:
    colour = {"ok": "green", "note": "yellow", "fault": "red"}[one.verdict]
    out.print(f"{one.verdict:<6}", style=colour, end="")
    say(f"{one.what}: {one.found}" + (f"\n      → {one.change}" if one.change else ""))


def _all(settings: Settings, *, models: bool) -> Iterator[Tried]:
    from node import wiring
    from node.cli import audit_check, door, room

    running = homes.owner(settings.home)
    homes.prepare(settings)
    yield Tried(
        "home", "ok", f"{settings.home}" + (f", `up` runs as process {running}" if running else ", not running")
    )
    for said in doubtful_names(os.environ):
        yield Tried("settings", "note", said, "take it away, or give it its right name")
    if running is not None:
        yield from _processes(settings)
    node = wiring.build(settings, patience_s=busy.PATIENCE_S)
    yield room.disk(node)
    database = _database(node, running)
    yield database
    yield _broker(node, running)
    yield door.port("DICOM port", settings.host, settings.port, running=running is not None)
    yield door.port("web port", settings.web_host, settings.web_port, running=running is not None)
    known = _known(node) if database.verdict == "ok" else []
    yield from door.tls(settings, sends=any(peer.tls for peer in known), running=running is not None)
    if database.verdict == "ok":
        yield from room.files(node)
        yield from room.unknown(node)
        yield from room.retention(node)
        yield from _switches(node)
        yield from _work(node)
        yield from audit_check.repository(node)
        yield from _peers(node, known)
    if models:
        yield from _models()


def _processes(settings: Settings) -> Iterator[Tried]:
    """What `up` started, by the files that it and they keep."""
    from node.cli.up import PROCESSES

    for name in PROCESSES:
        pid = homes.ready_pid(settings, name)
        if pid is not None:
            yield Tried(name, "ok", f"runs as process {pid}")
        else:
            log = homes.log_dir(settings) / f"{name}.log"
            yield Tried(name, "fault", "does not run, or is not ready yet", f"`up` starts it again; see {log}")


def _database(node: Node, running: int | None) -> Tried:
    from sqlalchemy.exc import SQLAlchemyError

    from node.db import migrate, trail
    from node.db.session import is_busy

    if not node.settings.database_url and not (node.settings.home / "node.sqlite").exists():
        return Tried("database", "note", "not made yet", "`pacsnode up` or `pacsnode migrate` makes it")
    kind = node.database.engine.dialect.name
    try:
        current, head = migrate.current(node.database), migrate.head()
        if current != head:
            found = f"stands at {current or 'nothing'}, this version needs {head}"
            return Tried("database", "fault", found, migrate.remedy(current))
        with node.database.write() as session:
            trail.rewrite_head(session)  # what every change must be able to do, on a full disk too
    except SQLAlchemyError as exc:
        if is_busy(exc):
            return Tried("database", "fault", busy.words(node.settings), "let it end, or end it")
        words = str(getattr(exc, "orig", None) or type(exc).__name__).splitlines()[0]
        return Tried(
            "database", "fault", f"{kind} does not do it: {words}", "see that it runs and that it may be written to"
        )
    return Tried("database", "ok", f"{kind}, at {head}, may be written to" + ("" if running else " (no `up` here)"))


def _broker(node: Node, running: int | None) -> Tried:
    embedded = not node.settings.redis_url
    if embedded and running is None:
        return _try("broker", lambda: f"{homes.embedded_server()}, started by `up`", "pip install 'pacsnode[embedded]'")

    def ping() -> str:
        node.broker.ping()
        return f"{'embedded Redis' if embedded else 'Redis'} answers"

    change = "see HOME/log/redis.log" if embedded else "see that PACSNODE_REDIS_URL is right and Redis runs"
    return _try("broker", ping, change)


def _try(what: str, ask: Callable[[], str], change: str) -> Tried:
    from kombu.exceptions import OperationalError
    from redis.exceptions import RedisError

    try:
        return Tried(what, "ok", ask())
    except NodeError as exc:
        return Tried(what, "fault", exc.reason, change)
    except (OperationalError, RedisError, OSError) as exc:
        return Tried(what, "fault", f"does not answer ({type(exc).__name__})", change)


def _switches(node: Node) -> Iterator[Tried]:
    """Analyses that are not in service, and what a report left out since."""
    from node.db import switches

    with node.database.read() as session:
        not_on = switches.not_on(session)
        left_out = switches.to_be_done_again(session)
    for name, row in not_on.items():
        what = "on trial: it runs, and nothing of it leaves" if row.state == "shadow" else "switched off"
        count = len(left_out.get(name, ()))
        found = f"{what}, since {row.since:%Y-%m-%d %H:%M} UTC: {row.reason} (studies that go without it: {count})"
        yield Tried(f"analysis {name}", "note", found, 'once it may go on: state = "on" in the site file, peers apply')
    for name in sorted(left_out.keys() - not_on.keys()):
        found = f"on again; studies whose report goes without it: {len(left_out[name])} ({_names(left_out[name])})"
        yield Tried(f"analysis {name}", "note", found, "to have them analysed now: pacsnode retry UID, or --withheld")


def _work(node: Node) -> Iterator[Tried]:
    """Whether work gets done: the only witness of processes on other hosts."""
    from node.db import peers, views

    limit = dt.timedelta(seconds=node.settings.overdue_s)
    now = dt.datetime.now(dt.UTC)
    with node.database.read() as session:
        late = views.overdue(session, before=now - limit)
        failed = views.failures(session)
        held_back = [row for row in peers.breakers(session) if row.open_until is not None and row.open_until > now]
    for one in late:
        yield Tried("work", "fault", str(one), _OVERDUE[one.stage.name])
    if not late:
        yield Tried("work", "ok", f"nothing waits for longer than {duration(limit.total_seconds())}")
    yield from _failed(failed)
    for row in held_back:
        yield Tried(
            f"breaker of {row.aet}",
            "note",
            f"nothing is sent to it until {row.open_until:%H:%M:%S} UTC; failed associations: {row.failures}",
            "the node tries it again by itself; see below whether it answers",
        )


_OVERDUE = {
    "CLOSE": "see that `clock` runs",
    "PLAN": "see that `clock` and `infer` run, and that the broker answers",
    "RUN": "see that `clock` and `infer` run; where they do, there is more work than workers, or it fails again and "
    "again: `pacsnode studies` says why",
    "TAKE_BACK": "see that `clock` runs",
    "DELIVER": "see that `clock` and `deliver` run, and that the peers answer: `pacsnode studies` says why it waits",
}


def _failed(failed: Failures) -> Iterator[Tried]:
    for what, verdict, uids, lack in _failed_jobs(failed):
        found = f"studies where they failed for good, {lack}: {len(uids)} ({_names(uids)})"
        yield Tried(what, verdict, found, _RETRY)
    if failed.unsent:
        found = f"studies whose results went nowhere: {len(failed.unsent)} ({_names(failed.unsent)})"
        yield Tried("unsent", "note", found, f"{_LIST}; once a route takes them: pacsnode resend UID, or --all")
    for aet, count in failed.dead_letters.items():
        yield Tried(
            f"dead letters to {aet}",
            "fault",
            f"results refused for good: {sum(count.values())}, of studies: {len(count)} ({_names(list(count))})",
            f"{_LIST}, `pacsnode study UID` says why; once that is mended: pacsnode resend --to {aet}",
        )


def _names(uids: Sequence[str]) -> str:
    return ", ".join(uids[:_NAMED]) + (f" and {len(uids) - _NAMED} more" if len(uids) > _NAMED else "")


_NAMED = 3
_LIST = "`pacsnode studies --failed` lists them"
_RETRY = f"{_LIST}, `pacsnode study UID` says why; once that is mended: pacsnode retry UID"


def _failed_jobs(failed: Failures) -> Iterator[tuple[str, Verdict, Sequence[str], str]]:
    if failed.reports:
        yield "reports", "fault", failed.reports, "so nothing was sent for them"
    if failed.analyses:
        yield "analyses", "note", failed.analyses, "as their reports say"


def _known(node: Node) -> list[Peer]:
    from node.db import peers

    with node.database.read() as session:
        return peers.peers(session)


def _peers(node: Node, known: Sequence[Peer]) -> Iterator[Tried]:
    from node.db import peers

    with node.database.read() as session:
        routes = peers.routes(session)
    if not known:
        yield Tried("peers", "note", "none is known, so nobody may send", "pacsnode peers apply site.toml")
        return
    routed = {route.source for route in routes}
    for peer in known:
        if peer.may_send and peer.aet not in routed and "*" not in routed:
            yield Tried(
                f"route of {peer.aet}",
                "note",
                "none: what it sends is analysed, but the results go nowhere",
                f'add [[route]] from = "{peer.aet}" to the site file',
            )
        if peer.port is not None:
            yield _peer(node.settings, peer)


def _peer(settings: Settings, peer: Peer) -> Tried:
    from node.dicom.query import echo

    what = f"peer {peer.aet} ({peer.host}:{peer.port})"
    try:
        report = echo(settings, peer)
    except NodeError as exc:
        change = (
            f"see that it runs, that the site file has its host, port and AE title, and that it knows {settings.aet}"
        )
        return Tried(what, "fault", exc.reason, change)
    found, changes, verdict = _judge(peer, report)
    return Tried(what, verdict, "; ".join(found), "; ".join(changes))


def _judge(peer: Peer, report: EchoReport) -> tuple[list[str], list[str], Verdict]:
    """What this peer's answer means for what it is to be given: (found, what to change, verdict)."""
    from node.dicom.query import CLASSES_OF_KIND

    found = ["answers C-ECHO" if report.round_trip_s is not None else "does not take C-ECHO"]
    changes: list[str] = []
    verdict: Verdict = "ok"
    if not peer.may_receive:
        return found, changes, verdict
    found.append(f"stores {', '.join(report.stores) or 'none of our results'}")
    lacking = [k for k in peer.takes if not any(name in report.stores for name in CLASSES_OF_KIND[k])]
    if lacking:
        verdict = "note"
        changes.append(f"it lacks {', '.join(lacking)}: allow these classes there, or take them out of `takes`")
    if not report.stores:
        verdict = "fault"
    proof, change = _proof(peer, report)
    found.append(proof)
    if change:
        changes.append(change)
    if peer.reconcile and not report.find:
        changes.append("allow query there: `reconcile` is set, and what it has of a patient cannot be asked for")
    return found, changes, "note" if changes and verdict == "ok" else verdict


def _proof(peer: Peer, report: EchoReport) -> tuple[str, str]:
    """How storage there will be proven: (found, what to change)."""
    if report.commitment and peer.commitment == "auto":
        return "proof by storage commitment", ""
    if report.find:
        return "proof by query", ""
    change = "allow storage commitment or query there; until then a result counts as delivered on C-STORE success alone"
    return "offers neither storage commitment nor query", change


def _models() -> Iterator[Tried]:
    """Weights against their cards. The one part that imports torch."""
    try:
        from models.catalogue import catalogue
    except ImportError as exc:
        yield Tried("models", "fault", f"cannot be imported ({exc})", "install the pinned torch: make setup")
        return
    from models.contract import ModelError

    offered = catalogue()
    if not offered:
        yield Tried("models", "note", "no model has weights", "every study will be reported as not analysed")
    for name, model in offered.items():
        try:
            loaded = model.load("cpu")
        except ModelError as exc:
            yield Tried(f"model {name}", "fault", str(exc), "install the weights that its card names")
        else:
            digest = loaded.identity.weights_sha256[:12]
            yield Tried(f"model {name}", "ok", f"version {loaded.identity.version}, weights {digest}… as on the card")
