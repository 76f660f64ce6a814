"""`purge`: which studies' files may be deleted and why the others are kept; deletes them when told to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from node.cli import busy
from node.cli import home as homes
from node.cli.studies import JSON
from node.cli.words import LATER, complain, person, print_json, say, size, table
from node.errors import ConfigurationError

if TYPE_CHECKING:
    from node.db.tables import PurgeRow
    from node.jobs.purge import Retention, Rules, Verdict
    from node.settings import Settings
    from node.wiring import Node


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Studies")(purge)


@dataclass(frozen=True)
class Line:
    """One study that holds files: what would be deleted of it, what was, or why it is kept."""

    study_instance_uid: str
    source_aet: str
    since: str
    """ISO 8601 UTC: the last thing that happened to it. Its days count from then."""
    images: int
    results: int
    conflicts: int
    bytes: int
    goes: bool
    deleted: bool
    why: str


def purge(
    ctx: typer.Context,
    study: str = typer.Option("", "--study", help="Only this study (Study Instance UID), of whatever age."),
    older_than: float | None = typer.Option(
        None, "--older-than", min=0, help="Days, in place of PACSNODE_KEEP_DAYS.", show_default=False
    ),
    failed: bool = typer.Option(
        False, "--failed", help="Also those where an analysis failed, or whose results were not delivered and proven."
    ),
    conflicts: bool = typer.Option(False, "--conflicts", help="Also those with objects that were kept aside."),
    yes: bool = typer.Option(False, "--yes", help="Delete. Without it nothing is changed."),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Only say what would be deleted: what is done without --yes."
    ),
    as_json: bool = JSON,
) -> None:
    """Delete received files and results of studies that are done: by the policy, by age, or of one study.

    Says what would go and why the rest is kept; deletes with --yes only. Never of a study that is under way. Rows,
    UIDs, digests and the audit trail stay. The clock does the same by itself where PACSNODE_KEEP_DAYS is set.

    \b
    pacsnode --home DIR purge --older-than 90
    pacsnode --home DIR purge --older-than 90 --yes
    pacsnode --home DIR purge --study 1.2.3.4 --failed --yes
    """
    from node import wiring
    from node.jobs.purge import Retention

    if yes and dry_run:
        raise typer.BadParameter("--yes and --dry-run contradict each other")
    settings = homes.load(ctx.obj)
    homes.need_database(settings)
    rules = _rules(settings, study=study, older_than=older_than, failed=failed, conflicts=conflicts)
    node = wiring.build(settings, patience_s=busy.PATIENCE_S)
    found = _found(node, rules, study)
    retention = Retention(node.database, node.archive, person())
    lines, trouble = _carry_out(retention, found, rules) if yes else ([_line(one) for one in found], "")
    if as_json:
        print_json({"deleted": yes, "studies": lines, **_sum(lines, yes=yes), "trouble": trouble})
    else:
        _show(lines, yes=yes)
    if trouble:
        complain(trouble)
        raise typer.Exit(LATER)
    if not any(line.goes for line in lines):
        raise typer.Exit(1)


def _rules(settings: Settings, *, study: str, older_than: float | None, failed: bool, conflicts: bool) -> Rules:
    """The policy, or what was asked for in its place. raises ConfigurationError where there is neither"""
    from node.jobs.purge import Rules

    policy = Rules.of(settings)
    if not (study or older_than is not None or policy.any):
        raise ConfigurationError(
            "no policy is set (PACSNODE_KEEP_DAYS), so everything is kept: give --older-than DAYS or --study UID"
        )
    if not study and older_than is None:
        return Rules(
            policy.days,
            policy.days if failed else policy.failed,
            policy.days if conflicts else policy.conflicts,
            asked="by hand, as the policy has it",
        )
    days = older_than or 0.0
    asked = f"by hand{f', older than {older_than:g} days' if older_than else ''}"
    return Rules(days, days if failed else policy.failed, days if conflicts else policy.conflicts, asked=asked)


def _found(node: Node, rules: Rules, study: str) -> list[Verdict]:
    """Oldest first. raises ConfigurationError where the one that was named holds nothing"""
    from node.db import purging
    from node.jobs import purge as retention

    if not study:
        return sorted(retention.verdicts(node.database, rules), key=lambda one: one.held.since)
    one = retention.verdict(node.database, rules, study)
    if one is None:
        with node.database.read() as session:
            deleted = purging.deleted(session, study)
        raise ConfigurationError(deleted or f"no study {study} was received here")
    return [one]


def _line(one: Verdict, *, deleted: bool = False, why: str = "") -> Line:
    held = one.held
    return Line(
        study_instance_uid=held.study_instance_uid,
        source_aet=held.source_aet,
        since=held.since.isoformat(timespec="seconds"),
        images=held.images,
        results=held.results,
        conflicts=held.conflicts,
        bytes=held.bytes,
        goes=not (one.kept or why),
        deleted=deleted,
        why=why or one.kept or one.because,
    )


def _carry_out(retention: Retention, found: Sequence[Verdict], rules: Rules) -> tuple[list[Line], str]:
    """(what became of each study, what the disk did not do)."""
    from node.jobs.purge import OutOfReach

    lines: list[Line] = []
    trouble = ""
    for one in found:
        if one.kept:
            lines.append(_line(one))
            continue
        row: PurgeRow | None = None
        try:
            row = retention.purge(one.held.study_instance_uid, rules)
        except OutOfReach as exc:
            trouble = f"nothing more was deleted: {exc.strerror}"
            return [*lines, _line(one, why=f"kept: {exc.strerror}")], trouble
        except OSError as exc:
            trouble = (
                f"files could not be deleted ({exc.strerror}); the clock tries again, and `pacsnode study` says so"
            )
            lines.append(_line(one, why=f"given up, but not gone from disk: {exc.strerror}"))
            continue
        lines.append(
            _line(one, deleted=True) if row else _line(one, why="kept: something has happened to it meanwhile")
        )
    return lines, trouble


def _sum(lines: Sequence[Line], *, yes: bool) -> dict[str, int]:
    goes = [line for line in lines if (line.deleted if yes else line.goes)]
    files = sum(line.images + line.results + line.conflicts for line in goes)
    return {
        "count": len(goes),
        "files": files,
        "bytes": sum(line.bytes for line in goes),
        "kept": len(lines) - len(goes),
    }


def _show(lines: Sequence[Line], *, yes: bool) -> None:
    if lines:
        columns = ["=study", "=from", "=untouched since (UTC)", ">files", ">size", "=", "why"]
        table("", columns, [_row(line) for line in sorted(lines, key=lambda line: not line.goes)])
    total = _sum(lines, yes=yes)
    what = f"{_studies(total['count'])}, {total['files']} files, {size(total['bytes'])}"
    say(f"{'deleted' if yes else 'would be deleted'}: {what}; kept: {_studies(total['kept'])}")
    if total["count"] and not yes:
        say("nothing was changed: the same command with --yes deletes them for good")


def _studies(count: int) -> str:
    return f"{count} stud{'y' if count == 1 else 'ies'}"


def _row(line: Line) -> list[object]:
    files = line.images + line.results + line.conflicts
    what = "deleted" if line.deleted else "goes" if line.goes else "kept"
    since = line.since[:16].replace("T", " ")
    return [line.study_instance_uid, line.source_aet, since, files, size(line.bytes), what, line.why]
