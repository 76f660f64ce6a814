from __future__ import annotations

import datetime as dt
import json
import re

import pytest

from node.db.session import Database
from seeded.scores import CHEST, FORCE, MODEL, add_score, add_weeks

TODAY = dt.date(2026, 11, 20)  # a Friday
ON = ("--on", f"{TODAY}")
OTHER = "GE Revolution [red]CT02[/red]"


@pytest.fixture
def watched(empty: Database) -> Database:
    """One protocol that drifted and one that did not, on a scanner that sends; and a silent scanner."""
    with empty.write() as session:
        add_weeks(session, "1.1", TODAY, level=2.6, recent_level=1.8)
        add_weeks(session, "1.2", TODAY, level=3.0, protocol="Abdomen")
        add_weeks(session, "2.1", TODAY, level=2.5, scanner=OTHER, until_days_ago=20, days_apart=3)
    return empty


def test_flags_come_first_then_the_table_then_the_rules(run, watched: Database) -> None:
    result = run("quality", *ON)
    assert result.exit_code == 0
    silent, drifted, *rest = result.stdout.splitlines()
    since = TODAY - dt.timedelta(days=21)
    assert silent == f"SILENT   {OTHER}: nothing since {since} (usually every 3.0 days)"
    assert drifted.startswith(f"DRIFTED  {FORCE}, {CHEST}: lower than its baseline by 0.")
    text = "\n".join(rest)
    assert f"scored by {MODEL}, 0 bad to 4 excellent" in text
    (row,) = [line for line in rest if "Abdomen" in line]
    assert row.split()[-2:] == ["as", "before"]
    assert text.index("as before") < text.index("Drift: a scanner") < text.index("Silence:") < text.index("physics")


def test_the_table_shows_both_medians_and_how_many_studies_stand_behind_them(run, watched: Database) -> None:
    group = json.loads(run("quality", *ON, "--json").stdout)["watch"]["groups"][0]
    (row,) = [line for line in run("quality", *ON).stdout.splitlines() if line.startswith(" SIEMENS") and CHEST in line]
    cells = row.split(CHEST)[1].split()
    assert cells[0::2][:2] == ["14", "42"]
    assert cells[1::2][:2] == [f"{group['recent']['median']:.2f}", f"{group['before']['median']:.2f}"]
    assert cells[4] == f"{group['change']:+.2f}"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 1),
        (("--protocol", "abdomen"), 0),
        (("--protocol", "low DOSE", "--scanner", "force"), 1),
        (("--scanner", "ge rev"), 1),
        (("--scanner", "no such"), 1),
    ],
)
def test_check_fails_where_something_is_flagged_or_nothing_watched(
    run, watched: Database, arguments: tuple[str, ...], code: int
) -> None:
    assert run("quality", *ON, "--check", *arguments).exit_code == code


def test_all_well_is_said(run, empty: Database) -> None:
    with empty.write() as session:
        add_weeks(session, "1.2", TODAY, level=3.0)
    result = run("quality", *ON, "--check")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "nothing drifted, and no scanner fell silent")


def test_everything_silent_points_at_the_node(run, empty: Database) -> None:
    with empty.write() as session:
        for scanner in ("A", "B"):
            add_weeks(session, f"1.{ord(scanner)}", TODAY, level=3.0, until_days_ago=20, scanner=scanner)
    assert "pacsnode check" in run("quality", *ON).stderr


def test_weeks_are_shown_when_asked_for(run, empty: Database) -> None:
    monday = TODAY - dt.timedelta(days=TODAY.weekday())
    with empty.write() as session:
        for number, score in enumerate((1.0, 2.0, 3.0, 4.0, 1.5)):
            add_score(session, f"1.{number}", monday, score, poor=number % 2)
        add_score(session, "1.8", monday, None, reason="a head")
        add_score(session, "1.9", monday - dt.timedelta(days=7), 2.5)
    year, week, _ = monday.isocalendar()
    lines = run("quality", *ON, "--weeks", "1").stdout.splitlines()
    (row,) = [line for line in lines if line.startswith(f" {year}-W{week:02d}")]
    assert " ".join(row.split()) == f"{year}-W{week:02d} 6 5 1.00 1.50 2.00 3.00 2 (40 %) 1 a head"
    for weeks, shown in (("0", 0), ("1", 1), ("2", 2)):
        assert len(re.findall(r"\d-W\d\d", run("quality", *ON, "--weeks", weeks).stdout)) == shown


def test_networks_have_a_table_each(run, empty: Database) -> None:
    with empty.write() as session:
        add_score(session, "1.1", TODAY, 2.0, model="net 1")
        add_score(session, "1.2", TODAY, 2.0, model="net 2")
    text = run("quality", *ON).stdout
    assert text.index("scored by net 2") < text.index("too few studies yet") < text.index("scored by net 1")


def test_json_holds_the_weeks_and_the_rules(run, watched: Database) -> None:
    found = json.loads(run("quality", *ON, "--json", "--protocol", "low dose").stdout)
    drifted = found["watch"]["groups"][0]
    assert (drifted["scanner"], drifted["verdict"]) == (FORCE, "drifted")
    assert sum(week["series"] for week in drifted["weeks"]) == 56
    assert [scanner["silent"] for scanner in found["watch"]["scanners"]] == [True, False]
    assert len(found["rules"]) == 2
    assert "not a diagnosis" in found["caution"]


def test_nothing_scored_yet_says_why_that_may_be(run, empty: Database) -> None:
    result = run("quality", *ON)
    assert result.exit_code == 1
    assert "no series has been scored yet" in result.stderr
    assert "no trained network" in result.stderr


def test_old_scores_alone_are_said_with_their_day(run, empty: Database) -> None:
    with empty.write() as session:
        add_score(session, "1.1", dt.date(2020, 5, 4), 2.0)
    assert f"nothing in the 26 weeks up to {TODAY}; the newest series is of 2020-05-04" in run("quality", *ON).stderr


def test_one_series_is_shown_image_by_image(run, empty: Database) -> None:
    detail = [
        {"sop_instance_uid": "1.1.7", "frame": None, "score": 1.234, "spread": 0.5, "probabilities": [1.0]},
        {"sop_instance_uid": "1.1.8", "frame": 3, "score": 2.5, "spread": 0.25, "probabilities": [1.0]},
    ]
    with empty.write() as session:
        add_score(session, "1.1", TODAY, 2.0, detail=detail, poor=1)
        add_score(session, "1.2", TODAY, None, reason="the series is of the head")
    lines = run("quality", "--series", "1.1").stdout.splitlines()
    assert lines[:2] == [
        f"{FORCE}, {CHEST}, {TODAY}",
        f"median 2.00 of 4, 10th percentile 1.60, 1 of 100 images poor; scored by {MODEL}",
    ]
    assert [line.split() for line in lines if line.strip().startswith(("1 ", "2 "))] == [
        ["1", "1.1.7", "1.23", "0.50"],
        ["2", "1.1.8", "3", "2.50", "0.25"],
    ]
    assert json.loads(run("quality", "--series", "1.1", "--json").stdout)["detail"] == detail
    assert f"not scored by {MODEL}: the series is of the head" in run("quality", "--series", "1.2").stdout
    unknown = run("quality", "--series", "9.9")
    assert (unknown.exit_code, "no job has scored a series 9.9" in unknown.stderr) == (1, True)


def test_help_says_what_the_exit_code_means(run) -> None:
    told = " ".join(run("quality", "--help").stdout.split())
    assert "Without --check the exit code is 0 whatever was flagged" in told


def test_without_a_day_it_is_today(run, empty: Database) -> None:
    before = dt.date.today()
    with empty.write() as session:
        add_score(session, "1.1", before, 2.0)
    assert json.loads(run("quality", "--json").stdout)["watch"]["today"] in {f"{before}", f"{dt.date.today()}"}


def test_an_earlier_day_knows_nothing_of_what_came_later(run, watched: Database) -> None:
    then = TODAY - dt.timedelta(days=28)
    found = json.loads(run("quality", "--on", f"{then}", "--json").stdout)["watch"]
    assert found["today"] == f"{then}"
    assert [
        group["verdict"] for group in found["groups"] if group["protocol"] == CHEST and group["scanner"] == FORCE
    ] == ["as before"]
    assert not any(scanner["silent"] for scanner in found["scanners"])
