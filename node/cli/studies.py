"""`studies`, `study`, `resend`, `retry`: what came in, how far it is, and once more for what failed."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from node.cli import busy
from node.cli import home as homes
from node.cli.words import complain, duration, out, person, print_json, remark, say, table

if TYPE_CHECKING:
    from node.db.session import Database
    from node.db.views import StudyLine
    from node.settings import Settings

_PANEL = "Studies"
_MOST_NAMED = 20
_NAMELESS: dict[str, Any] = {"patient_id": "", "accession_number": "", "study_date": "", "description": ""}
_UNRECORDED = "the audit trail cannot be written now, so nothing that names a patient is shown: see pacsnode check"
JSON = typer.Option(False, "--json", help="One JSON document instead of text.")


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=_PANEL)(studies)
    app.command(rich_help_panel=_PANEL)(study)
    app.command(rich_help_panel=_PANEL)(resend)
    app.command(rich_help_panel=_PANEL)(retry)


def open_database(ctx: typer.Context) -> Database:
    """The database of the home that was named. raises ConfigurationError where there is none"""
    from node import wiring

    settings = homes.load(ctx.obj)
    homes.need_database(settings)
    return wiring.build(settings, patience_s=busy.PATIENCE_S).database


def studies(
    ctx: typer.Context,
    search: str = typer.Argument("", help="Part of a study UID, a patient id, or an accession number."),
    state: str = typer.Option(
        "",
        "--state",
        help="receiving, complete, planned, reported, delivered, incomplete (a delivery is dead),"
        " unsent (there was nobody to send to) or recalled (taken back before it was sent).",
    ),
    failed: bool = typer.Option(
        False,
        "--failed",
        help="Only those where something failed or went nowhere, and still stands: what check counts.",
    ),
    held: bool = typer.Option(False, "--held", help="Only those under a legal hold."),
    limit: int = typer.Option(50, "--limit", min=1, help="At most so many, newest first."),
    as_json: bool = JSON,
) -> None:
    """List studies: state, progress, age, and the last reason why something was not done.

    \b
    pacsnode --home DIR studies --state incomplete
    pacsnode --home DIR studies --failed --limit 1000
    """
    from node.db import views
    from node.db.lifecycle import RevisionState

    if state and state not in set(RevisionState):
        raise typer.BadParameter(f"--state {state!r}: one of {', '.join(RevisionState)}")
    database = open_database(ctx)
    with database.read() as session:
        among = views.failures(session).studies if failed else None
        found = views.studies(session, state=state, search=search, held=held, among=among, limit=limit + 1)
    is_cut, found = len(found) > limit, found[:limit]
    asked = {"search": search, "state": state, "failed": failed, "held": held, "limit": limit}
    if found and not _note_list(database, found, asked):
        found = [replace(line, **_NAMELESS) for line in found]
        remark(_UNRECORDED)
    if as_json:
        print_json(found)
    elif found:
        table(
            "",
            ["=study", "patient", "=from", ">images", ">rev", "=state", ">age", "what happens"],
            [_row(s) for s in found],
        )
    if is_cut:
        remark(f"these are the newest {limit}, and there are more: give --limit {10 * limit}, or a narrower question")
    if not found:
        complain("no such study" if search or state or failed or held else "no study has come in yet")
        raise typer.Exit(1)


def _note_list(database: Database, found: list[StudyLine], asked: dict[str, object]) -> bool:
    from node.audit.events import Action
    from node.jobs import viewing

    patients = {line.patient_id for line in found}
    return viewing.note(
        database,
        Action.STUDIES_LISTED,
        actor=person(),
        study_instance_uid=found[0].study_instance_uid if len(found) == 1 else "",
        patient_id=patients.pop() if len(patients) == 1 else "",
        question={name: value for name, value in asked.items() if value},
    )


def _row(line: StudyLine) -> list[object]:
    state = f"{line.state}{' (STAT)' if line.urgent else ''}"
    age = duration((dt.datetime.now(dt.UTC) - line.last_image_at).total_seconds())
    return [
        line.study_instance_uid,
        line.patient_id,
        line.source_aet,
        line.images,
        line.revision,
        state,
        age,
        _happening(line),
    ]


def _happening(line: StudyLine) -> str:
    parts = []
    if line.state == "planned":
        parts.append(f"{100 * line.progress:.0f} % {line.step}".rstrip())
    if line.deliveries:
        parts.append(f"{line.delivered} of {line.deliveries} results delivered")
    if line.reason:
        parts.append(line.reason)
    if line.legal_hold:
        parts.append(f"legal hold: {line.legal_hold}")
    if line.purged_at is not None:
        parts.append(f"files deleted {line.purged_at.astimezone():%Y-%m-%d}")
    return "; ".join(parts)


def study(
    ctx: typer.Context,
    uid: str = typer.Argument(..., help="Study Instance UID, a part of it, or an accession number."),
    as_json: bool = JSON,
) -> None:
    """One study from the first image to the last proof of storage, with durations.

    \b
    pacsnode --home DIR study 1.2.826.0.1.3680043.8.498.1
    """
    from node.audit.events import Action
    from node.cli import timeline
    from node.db import timeline as timelines
    from node.db import views
    from node.jobs import viewing

    database = open_database(ctx)
    with database.read() as session:
        found = views.find_studies(session, uid, limit=_MOST_NAMED + 1)
        line = timelines.timeline(session, found[0]) if len(found) == 1 else None
    if line is None:
        more = [f"and more: pacsnode studies {uid}"] if len(found) > _MOST_NAMED else []
        several = "\n  ".join([f"{uid} may be any of:", *found[:_MOST_NAMED], *more])
        complain(several if found else f"no study {uid} was received here")
        raise typer.Exit(1)
    if not viewing.note(
        database,
        Action.STUDY_VIEWED,
        actor=person(),
        study_instance_uid=line.study_instance_uid,
        patient_id=line.patient_id,
    ):
        line = replace(line, **_NAMELESS)
        remark(_UNRECORDED)
    if as_json:
        print_json(line)
    else:
        timeline.show(line, out)


def resend(
    ctx: typer.Context,
    uid: str = typer.Argument("", help="Study Instance UID; without one, --to or --all is needed."),
    to: str = typer.Option("", "--to", help="Only what was meant for this peer."),
    everything: bool = typer.Option(
        False, "--all", help="Every dead letter, and all that went nowhere, of every study."
    ),
) -> None:
    """Send dead letters again, results that a peer refused for good, once its fault has been mended.

    Results that went nowhere, since no route took them, are sent by the routes of today (not with --to).

    \b
    pacsnode --home DIR resend 1.2.3.4
    pacsnode --home DIR resend --to MAINPACS
    """
    from node.db import purging
    from node.jobs import address, deliver

    if not (uid or to or everything):
        raise typer.BadParameter("name a study, or --to AET, or --all")
    database = open_database(ctx)
    count = deliver.resend(database, study_instance_uid=uid or None, peer_aet=to or None, actor=person())
    first, left = (0, 0) if to else address.address_again(database, uid or None, actor=person())
    if count:
        say(f"{count} result{'s' if count != 1 else ''} will be sent again")
    if first:
        say(f"{first} result{'s' if first != 1 else ''} that went nowhere will be sent")
    if left:
        complain(
            f"still no route to a peer that takes the results: revisions: {left}; `pacsnode check` names the senders"
        )
    if count or first:
        return
    with database.read() as session:
        deleted = purging.deleted(session, uid)
    say(f"no dead letter fits{f': {deleted}' if deleted else ''}")
    raise typer.Exit(1)


def retry(
    ctx: typer.Context,
    uid: str = typer.Argument("", help="Study Instance UID; without one, --withheld is needed."),
    withheld: bool = typer.Option(
        False, "--withheld", help="Every study whose report goes without an analysis that is in service again."
    ),
    as_json: bool = JSON,
) -> None:
    """Run again what failed in a study, analyses and report, once the cause has been mended.

    So too what a report left out while its analysis was switched off or on trial, once that is on.

    A failed analysis is done again in a new revision of the study, whose report replaces the earlier one. A report that
    was never written is written where it was, in an older revision too, if results of that one still stand. What failed
    in older revisions and is replaced since is left as it is; so are dead letters, which resend is for. Both are named.

    \b
    pacsnode --home DIR retry 1.2.3.4
    pacsnode --home DIR retry --withheld
    """
    from node.jobs import again

    if bool(uid) == withheld:
        raise typer.BadParameter("name a study, or --withheld")
    database, settings = open_database(ctx), homes.load(ctx.obj)
    if withheld:
        _retry_withheld(database, settings, as_json=as_json)
        return
    found = again.retry(database, settings, uid, actor=person())
    if as_json:
        print_json(found)
    elif found.queued:
        say(found.reason)
        for one in found.queued:
            of_series = f" of series {one.series_instance_uid}" if one.series_instance_uid else ""
            say(f"  queued in revision {one.revision}: {one.pipeline}{of_series}")
    else:
        complain(found.reason)
    for what in found.left if not as_json else []:
        say(f"  left: {what}")
    if not found.queued:
        raise typer.Exit(1)


def _retry_withheld(database: Database, settings: Settings, *, as_json: bool) -> None:
    from node.db import switches
    from node.jobs import again

    with database.read() as session:
        not_on = switches.not_on(session)
        left_out = switches.to_be_done_again(session)
    uids = dict.fromkeys(uid for name, studies in left_out.items() if name not in not_on for uid in studies)
    found = [again.retry(database, settings, uid, actor=person()) for uid in uids]
    if as_json:
        print_json(found)
    for one in found if not as_json else []:
        say(f"{one.study_instance_uid}: {one.reason}")
    for name in sorted(left_out.keys() & not_on.keys()):
        remark(f"{name} is not in service: left as they are: {len(left_out[name])} studies")
    if not any(one.queued for one in found):
        complain("no study is to be analysed again")
        raise typer.Exit(1)
