from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.db import watch
from node.db.quality import SeriesQuality
from node.db.session import Database
from node.db.watch import Group, Scanner, Verdict, Watch, judge, percentile
from seeded.scores import CHEST, FORCE, MODEL, add_score

TODAY = dt.date(2026, 11, 20)  # a Friday
NUMBERS = count(1000)
NOW = range(28)
BEFORE = range(28, 112)
"""Days ago of the two windows, as the rule states them."""


def one(
    number: int,
    days_ago: int,
    score: float | None,
    *,
    study: str = "",
    scanner: str = FORCE,
    protocol: str = CHEST,
    model: str = MODEL,
    poor: int = 0,
    reason: str = "",
) -> SeriesQuality:
    day = TODAY - dt.timedelta(days=days_ago)
    return SeriesQuality(number, study or f"1.{number}", scanner, protocol, model, day, score, poor, reason)


def days_and_scores(when: Sequence[int], scores: Iterable[float], **named: str) -> list[SeriesQuality]:
    """A study each, spread evenly over the days."""
    values = list(scores)
    return [one(next(NUMBERS), when[k * len(when) // len(values)], score, **named) for k, score in enumerate(values)]


def the_group(series: Sequence[SeriesQuality]) -> Group:
    (group,) = judge(series, today=TODAY).groups
    return group


STEADY = [2.0 + 0.01 * k for k in range(40)]


def test_a_shift_is_flagged_with_its_size_and_direction() -> None:
    group = the_group([*days_and_scores(BEFORE, STEADY), *days_and_scores(NOW, [s - 0.5 for s in STEADY[:21]])])
    assert group.before is not None
    assert group.recent is not None
    assert (group.before.studies, group.recent.studies) == (40, 21)
    assert group.before.median == pytest.approx(2.195)
    assert group.recent.median == pytest.approx(1.6)
    assert group.change == pytest.approx(-0.595)
    assert group.verdict is Verdict.DRIFTED
    assert re.fullmatch(r"lower than its baseline by 0\.(59|60) grades \(p = \de-\d\d\)", group.says)


def test_better_is_flagged_too_since_it_may_be_dose() -> None:
    group = the_group([*days_and_scores(BEFORE, STEADY), *days_and_scores(NOW, [s + 0.5 for s in STEADY])])
    assert (group.verdict, group.says.split(" by ")[0]) == (Verdict.DRIFTED, "higher than its baseline")


def test_p_is_exact_where_no_score_beats_any_of_the_baseline() -> None:
    group = the_group([*days_and_scores(BEFORE, STEADY[:20]), *days_and_scores(NOW, [1.0, 1.1, 1.2, 1.3, 1.4])])
    assert group.p == pytest.approx(2 / 53130)  # two of the C(25, 5) orders are so extreme


@pytest.mark.parametrize(("shift", "verdict"), [(0.29, Verdict.STEADY), (0.31, Verdict.DRIFTED)])
def test_what_is_certain_but_small_is_not_worth_a_flag(shift: float, verdict: Verdict) -> None:
    group = the_group([*days_and_scores(BEFORE, STEADY), *days_and_scores(NOW, [s - shift for s in STEADY])])
    assert group.p is not None
    assert (group.p < 1e-6, group.verdict) == (True, verdict)
    assert verdict is not Verdict.STEADY or group.says == "as before"


def test_what_is_large_but_may_be_chance_is_said_and_not_flagged() -> None:
    wild = [0.5 + 0.15 * k for k in range(20)]
    group = the_group([*days_and_scores(BEFORE, wild), *days_and_scores(NOW, [0.7, 1.2, 1.5, 1.9, 2.6])])
    assert group.verdict is Verdict.STEADY
    assert group.says.startswith("as before: a change of -0.4")
    assert "may be chance (p = " in group.says


EARLY = range(112, 182)
"""Days ago of what is older than the baseline."""


def _slowly(per_week: float, *, weeks: int = 26, sd: float = 0.25) -> list[SeriesQuality]:
    rng = np.random.default_rng(3)
    return [
        one(next(NUMBERS), ago, float(2.6 + per_week * (7 * weeks - ago) / 7 + rng.normal(0, sd)))
        for ago in range(7 * weeks)
    ]


def test_a_change_too_slow_for_the_baseline_is_flagged_against_what_is_older() -> None:
    group = the_group(_slowly(-0.02))
    assert group.change is not None
    assert abs(group.change) < watch.LEAST_CHANGE
    assert group.verdict is Verdict.DRIFTED
    assert re.fullmatch(
        r"lower than more than 16 weeks ago by 0\.\d\d grades \(p = .+\), slowly: its baseline moved along", group.says
    )
    assert group.slow is not None
    assert group.slow.studies == 70


def test_a_slow_change_is_not_spoken_of_where_little_is_older_than_the_baseline() -> None:
    few = days_and_scores(EARLY, [3.5] * (watch.LEAST_BASELINE - 1))
    group = the_group([*few, *days_and_scores(BEFORE, STEADY), *days_and_scores(NOW, STEADY[:21])])
    assert (group.slow, group.verdict) == (None, Verdict.STEADY)
    more = days_and_scores(EARLY, [3.5] * watch.LEAST_BASELINE)
    group = the_group([*more, *days_and_scores(BEFORE, STEADY), *days_and_scores(NOW, STEADY[:21])])
    assert group.verdict is Verdict.DRIFTED


def test_a_quick_change_is_told_as_one() -> None:
    early = days_and_scores(EARLY, STEADY)
    group = the_group([*early, *days_and_scores(BEFORE, STEADY), *days_and_scores(NOW, [s - 0.5 for s in STEADY[:21]])])
    assert "than its baseline" in group.says


def test_the_limit_is_shared_by_all_that_is_compared() -> None:
    few = [2.0 + 0.1 * k for k in range(20)]  # p is 0.0017 here: enough for one comparison, not for ten
    lower = [1.45, 1.95, 2.05, 2.15, 2.25, 2.35]
    suspect = [*days_and_scores(BEFORE, few), *days_and_scores(NOW, lower)]
    assert the_group(suspect).verdict is Verdict.DRIFTED
    others = [
        series for k in range(9) for when in (BEFORE, NOW) for series in days_and_scores(when, STEADY, protocol=f"P{k}")
    ]
    found = judge([*suspect, *others], today=TODAY)
    assert found.compared == 10
    assert found.drifted == ()
    narrowed = found.only(protocol="chest LOW")
    assert (len(narrowed.groups), narrowed.compared, narrowed.drifted) == (1, 10, ())


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        (19, 30, "too few studies yet: 19 of 20 for a baseline"),
        (20, 4, "too few studies in the last 4 weeks: 4 of 5"),
        (0, 7, "too few studies yet: 0 of 20 for a baseline"),
    ],
)
def test_too_few_is_said_with_numbers(before: int, now: int, says: str) -> None:
    group = the_group([*days_and_scores(BEFORE, [2.0] * before), *days_and_scores(NOW, [3.0] * now)])
    assert (group.verdict, group.says, group.p, group.change) == (Verdict.TOO_FEW, says, None, None)
    assert (group.baseline is None) == (before < 20)


def test_windows_are_28_and_84_days_and_today_is_the_last_of_them() -> None:
    assert watch.recent_from(TODAY) == TODAY - dt.timedelta(days=27)
    assert watch.baseline_from(TODAY) == TODAY - dt.timedelta(days=111)
    group = the_group([one(1, 0, 1.0), one(2, 27, 1.2), one(3, 28, 2.0), one(4, 111, 3.0), one(5, 112, 4.0)])
    assert group.recent is not None
    assert group.before is not None
    assert (group.recent.studies, group.recent.median) == (2, 1.1)
    assert (group.before.studies, group.before.median) == (2, 2.5)


def test_a_study_counts_once_with_the_median_of_its_series() -> None:
    series = [one(k, 3, score, study="7") for k, score in enumerate((1.0, 2.0, 3.9))]
    group = the_group([*series, one(9, 3, 3.0)])
    assert group.recent is not None
    assert (group.recent.studies, group.recent.lowest, group.recent.median) == (2, 2.0, 2.5)
    assert group.weeks[0].series == 4


def test_networks_are_never_pooled_and_the_older_one_is_not_compared() -> None:
    old = days_and_scores(BEFORE, [s + 1 for s in STEADY], model="old 1")
    new = days_and_scores(NOW, STEADY, model="new 2")
    groups = {group.model: group for group in judge([*old, *new], today=TODAY).groups}
    assert groups["new 2"].says == "too few studies yet: 0 of 20 for a baseline"
    assert groups["old 1"].verdict is Verdict.SUPERSEDED
    assert "new 2" in groups["old 1"].says


def test_what_was_never_scored_says_the_commonest_reason() -> None:
    reasons = ["a head", "too thick", "too thick"]
    group = the_group([one(k, k, None, reason=reason) for k, reason in enumerate(reasons)])
    assert group.says == "nothing scored, most often: too thick"


def test_images_that_are_no_longer_scored_are_no_quiet_gap() -> None:
    blank = [one(k, 2, None, reason="too thick") for k in range(12)]
    group = the_group([*days_and_scores(BEFORE, STEADY), *blank])
    assert group.says == "too few studies in the last 4 weeks: 0 of 5; 12 series not scored, most often: too thick"


def test_a_week_runs_from_monday_and_counts_series_poor_ones_and_unscored_ones() -> None:
    scores = [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0), (4, 1.5)]  # Friday back to Monday
    series = [one(k, ago, score, poor=int(score < 1.8)) for k, (ago, score) in enumerate(scores)]
    week_before, week = the_group([*series, one(8, 1, None, reason="a head"), one(9, 5, 3.5)]).weeks
    assert (week.name, week.monday, week.series, week.poor, week.unscored, week.reason) == (
        *("2026-W47", dt.date(2026, 11, 16), 6, 2, 1, "a head"),
    )
    spread = week.scores
    assert spread is not None
    assert (spread.studies, spread.lowest, spread.lower, spread.median, spread.upper) == (5, 1.0, 1.5, 2.0, 3.0)
    assert (week_before.name, week_before.series, week_before.unscored) == ("2026-W46", 1, 0)


def test_a_week_is_named_after_the_year_of_its_thursday() -> None:
    monday = dt.date(2026, 12, 28)
    assert watch.Week(monday, 0, 0, 0, "", None).name == "2026-W53"


def sent(*days_ago: int) -> Scanner:
    (scanner,) = judge([one(k, ago, 2.0) for k, ago in enumerate(days_ago)], today=TODAY).scanners
    return scanner


@pytest.mark.parametrize(("ago", "silent"), [(3, False), (4, True)])
def test_a_daily_scanner_is_missed_after_three_days(ago: int, silent: bool) -> None:
    scanner = sent(*range(ago, ago + 20))
    assert (scanner.silent, scanner.longest_days, scanner.every_days) == (silent, 3, 1.0)
    assert not silent or scanner.says == "nothing since 2026-11-16 (usually every day)"


def test_weekends_are_covered_by_the_percentile() -> None:
    weekdays = [ago for ago in range(9, 80) if (TODAY - dt.timedelta(days=ago)).weekday() < 5]
    scanner = sent(*weekdays)  # last on a Wednesday; every fifth gap is of 3 days, the others of one
    assert (scanner.longest_days, scanner.silent) == (9, False)
    assert sent(*[ago + 1 for ago in weekdays]).silent


def test_a_rare_scanner_is_not_missed_too_soon() -> None:
    assert (sent(*range(20, 100, 8)).longest_days, sent(*range(20, 100, 8)).silent) == (24, False)
    assert sent(*range(25, 105, 8)).says == "nothing since 2026-10-26 (usually every 8.0 days)"


def test_nobody_says_that_a_scanner_with_few_days_is_missing() -> None:
    scanner = sent(*range(60, 69))
    assert (scanner.silent, scanner.longest_days) == (False, None)
    assert "on too few days to miss it: 9 of 10" in scanner.says
    assert sent(100).every_days is None


def test_images_that_could_not_be_scored_were_sent_all_the_same() -> None:
    series = [one(k, k, None, reason="a head") for k in range(15)]
    assert not judge(series, today=TODAY).scanners[0].silent


def test_all_silent_at_once_is_said_of_two_or_more() -> None:
    away = [one(k, 10 + k, 2.0) for k in range(20)]
    other = [one(100 + k, 10 + k, 2.0, scanner="B") for k in range(20)]
    there = [one(200 + k, k, 2.0, scanner="C") for k in range(20)]
    assert not judge(away, today=TODAY).all_silent
    assert judge([*away, *other], today=TODAY).all_silent
    assert not judge([*away, *other, *there], today=TODAY).all_silent


def test_flags_come_first() -> None:
    series = [
        *days_and_scores(BEFORE, STEADY, scanner="Z"),
        *days_and_scores(NOW, [s - 1 for s in STEADY], scanner="Z"),
        *days_and_scores(BEFORE, STEADY, scanner="M"),
        *days_and_scores(NOW, STEADY, scanner="A"),
    ]
    found = judge(series, today=TODAY)
    assert [group.scanner for group in found.groups] == ["Z", "A", "M"]
    assert [scanner.name for scanner in found.scanners] == ["M", "A", "Z"]  # M has been silent for 28 days
    assert [scanner.name for scanner in found.silent] == ["M"]


def test_parts_of_names_narrow_it_in_any_case() -> None:
    found = judge([one(1, 1, 2.0), one(2, 1, 2.0, protocol="Abdomen"), one(3, 1, 2.0, scanner="B")], today=TODAY)
    assert [group.protocol for group in found.only(scanner="FORCE", protocol="abdo").groups] == ["Abdomen"]
    assert [scanner.name for scanner in found.only(scanner="force").scanners] == [FORCE]
    assert found.only(scanner="nowhere") == Watch(TODAY, (), (), 0)


def test_an_empty_node_has_nothing_to_say() -> None:
    assert judge([], today=TODAY) == Watch(TODAY, (), (), 0)


def test_looks_back_26_weeks(database: Database) -> None:
    with database.write() as session:
        add_score(session, "1.1", TODAY - dt.timedelta(days=181), 2.0)
        add_score(session, "1.2", TODAY - dt.timedelta(days=182), 2.0, scanner="gone")
    with database.read() as session:
        assert [scanner.name for scanner in watch.look(session, today=TODAY).scanners] == [FORCE]


def test_the_rules_name_their_numbers() -> None:
    drift, silence = watch.RULES
    for number in ("4 weeks", "12 weeks", "20 studies", "at least 5", "0.3 grades", "0.01"):
        assert number in drift
    for number in ("10 days", "26 weeks", "3 days", "3 times", "90th percentile"):
        assert number in silence


@given(st.lists(st.floats(0, 4, allow_nan=False), min_size=1, max_size=40), st.integers(min_value=0, max_value=100))
def test_percentiles_are_those_of_numpy(values: list[float], percent: int) -> None:
    assert percentile(sorted(values), percent) == pytest.approx(np.percentile(values, percent), abs=1e-12)


def _site(rng: np.random.Generator, sd: float, *, shift_of_first: float = 0.0) -> list[SeriesQuality]:
    """26 weeks of 10 scanners with about one study a day each, which differ with this standard deviation."""
    series = []
    for group in range(10):
        for k, ago in enumerate(rng.integers(0, 182, rng.poisson(182))):
            shift = shift_of_first if group == 0 and ago < 28 else 0.0
            score = float(np.clip(rng.normal(2.4 + shift, sd), 0, 4))
            series.append(one(1000 * group + k, int(ago), score, scanner=f"CT{group}"))
    return series


def test_rarely_a_false_alarm_on_unchanged_data() -> None:
    rng = np.random.default_rng(1)
    looks = [judge(_site(rng, 0.8), today=TODAY) for _ in range(100)]
    assert {found.compared for found in looks} == {10}
    assert sum(bool(found.drifted) for found in looks) <= 4  # one is expected; five or more have a chance below 0.4 %


def test_a_shift_of_half_a_grade_is_found() -> None:
    rng = np.random.default_rng(2)
    looks = [judge(_site(rng, 0.3, shift_of_first=-0.5), today=TODAY) for _ in range(30)]
    assert all("CT0" in [group.scanner for group in found.drifted] for found in looks)
