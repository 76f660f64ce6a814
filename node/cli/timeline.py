"""One study as a person reads it: every step with its time, and what it took."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from node.cli.words import clock_time, duration, size
from node.db.switches import LEFT_OUT
from node.db.timeline import DeliveryLine, JobLine, ReconciledLine, RevisionLine, Timeline
from node.db.views import nowhere

_Entry = tuple[dt.datetime | None, str, str, str]
"""(when, what, took, details)."""


def show(study: Timeline, console: Console) -> None:
    console.print(Text(f"Study {study.study_instance_uid}", style="bold"))
    facts = {
        "patient": study.patient_id,
        "accession": study.accession_number,
        "date": study.study_date,
        "description": study.description,
    }
    console.print(Text("  " + "  ".join(f"{name} {value}" for name, value in facts.items() if value)))
    if study.legal_hold:
        console.print(Text(f"  legal hold since {clock_time(study.legal_hold_at)}: {study.legal_hold}", style="yellow"))
    if study.conflicts:
        console.print(Text(f"  {study.conflicts} objects came again with other bytes: kept aside", style="yellow"))
    if study.own_results_back:
        console.print(Text(f"  {study.own_results_back} results of ours were routed back: kept, not processed"))
    for revision in study.revisions:
        _show_revision(revision, console)
    _show_purges(study, console)


def _show_purges(study: Timeline, console: Console) -> None:
    """What is no longer here: rows, UIDs, digests and the trail are."""
    if not study.purges:
        return
    console.print()
    for purge in study.purges:
        what = f"{purge.files} files, {size(purge.bytes)}"
        ended = "deleted" if purge.ended_at is not None else "given up, not gone from disk yet:"
        console.print(Text(f"  {clock_time(purge.purged_at)}  {ended} {what} ({purge.because})"))
    text = f"  received objects that are held: {study.images_held}; rows, UIDs, digests and the trail stay"
    console.print(Text(text, style="yellow"))


def _show_revision(revision: RevisionLine, console: Console) -> None:
    urgent = ", STAT" if revision.urgent else ""
    replaces = _replaces(revision)
    console.print()
    console.print(Text(f"Revision {revision.number}: {revision.state}{urgent}{replaces}", style="bold"))
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    drawn.add_column(no_wrap=True)
    drawn.add_column(no_wrap=True, style="bold")
    drawn.add_column(no_wrap=True, justify="right")
    drawn.add_column(overflow="fold")
    for at, what, took, details in entries(revision):
        drawn.add_row(Text(clock_time(at)), Text(what), Text(took), Text(details))
    console.print(drawn)
    last = revision.delivered_at
    if last is not None and revision.state == "delivered":
        console.print(
            Text(f"From the last image to the last proof: {duration((last - revision.last_image_at).total_seconds())}")
        )


def _replaces(revision: RevisionLine) -> str:
    """What its report says of the one before: that one stands where it tells of images that are no longer here."""
    if revision.number == 1:
        return ""
    before = revision.number - 1
    stands = any(entry.get("told_in") == before for entry in revision.selection)
    return f", beside revision {before}, which stands" if stands else f", replaces revision {before}"


def _took(start: dt.datetime | None, end: dt.datetime | None) -> str:
    return duration((end - start).total_seconds()) if start is not None and end is not None else ""


def entries(revision: RevisionLine) -> Iterator[_Entry]:
    """The lines of one revision, in the order of the path of a study."""
    yield from _received(revision)
    if revision.completed_at is None:
        yield (
            None,
            "receiving",
            "",
            f"{revision.images} images so far; waiting for more, or for the study to be complete",
        )
        return
    yield (
        revision.completed_at,
        "complete",
        _took(revision.last_image_at, revision.completed_at),
        f"{revision.images} images: {revision.completed_because}",
    )
    if revision.planned_at is not None:
        yield revision.planned_at, "planned", _took(revision.completed_at, revision.planned_at), ""
        for series in revision.selection:
            yield None, "  series", "", _decision(series)
    for job in revision.jobs:
        yield from _job(job)
    if revision.reported_at is not None:
        yield revision.reported_at, "reported", _took(revision.planned_at, revision.reported_at), ""
        for result in revision.results:
            reserve = ", in reserve for peers that lack the class" if result.fallback else ""
            where = f", {result.withheld}: sent to nobody, kept in archive/{result.folder}" if result.withheld else ""
            text = f"{result.objects} × {result.kind}: {result.label} ({size(result.bytes)}){reserve}{where}"
            yield None, "  result", "", text
    for delivery in revision.deliveries:
        yield from _delivery(delivery)
    for line in revision.reconciled:
        yield line.at, "not reconciled" if line.reason else "reconciled", "", _reconciled(line)
    if revision.delivered_at is not None:
        yield revision.delivered_at, revision.state, _took(revision.reported_at, revision.delivered_at), ""
    elif revision.state == "unsent":
        yield None, revision.state, "", nowhere(revision.source_aet)


def _received(revision: RevisionLine) -> Iterator[_Entry]:
    for link in revision.associations:
        end = "still open" if link.outcome == "open" else link.outcome
        details = f"{link.images} images, {size(link.bytes)} from {link.calling_aet} ({link.host}), association {end}"
        yield link.first_image_at, "received", _took(link.first_image_at, link.last_image_at), details


def _decision(series: dict[str, object]) -> str:
    number = f"{series['number']} " if series.get("number") is not None else ""
    name = f"{number}{series.get('description') or series.get('series_instance_uid', '')}".strip()
    pipeline = f" by {series['pipeline']}" if series.get("pipeline") and series.get("decision") == "analysed" else ""
    reason = f": {series['reason']}" if series.get("reason") else ""
    what = f"{series.get('modality', '?')}, {series.get('images', '?')} images, {series.get('role', '?')}"
    left_out = f"; left out of the report: {series[LEFT_OUT]}" if LEFT_OUT in series else ""
    return f"{name} ({what}): {series.get('decision', '?')}{pipeline}{reason}{left_out}"


def _job(job: JobLine) -> Iterator[_Entry]:
    yield job.queued_at, "queued", "", f"job {job.id}: {job.pipeline} {job.series_instance_uid}".rstrip()
    attempt = f", attempt {job.attempt}" if job.attempt > 1 else ""
    if job.started_at is not None:
        yield job.started_at, "started", _took(job.queued_at, job.started_at), f"job {job.id} on {job.worker}{attempt}"
    for step in job.steps:
        yield None, "  step", duration(float(step.get("seconds", 0.0))), str(step.get("name", ""))
    if job.state == "running":
        yield None, "  running", "", f"{100 * job.progress:.0f} % {job.step}".rstrip()
    elif job.ended_at is not None:
        reason = f": {job.reason}" if job.reason else ""
        yield job.ended_at, job.state, _took(job.started_at, job.ended_at), f"job {job.id}: {job.outcome}{reason}"
        for said in _kept(job):
            yield None, "  kept", "", said
    elif job.reason:
        yield None, "  waiting", "", f"job {job.id}: {job.reason}"


def _kept(job: JobLine) -> Iterator[str]:
    """What an analysis found whose results are shown to nobody else. All of it: --json."""
    body = job.kept or {}
    for part in body.get("one_by_one", [body] if body else []):
        image = f"{part['image']}: " if part.get("image") else ""
        findings = part.get("findings", {})
        done = [f"{one['name']} {one['outcome']}" for one in findings.get("analyses", [])]
        lesions = [f"{one['score']:.2f}" for one in findings.get("lesions", [])]
        marked = [f"possible lesions: {len(lesions)} (scores {', '.join(lesions)})" if lesions else "no lesion marked"]
        yield image + ("; ".join(done + marked) if findings else str(part.get("reason", "nothing")))


def _reconciled(line: ReconciledLine) -> str:
    how = f"as they are: {line.reason}" if line.reason else f"with its own values of {', '.join(line.attributes)}"
    return f"{line.objects} objects to {line.peer_aet}, {how}"


def _delivery(line: DeliveryLine) -> Iterator[_Entry]:
    what = f"{line.objects} × {line.kind} {line.label} to {line.peer_aet}"
    attempts = f", attempt {line.attempts}" if line.attempts > 1 else ""
    if line.sent_at is not None:
        yield line.sent_at, "sent", _took(line.created_at, line.sent_at), f"{what}{attempts}"
    if line.committed_at is not None:
        proof = f" (proof: {line.proof})" if line.proof else ""
        yield line.committed_at, "committed", _took(line.sent_at, line.committed_at), f"{what}{proof}"
    elif line.state != "sent":
        reason = f": {line.reason}" if line.reason else ""
        due = f", next try {clock_time(line.not_before)}" if line.not_before is not None and line.reason else ""
        yield None, line.state, "", f"{what}{attempts}{due}{reason}"
