"""`peers apply|list|echo`: who may send, who gets results, and whether they answer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from node.cli import home as homes
from node.cli.studies import JSON, open_database
from node.cli.words import DONE, clock_time, complain, exit_code_of, person, print_json, say, table
from node.errors import NodeError

if TYPE_CHECKING:
    from node.settings import Peer, Settings


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Peers and routes: apply the reviewed site file, list them, ask them.", no_args_is_help=True
    )
    group.command()(apply)
    group.command("list")(show)
    group.command()(echo)
    app.add_typer(group, name="peers", rich_help_panel="Peers")


def apply(
    ctx: typer.Context,
    site: Path = typer.Argument(..., exists=True, dir_okay=False, help="The site file (TOML)."),
    as_json: bool = JSON,
) -> None:
    """Make peers, routes and analyses in service what the file says; running processes take it up at once.

    Recorded in the trail. An analysis that does not stand in the file is in service.

    \b
    pacsnode --home DIR peers apply deploy/config/site.toml
    """
    from node.jobs.site import apply_site
    from node.settings import Site

    change = apply_site(open_database(ctx), Site.read(site), actor=person())
    if as_json:
        print_json(change)
        return
    fields = change.pop("fields")
    for what, names in change.items():
        if names:
            say(f"{what}: {', '.join(names)}")
    for field in fields:
        say(f"  {field}")
    if not any(change.values()):
        say("nothing to change: all is as the file says")


def show(ctx: typer.Context, as_json: bool = JSON) -> None:
    """List peers, their routes, whether delivery to them is held back, and analyses that are not in service.

    \b
    pacsnode --home DIR peers list
    """
    from node.db import peers, switches

    with open_database(ctx).read() as session:
        known = peers.peers(session)
        routes = peers.routes(session)
        not_on = list(switches.not_on(session).values())
        breakers = {row.aet: row for row in peers.breakers(session)}
    if as_json:
        print_json(
            {
                "peers": [
                    {
                        **peer.model_dump(mode="json"),
                        "failures": breakers[peer.aet].failures,
                        "open_until": breakers[peer.aet].open_until,
                    }
                    for peer in known
                ],
                "routes": [route.model_dump(mode="json", by_alias=True) for route in routes],
                "analyses": [
                    {"name": row.analysis, "state": row.state, "reason": row.reason, "since": row.since}
                    for row in not_on
                ],
            }
        )
        return
    if not known:
        complain("no peer is known, so nobody may send: pacsnode peers apply site.toml")
        raise typer.Exit(1)
    rows = [_row(peer, breakers[peer.aet].failures, clock_time(breakers[peer.aet].open_until)) for peer in known]
    table("", ["AE title", "calls from / listens at", "sends", "gets", "commitment", "complete", "state"], rows)
    table(
        "",
        ["from", "results go to", "analyses"],
        [[r.source, ", ".join(r.destinations), ", ".join(r.pipelines)] for r in routes],
    )
    if not_on:
        rows = [[row.analysis, row.state, clock_time(row.since), row.reason] for row in not_on]
        table("", ["analysis", "=state", "=since", "reason"], rows)


def _row(peer: Peer, failures: int, open_until: str) -> list[object]:
    port = f":{peer.port}" if peer.port else " (only sends)"
    state = f"held back until {open_until}" if open_until else f"{failures} failed" if failures else ""
    return [
        peer.aet,
        f"{peer.host}{port}{' TLS' if peer.tls else ''}",
        peer.priority if peer.may_send else "no",
        _gets(peer),
        peer.commitment,
        f"after {peer.completion.quiet_s:g} s of quiet",
        state,
    ]


def _gets(peer: Peer) -> str:
    if not (peer.may_receive and peer.port):
        return "no"
    return " ".join(peer.takes) + (", reconciled" if peer.reconcile else "")


def echo(
    ctx: typer.Context,
    aet: str = typer.Argument("", help="Only this peer; without it, every peer that listens."),
    as_json: bool = JSON,
) -> None:
    """Ask peers whether they are there (C-ECHO), as whom we would send.

    \b
    pacsnode --home DIR peers echo MAINPACS
    """
    from node.db import peers

    settings = homes.load(ctx.obj)
    with open_database(ctx).read() as session:
        asked = [p for p in peers.peers(session) if p.port and (not aet or p.aet == aet)]
    if not asked:
        complain(f"no peer {aet} that listens" if aet else "no peer listens: pacsnode peers apply site.toml")
        raise typer.Exit(1)
    answers = [ask(settings, peer) for peer in asked]
    if as_json:
        print_json([answer[0] for answer in answers])
    else:
        table("", ["AE title", "address", "answer"], [[a["aet"], a["address"], a["answer"]] for a, _ in answers])
    raise typer.Exit(max(code for _, code in answers))


def ask(settings: Settings, peer: Peer) -> tuple[dict[str, object], int]:
    """One C-ECHO: (facts, exit code)."""
    from node.dicom.query import echo as c_echo

    facts: dict[str, object] = {"aet": peer.aet, "address": f"{peer.host}:{peer.port}"}
    try:
        report = c_echo(settings, peer)
    except NodeError as exc:
        return {**facts, "ok": False, "answer": exc.reason}, exit_code_of(exc)
    return {**facts, "ok": True, "answer": "answers", **dataclasses.asdict(report)}, DONE
