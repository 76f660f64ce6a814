from __future__ import annotations

import datetime as dt
from xml.etree import ElementTree

import pytest

from node.db.watch import Group, Spread, Verdict, Week
from node.web.chart import chart

TODAY = dt.date(2026, 11, 22)  # a Sunday, so that its week ends where the chart does
MONDAY = dt.date(2026, 11, 16)
TOP, BOTTOM, LEFT, RIGHT = 8.0, 116.0, 20.0, 354.0
"""Where 4, 0, the first Monday and the end of this week are drawn."""


def weeks_ago(number: int, *scores: float) -> Week:
    lower, median, upper = scores
    spread = Spread(5, lower, lower, median, upper)
    return Week(MONDAY - dt.timedelta(weeks=number), 5, 0, 0, "", spread)


def drawn(*weeks: Week, verdict: Verdict = Verdict.STEADY, before: int = 40) -> ElementTree.Element:
    baseline = Spread(before, 1.0, 2.0, 2.5, 3.0) if before else None
    group = Group("A & B", "P", "M 1", verdict, "says", baseline, Spread(9, 1, 1, 1, 1), None, None, weeks)
    return ElementTree.fromstring(chart(group, TODAY))


def of_kind(svg: ElementTree.Element, tag: str, kind: str) -> list[dict[str, str]]:
    return [dict(found.attrib) for found in svg.iter(tag) if found.get("class") == kind]


@pytest.mark.parametrize(("score", "y"), [(0.0, BOTTOM), (4.0, TOP), (2.0, (TOP + BOTTOM) / 2)])
def test_the_height_is_the_score(score: float, y: float) -> None:
    (dot,) = of_kind(drawn(weeks_ago(0, score, score, score)), "circle", "usual")
    assert float(dot["cy"]) == pytest.approx(y, abs=0.06)


def test_sixteen_weeks_fill_the_width() -> None:
    dots = of_kind(drawn(*(weeks_ago(k, 1, 2, 3) for k in range(15, -1, -1))), "circle", "usual")
    assert len(dots) == 16
    week = (RIGHT - LEFT) / 16
    assert [float(dot["cx"]) for dot in dots] == pytest.approx([LEFT + week * (k + 0.5) for k in range(16)], abs=0.06)


def test_older_weeks_and_weeks_without_scores_are_left_out() -> None:
    blank = Week(MONDAY, 3, 0, 3, "a head", None)
    assert of_kind(drawn(weeks_ago(16, 1, 2, 3), blank), "circle", "usual") == []


def test_a_line_joins_only_weeks_that_follow_one_another() -> None:
    lines = of_kind(drawn(weeks_ago(5, 1, 2, 3), weeks_ago(4, 1, 2, 3), weeks_ago(2, 1, 2, 3)), "line", "usual")
    assert len(lines) == 1


def test_a_drift_is_marked_where_it_was_found() -> None:
    svg = drawn(*(weeks_ago(k, 1, 2, 3) for k in range(15, -1, -1)), verdict=Verdict.DRIFTED)
    assert (len(of_kind(svg, "circle", "flagged")), len(of_kind(svg, "circle", "usual"))) == (4, 12)


def test_the_baseline_is_a_band_up_to_the_time_that_is_judged() -> None:
    (band,) = of_kind(drawn(), "rect", "baseline")
    (judged,) = of_kind(drawn(), "rect", "judged")
    begin, width = float(band["x"]), float(band["width"])
    assert (begin, width) == pytest.approx((LEFT, (RIGHT - LEFT) * 12 / 16), abs=0.06)
    assert begin + width == pytest.approx(float(judged["x"]), abs=0.11)
    assert float(band["height"]) == pytest.approx((BOTTOM - TOP) / 4, abs=0.06)


@pytest.mark.parametrize("before", [0, 19])
def test_too_few_studies_make_no_band(before: int) -> None:
    assert of_kind(drawn(before=before), "rect", "baseline") == []


def test_it_can_be_heard() -> None:
    assert drawn().get("aria-label") == "A & B, P: median 1.00 now, 2.50 before; says"
    assert drawn(before=0).get("aria-label") == "A & B, P: median 1.00 now; says"
