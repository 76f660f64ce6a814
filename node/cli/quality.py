"""`quality`: the watch over image quality. Drift, silence, and the scores of one series."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import typer

from node.cli.studies import JSON, open_database
from node.cli.words import NOTHING, complain, print_json, remark, say, table

if TYPE_CHECKING:
    from node.db.session import Database
    from node.db.tables import QualityRow
    from node.db.watch import Group, Spread, Watch, Week

_NONE_YET = (
    "no series has been scored yet: either no CT series that the networks can read has come in since (see `pacsnode"
    " studies`), or no trained network for image quality is on offer here (the report of each study says so)"
)
_SERIES = ("job_id", "series_instance_uid", "scanner", "protocol", "acquired_on", "model", "median", "low", "poor")


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Studies")(quality)


def quality(
    ctx: typer.Context,
    scanner: str = typer.Option("", "--scanner", help="Part of the scanner's name, in any case."),
    protocol: str = typer.Option("", "--protocol", help="Part of the protocol's name, in any case."),
    weeks: int = typer.Option(0, "--weeks", min=0, max=26, help="Also week by week, the last so many."),
    series: str = typer.Option("", "--series", help="Instead: the scores of this Series Instance UID, image by image."),
    check: bool = typer.Option(False, "--check", help="Exit code 1 where something drifted or fell silent, for cron."),
    on: dt.datetime | None = typer.Option(
        None, "--on", formats=["%Y-%m-%d"], help="As of that day instead of today.", show_default=False
    ),
    as_json: bool = JSON,
) -> None:
    """Image quality by scanner and protocol: what drifted, and which scanner fell silent.

    Without --check the exit code is 0 whatever was flagged, and 1 only where nothing was scored.

    \b
    pacsnode --home DIR quality
    pacsnode --home DIR quality --scanner force --weeks 12
    pacsnode --home DIR quality --check
    pacsnode --home DIR quality --on 2026-03-31
    pacsnode --home DIR quality --series 1.2.3.4
    """
    database = open_database(ctx)
    if series:
        _show_series(database, series, as_json=as_json)
        return
    from node.db import watch

    today = on.date() if on else dt.date.today()
    with database.read() as session:
        everything = watch.look(session, today=today)
    found = everything.only(scanner=scanner, protocol=protocol)
    if not found.groups:
        complain(_why_nothing(database, everything, today))
        raise typer.Exit(NOTHING)
    if as_json:
        print_json({"watch": found, "rules": watch.RULES, "caution": watch.CAUTION})
    else:
        _show(found, weeks)
    if check and (found.drifted or found.silent):
        raise typer.Exit(NOTHING)


def _why_nothing(database: Database, everything: Watch, today: dt.date) -> str:
    from node.db import quality as statements
    from node.db.watch import HISTORY_WEEKS

    if everything.groups:
        return "no scanner and protocol has such a name"
    with database.read() as session:
        last = statements.last_acquired(session)
    if last is None:
        return _NONE_YET
    return f"nothing in the {HISTORY_WEEKS} weeks up to {today}; the newest series is of {last}"


def _show(found: Watch, weeks: int) -> None:
    from node.db.watch import CAUTION, RULES

    for scanner in found.silent:
        say(f"SILENT   {scanner.name}: {scanner.says}")
    for group in found.drifted:
        say(f"DRIFTED  {group.scanner}, {group.protocol}: {group.says}")
    if found.all_silent:
        remark("every scanner is silent: look at the node, and at what sends to it, first (pacsnode check)")
    if not found.silent and not found.drifted:
        say("nothing drifted, and no scanner fell silent")
    for model in _models(found):
        groups = [group for group in found.groups if group.model == model]
        say(f"\nscored by {model}, 0 bad to 4 excellent")
        table(
            "",
            ["scanner", "protocol", ">studies", ">now", ">studies", ">before", ">change", "verdict"],
            [_row(group) for group in groups],
        )
        for group in groups if weeks else ():
            _show_weeks(group, found.today, weeks)
    for rule in (*RULES, CAUTION):
        say(rule)


def _models(found: Watch) -> list[str]:
    """Those in use first."""
    from node.db.watch import Verdict

    in_use = {group.model for group in found.groups if group.verdict is not Verdict.SUPERSEDED}
    return sorted({group.model for group in found.groups}, key=lambda model: (model not in in_use, model))


def _row(group: Group) -> list[object]:
    return [
        group.scanner,
        group.protocol,
        *_count_and_median(group.recent),
        *_count_and_median(group.before),
        None if group.change is None else f"{group.change:+.2f}",
        group.says,
    ]


def _count_and_median(spread: Spread | None) -> tuple[object, object]:
    return (0, None) if spread is None else (spread.studies, f"{spread.median:.2f}")


def _show_weeks(group: Group, today: dt.date, weeks: int) -> None:
    begin = today - dt.timedelta(days=today.weekday(), weeks=weeks - 1)
    say(f"{group.scanner}, {group.protocol}")  # names from headers are no markup, which a table's title would be
    table(
        "",
        [
            *("=week", ">series", ">studies scored", ">lowest", ">25 %", ">median", ">75 %"),
            *(">with poor images", ">not scored", "most often because"),
        ],
        [_week(week) for week in group.weeks if week.monday >= begin],
    )


def _week(week: Week) -> list[object]:
    scores: list[object] = [0, None, None, None, None]
    if (found := week.scores) is not None:
        values = (found.lowest, found.lower, found.median, found.upper)
        scores = [found.studies, *(f"{value:.2f}" for value in values)]
    scored = week.series - week.unscored
    poor = f"{week.poor} ({100 * week.poor / scored:.0f} %)" if scored else None
    return [week.name, week.series, *scores, poor, week.unscored or None, week.reason]


def _show_series(database: Database, uid: str, *, as_json: bool) -> None:
    from node.db import quality as statements

    with database.read() as session:
        row = statements.of_series(session, uid)
    if row is None:
        complain(f"no job has scored a series {uid}, or said why not")
        raise typer.Exit(NOTHING)
    if as_json:
        print_json({name: getattr(row, name) for name in (*_SERIES, "slices", "reason", "levels", "detail")})
        return
    say(f"{row.scanner}, {row.protocol}, {row.acquired_on}")
    if row.median is None:
        say(f"not scored by {row.model}: {row.reason}")
        return
    say(_summary(row))
    table(
        "",
        [">#", "=image", ">frame", ">score", ">spread"],
        [
            [number, one["sop_instance_uid"], one["frame"], f"{one['score']:.2f}", f"{one['spread']:.2f}"]
            for number, one in enumerate(row.detail, 1)
        ],
    )


def _summary(row: QualityRow) -> str:
    return (
        f"median {row.median:.2f} of 4, 10th percentile {row.low:.2f}, {row.poor} of {row.slices} images poor;"
        f" scored by {row.model}"
    )
