"""The scores of one scanner and protocol, week by week, as SVG in a page."""

from __future__ import annotations

import datetime as dt
from html import escape

from node.db.watch import Group, Spread, Verdict, Week, baseline_from, recent_from

_WIDTH, _HEIGHT = 360, 136
_LEFT, _RIGHT, _TOP, _BOTTOM = 20, 6, 8, 20
_BEST = 4
_BAND = 0.6
"""Width of a week's quartile band, in weeks."""
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def chart(group: Group, today: dt.date) -> str:
    """From the first day of the baseline to the end of this week; the score from 0 to 4. Colours are the page's."""
    axis = _Axis(baseline_from(today), today)
    weeks = [week for week in group.weeks if week.monday >= axis.first_monday]
    drawn = "".join(
        (_judged(axis), _grid(), _months(axis), _baseline(axis, group.baseline), _weeks(axis, weeks, group.verdict))
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(_in_words(group))}">'
        f"<title>{escape(_in_words(group))}</title>{drawn}</svg>"
    )


class _Axis:
    """Days to the right, whole weeks."""

    def __init__(self, begin: dt.date, today: dt.date) -> None:
        self.first_monday = begin - dt.timedelta(days=begin.weekday())
        self.today = today
        self.end = today + dt.timedelta(days=7 - today.weekday())
        self.day_px = (_WIDTH - _LEFT - _RIGHT) / (self.end - self.first_monday).days

    def x(self, day: dt.date, plus_days: float = 0.0) -> float:
        return _LEFT + self.day_px * ((day - self.first_monday).days + plus_days)


def _y(score: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - score / _BEST)


def _grid() -> str:
    return "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_y(grade):.1f}" y2="{_y(grade):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{_y(grade) + 4:.1f}" text-anchor="end">{grade}</text>'
        for grade in range(_BEST + 1)
    )


def _months(axis: _Axis) -> str:
    firsts = [
        day
        for number in range((axis.end - axis.first_monday).days)
        if (day := axis.first_monday + dt.timedelta(days=number)).day == 1
    ]
    return "".join(
        f'<line class="grid" x1="{axis.x(day):.1f}" x2="{axis.x(day):.1f}" y1="{_HEIGHT - _BOTTOM}"'
        f' y2="{_HEIGHT - _BOTTOM + 5}"/>'
        f'<text x="{axis.x(day) + 3:.1f}" y="{_HEIGHT - 5}">{_MONTHS[day.month - 1]}</text>'
        for day in firsts
        if axis.x(day) < _WIDTH - 30
    )


def _judged(axis: _Axis) -> str:
    """The ground of what is held against the baseline."""
    begin, end = axis.x(recent_from(axis.today)), axis.x(axis.end)
    return f'<rect class="judged" x="{begin:.1f}" y="{_TOP}" width="{end - begin:.1f}" height="{_y(0) - _TOP:.1f}"/>'


def _baseline(axis: _Axis, spread: Spread | None) -> str:
    if spread is None:
        return ""
    begin, now, end = axis.x(baseline_from(axis.today)), axis.x(recent_from(axis.today)), axis.x(axis.end)
    return (
        f'<rect class="baseline" x="{begin:.1f}" y="{_y(spread.upper):.1f}" width="{now - begin:.1f}"'
        f' height="{_y(spread.lower) - _y(spread.upper):.1f}"/>'
        f'<line class="baseline" x1="{begin:.1f}" x2="{end:.1f}" y1="{_y(spread.median):.1f}"'
        f' y2="{_y(spread.median):.1f}"/>'
    )


def _weeks(axis: _Axis, weeks: list[Week], verdict: Verdict) -> str:
    """A band from quartile to quartile and a dot at the median; a line joins weeks that follow one another."""
    parts, last = [], None
    for week in weeks:
        if (scores := week.scores) is None:
            continue
        x, y = axis.x(week.monday, 3.5), _y(scores.median)
        flagged = verdict is Verdict.DRIFTED and week.monday > recent_from(axis.today) - dt.timedelta(days=4)
        kind = "flagged" if flagged else "usual"
        if last is not None and week.monday - last[0] == dt.timedelta(days=7):
            parts.append(f'<line class="{kind}" x1="{last[1]:.1f}" y1="{last[2]:.1f}" x2="{x:.1f}" y2="{y:.1f}"/>')
        width, high, low = 7 * _BAND * axis.day_px, _y(scores.upper), _y(scores.lower)
        parts.append(
            f'<rect class="{kind}" x="{x - width / 2:.1f}" y="{high - 1:.1f}" width="{width:.1f}"'
            f' height="{low - high + 2:.1f}" rx="2"/>'
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
        )
        last = (week.monday, x, y)
    return "".join(parts)


def _in_words(group: Group) -> str:
    now = f"median {group.recent.median:.2f} now" if group.recent else "nothing scored now"
    before = f", {group.before.median:.2f} before" if group.before else ""
    return f"{group.scanner}, {group.protocol}: {now}{before}; {group.says}"
