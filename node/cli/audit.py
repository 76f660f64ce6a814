"""`audit`, `audit verify`: who did what and when, and proof that nobody changed the record."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from node.cli.audit_export import export
from node.cli.studies import JSON, open_database
from node.cli.words import complain, moment, person, print_json, remark, say, table

if TYPE_CHECKING:
    from node.db.tables import AuditEventRow

_PAGE = 1000
"""Events that are read together where all are wanted."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FIELDS = ("number", "at", "action", "outcome", "peer", "study_instance_uid", "patient_id", "actor", "detail", "digest")


def register(app: typer.Typer) -> None:
    group = typer.Typer(invoke_without_command=True)
    group.callback()(query)
    group.command()(verify)
    group.command()(export)
    app.add_typer(group, name="audit", rich_help_panel="Studies")


def query(
    ctx: typer.Context,
    since: str = typer.Option("", "--since", help="How long ago (30min, 2h, 7d), or an ISO date or time."),
    until: str = typer.Option("", "--until", help="Likewise; not included."),
    patient: str = typer.Option("", "--patient", help="Patient id, exact. Finds what names only a study of it, too."),
    study: str = typer.Option("", "--study", help="Study Instance UID, exact."),
    peer: str = typer.Option("", "--peer", help="AE title, exact."),
    action: str = typer.Option("", "--action", help='Exact, or its first part: "association" finds all of them.'),
    after: int | None = typer.Option(
        None,
        "--after",
        min=0,
        help="Only events behind this number, and of these the first; for going on page by page.",
    ),
    limit: int = typer.Option(200, "--limit", min=1, help="At most so many: the newest, or the first behind --after."),
    everything: bool = typer.Option(False, "--all", help="All that fit, however many; with --json one to a line."),
    as_json: bool = JSON,
) -> None:
    """Who did what and when: query the audit trail, oldest first. That you asked is recorded too.

    Says on standard error where more events fit than are shown. Numbers have no gaps and never change.

    \b
    pacsnode --home DIR audit --since 2h --action association
    pacsnode --home DIR audit --patient 4711 --json
    pacsnode --home DIR audit --since 2026-01-01 --until 2026-02-01 --all --json > january.jsonl
    pacsnode --home DIR audit verify
    pacsnode --home DIR audit export --format dicom --since 7d --out week.xml
    """
    if ctx.invoked_subcommand is not None:
        return
    from node.db.trail import Question
    from node.jobs import trail

    question = Question(
        since=moment(since, option="--since"),
        until=moment(until, option="--until"),
        patient_id=patient,
        study_instance_uid=study,
        peer=peer,
        action=action,
        after=after,
        limit=limit,
    )
    if everything:
        pages = trail.ask_all(open_database(ctx), replace(question, limit=_PAGE), actor=person())
        _stream(pages, as_json=as_json)
        return
    answer = trail.ask(open_database(ctx), question, actor=person())
    _show(answer.events, as_json=as_json)
    if answer.is_cut and after is None:
        remark(f"these are the newest {limit}, and older ones fit too: --after 0 begins with the first, --all has all")
    elif answer.is_cut:
        remark(f"more events fit: --after {answer.events[-1].number} goes on")


def _stream(pages: Iterable[Sequence[AuditEventRow]], *, as_json: bool) -> None:
    found = False
    for events in pages:
        found = True
        if as_json:
            for event in events:
                typer.echo(json.dumps(_fields(event), ensure_ascii=False))
        else:
            _table(events)
    if not found:
        complain("no event fits")
        raise typer.Exit(1)


def _fields(event: AuditEventRow) -> dict[str, Any]:
    return {name: getattr(event, name) for name in _FIELDS}


def _show(found: Sequence[AuditEventRow], *, as_json: bool) -> None:
    if as_json:
        print_json([_fields(event) for event in found])
    elif found:
        _table(found)
    if not found:
        complain("no event fits")
        raise typer.Exit(1)


def _table(found: Sequence[AuditEventRow]) -> None:
    table(
        "",
        [">#", "=time (UTC)", "=action", "outcome", "peer", "study", "actor", "detail"],
        [_row(event) for event in found],
    )


def _row(event: AuditEventRow) -> list[object]:
    at = event.at.replace("T", " ").split("+")[0][:-3]
    return [
        event.number,
        at,
        event.action,
        event.outcome,
        event.peer,
        event.study_instance_uid,
        event.actor,
        _detail(event.detail),
    ]


def _detail(detail: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in detail.items() if value not in (None, "", [], {}))


def _short(value: Any) -> str:
    if isinstance(value, list):
        if value and isinstance(value[0], dict):
            return f"({len(value)})"
        words = [str(item) for item in value]
        return ("; " if any(" " in word for word in words) else " ").join(words)
    text = str(value)
    return text[:12] + "…" if len(text) == 64 and set(text) <= set("0123456789abcdef") else text


def verify(
    ctx: typer.Context,
    expect: str = typer.Option(
        "", "--expect", help="The head that an earlier verify printed, all 64 digits: must still be in the trail."
    ),
    as_json: bool = JSON,
) -> None:
    """Walk the whole hash chain and say where it breaks. Keep the head it prints somewhere else.

    \b
    pacsnode --home DIR audit verify
    pacsnode --home DIR audit verify --expect 3f9ab1c02d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8
    """
    from node.jobs import trail

    expected = expect.strip().lower()
    if expect and not _DIGEST.fullmatch(expected):
        raise typer.BadParameter(f"--expect {expect!r}: give the whole head that verify printed, 64 digits 0-9 a-f")
    verdict = trail.verify(open_database(ctx), expect=expected or None)
    if as_json:
        print_json(verdict)
    else:
        say(f"{verdict.events} events, head {verdict.head}")
        for complaint in verdict.complaints:
            complain(complaint)
        if not verdict.complaints:
            say("the chain holds: no event was changed, removed, inserted or moved")
    if verdict.complaints:
        raise typer.Exit(1)
