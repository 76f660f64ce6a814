"""`audit`, `audit verify`: who did what and when, and proof that nobody changed the record."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import typer

from node.cli.audit_export import export
from node.cli.studies import JSON, open_database
from node.cli.words import complain, moment, person, print_json, say, table

if TYPE_CHECKING:
    from node.db.tables import AuditEventRow

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
    limit: int = typer.Option(200, "--limit", min=1, help="At most so many, the newest."),
    as_json: bool = JSON,
) -> None:
    """Who did what and when: query the audit trail, oldest first. That you asked is recorded too.

    \b
    pacsnode --home DIR audit --since 2h --action association
    pacsnode --home DIR audit --patient 4711 --json
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
        limit=limit,
    )
    found = trail.ask(open_database(ctx), question, actor=person())
    _show(found, as_json=as_json)


def _show(found: list[AuditEventRow], *, as_json: bool) -> None:
    if as_json:
        print_json([{name: getattr(event, name) for name in _FIELDS} for event in found])
    elif found:
        table(
            "",
            [">#", "=time (UTC)", "=action", "outcome", "peer", "study", "actor", "detail"],
            [_row(e) for e in found],
        )
    if not found:
        complain("no event fits")
        raise typer.Exit(1)


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
