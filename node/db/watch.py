"""The watch over image quality: drift against the site's own baseline, and scanners that fell silent."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from statistics import median

from sqlalchemy.orm import Session

from node.db import quality
from node.db.quality import SeriesQuality

RECENT_WEEKS = 4
"""What is judged: the weeks up to today."""
BASELINE_WEEKS = 12
"""What it is held against: the weeks before those, of the same scanner, protocol and network."""
LEAST_RECENT = 5
LEAST_BASELINE = 20
"""Studies below which nothing is compared."""
LEAST_CHANGE = 0.3
"""Of the medians, in grades, that is worth a flag."""
FALSE_ALARM = 0.01
"""Chance that a look at unchanged data flags anything at all; shared out evenly over all that is compared."""
HISTORY_WEEKS = 26
"""How far back the watch looks. A scanner that has sent nothing for so long is no longer spoken of."""
LEAST_DAYS = 10
"""Days with images below which nobody can say how often a scanner sends."""
LEAST_SILENCE_DAYS = 3
SILENCE_FACTOR = 3
GAP_PERCENTILE = 90
"""Silent: for longer than `LEAST_SILENCE_DAYS`, and than `SILENCE_FACTOR` times this percentile of the gaps."""

RULES = (
    f"Drift: a scanner, protocol and network is compared with itself, the last {RECENT_WEEKS} weeks with the"
    f" {BASELINE_WEEKS} weeks before. Each study counts once, with the median of its series, and each series with the"
    f" median of its slices. At least {LEAST_BASELINE} studies make a baseline, and at least {LEAST_RECENT} are held"
    f" against it. It is flagged when the median has moved by {LEAST_CHANGE} grades or more and a two-sided"
    f" Mann-Whitney test gives p below {FALSE_ALARM} divided by the number of comparisons. The baseline moves on:"
    " a change that stays is flagged for some weeks and is then what is usual. A slow change is looked for besides, by"
    f" the same rule and the same numbers: the last {RECENT_WEEKS} weeks against what is older than that baseline and"
    f" not older than {HISTORY_WEEKS} weeks. What takes longer may never be flagged.",
    f"Silence: a scanner that sent on at least {LEAST_DAYS} days of the last {HISTORY_WEEKS} weeks is flagged when"
    f" nothing has come for longer than {LEAST_SILENCE_DAYS} days and longer than {SILENCE_FACTOR} times the"
    f" {GAP_PERCENTILE}th percentile of the gaps between its days. Days are study dates of series that were analysed"
    " here: a scanner whose images stopped being eligible falls silent too.",
)
CAUTION = (
    "The scores come from a network that was trained on simulated degradation. Its scale was set by physics, not by"
    " readers: it serves to compare like with like, and it is not a diagnosis."
)


class Verdict(StrEnum):
    """What may be said of a scanner and protocol."""

    DRIFTED = "drifted"
    STEADY = "as before"
    TOO_FEW = "too few"
    SUPERSEDED = "older network"
    """Another network has scored this scanner and protocol since; their scores cannot be compared."""


@dataclass(frozen=True)
class Spread:
    """Scores of studies: each the median of its series."""

    studies: int
    lowest: float
    lower: float
    """First quartile."""
    median: float
    upper: float
    """Third quartile."""


@dataclass(frozen=True)
class Week:
    """One ISO week of one group."""

    monday: dt.date
    series: int
    """Scored or not."""
    poor: int
    """Series with at least one poor slice."""
    unscored: int
    reason: str
    """The commonest one, where series were not scored."""
    scores: Spread | None

    @property
    def name(self) -> str:
        year, number, _ = self.monday.isocalendar()
        return f"{year}-W{number:02d}"


@dataclass(frozen=True)
class Slow:
    """The weeks that are judged, held against those before the baseline."""

    studies: int
    """Before the baseline."""
    change: float
    """Of the medians, recent less that."""
    p: float


@dataclass(frozen=True)
class Group:
    """One scanner, protocol and network. Other networks have other scales."""

    scanner: str
    protocol: str
    model: str
    verdict: Verdict
    says: str
    """The verdict in words."""
    before: Spread | None
    """In the weeks of the baseline, be it enough for one or not."""
    recent: Spread | None
    change: float | None
    """Of the medians, recent less before; None where they are not compared."""
    p: float | None
    weeks: tuple[Week, ...]
    """Those that have series, oldest first."""
    slow: Slow | None = None
    """None where too few studies are older than the baseline, or too few are recent."""

    @property
    def baseline(self) -> Spread | None:
        """None where there are too few studies for one."""
        return self.before if self.before is not None and self.before.studies >= LEAST_BASELINE else None


@dataclass(frozen=True)
class Scanner:
    """When one scanner sent."""

    name: str
    days: int
    """On which it sent."""
    last: dt.date
    every_days: float | None
    """On average; None where it sent on one day only."""
    longest_days: int | None
    """Silence that is not yet flagged; None where it sent on too few days to say."""
    silent: bool
    says: str


@dataclass(frozen=True)
class Watch:
    """All that is known of image quality on one day. Flags come first."""

    today: dt.date
    scanners: tuple[Scanner, ...]
    groups: tuple[Group, ...]
    compared: int
    """Groups that were held against their baselines."""

    @property
    def drifted(self) -> tuple[Group, ...]:
        return tuple(group for group in self.groups if group.verdict is Verdict.DRIFTED)

    @property
    def silent(self) -> tuple[Scanner, ...]:
        return tuple(scanner for scanner in self.scanners if scanner.silent)

    @property
    def all_silent(self) -> bool:
        """Every scanner that can be missed is: more likely the node, or what sends to it, than all of them."""
        judged = [scanner for scanner in self.scanners if scanner.longest_days is not None]
        return len(judged) > 1 and all(scanner.silent for scanner in judged)

    def only(self, *, scanner: str = "", protocol: str = "") -> Watch:
        """What these parts of names fit, in any case; judged as among all the others."""
        groups = tuple(
            group
            for group in self.groups
            if scanner.casefold() in group.scanner.casefold() and protocol.casefold() in group.protocol.casefold()
        )
        names = {group.scanner for group in groups}
        return replace(self, groups=groups, scanners=tuple(s for s in self.scanners if s.name in names))


def look(session: Session, *, today: dt.date) -> Watch:
    """The watch on that day, from the `HISTORY_WEEKS` before it; what was acquired later is left out."""
    return judge(quality.series_between(session, _weeks_before(today, HISTORY_WEEKS), today), today=today)


def judge(series: Sequence[SeriesQuality], *, today: dt.date) -> Watch:
    """The same from series in the order of their jobs."""
    members: dict[tuple[str, str, str], list[SeriesQuality]] = defaultdict(list)
    days: dict[str, set[dt.date]] = defaultdict(set)
    in_use: dict[tuple[str, str], str] = {}
    for one in series:
        members[one.scanner, one.protocol, one.model].append(one)
        days[one.scanner].add(one.acquired_on)
        in_use[one.scanner, one.protocol] = one.model
    groups = [_compare(key, found, in_use[key[:2]], today) for key, found in members.items()]
    compared = sum(group.p is not None for group in groups)
    comparisons = compared + sum(group.slow is not None for group in groups)
    judged = [_decide(group, comparisons) for group in groups]
    scanners = [_scanner(name, sorted(found), today) for name, found in days.items()]
    return Watch(
        today,
        tuple(sorted(scanners, key=lambda s: (not s.silent, s.name))),
        tuple(sorted(judged, key=lambda g: (g.verdict is not Verdict.DRIFTED, g.scanner, g.protocol, g.model))),
        compared,
    )


def _weeks_before(today: dt.date, weeks: int) -> dt.date:
    """The first of `weeks` times 7 days of which `today` is the last."""
    return today - dt.timedelta(days=7 * weeks - 1)


def recent_from(today: dt.date) -> dt.date:
    """The first day of what is judged."""
    return _weeks_before(today, RECENT_WEEKS)


def baseline_from(today: dt.date) -> dt.date:
    """The first day of what it is held against."""
    return _weeks_before(today, RECENT_WEEKS + BASELINE_WEEKS)


def _compare(key: tuple[str, str, str], series: Sequence[SeriesQuality], in_use: str, today: dt.date) -> Group:
    """A group with all its numbers, and with a verdict where it needs no p."""
    begin, now = baseline_from(today), recent_from(today)
    before = _studies(one for one in series if begin <= one.acquired_on < now)
    lately = [one for one in series if one.acquired_on >= now]
    recent = _studies(lately)
    group = Group(*key, Verdict.TOO_FEW, "", _spread(before), _spread(recent), None, None, _weeks(series))
    if key[2] != in_use:
        says = f"scored by an older network: not comparable with the scores of {in_use}"
        return replace(group, verdict=Verdict.SUPERSEDED, says=says)
    if all(one.median is None for one in series):
        return replace(group, says=f"nothing scored, most often: {_commonest([one.reason for one in series])}")
    if len(before) < LEAST_BASELINE:
        return replace(group, says=f"too few studies yet: {len(before)} of {LEAST_BASELINE} for a baseline")
    if len(recent) < LEAST_RECENT:
        says = f"too few studies in the last {RECENT_WEEKS} weeks: {len(recent)} of {LEAST_RECENT}"
        return replace(group, says=says + _unscored(lately))
    early = _studies(one for one in series if one.acquired_on < begin)
    slow = None
    if len(early) >= LEAST_BASELINE:
        slow = Slow(len(early), median(recent) - median(early), _p(early, recent))
    return replace(group, change=median(recent) - median(before), p=_p(before, recent), slow=slow)


def _unscored(series: Sequence[SeriesQuality]) -> str:
    reasons = [one.reason for one in series if one.median is None]
    return f"; {len(reasons)} series not scored, most often: {_commonest(reasons)}" if reasons else ""


def _decide(group: Group, comparisons: int) -> Group:
    if group.change is None or group.p is None:
        return group
    limit, moved = FALSE_ALARM / comparisons, abs(group.change) >= LEAST_CHANGE
    if moved and group.p < limit:
        says = f"{_way(group.change)} than its baseline by {abs(group.change):.2f} grades (p = {group.p:.1g})"
        return replace(group, verdict=Verdict.DRIFTED, says=says)
    slow = group.slow
    if slow is not None and abs(slow.change) >= LEAST_CHANGE and slow.p < limit:
        says = (
            f"{_way(slow.change)} than more than {RECENT_WEEKS + BASELINE_WEEKS} weeks ago by {abs(slow.change):.2f}"
            f" grades (p = {slow.p:.1g}), slowly: its baseline moved along"
        )
        return replace(group, verdict=Verdict.DRIFTED, says=says)
    chance = f": a change of {group.change:+.2f} may be chance (p = {group.p:.1g}, not below {limit:.1g})"
    return replace(group, verdict=Verdict.STEADY, says=Verdict.STEADY + (chance if moved else ""))


def _way(change: float) -> str:
    return "lower" if change < 0 else "higher"


def _p(before: Sequence[float], recent: Sequence[float]) -> float:
    from scipy.stats import mannwhitneyu  # here: the receiver imports this room, and must stay light

    return float(mannwhitneyu(recent, before).pvalue)


def _studies(series: Iterable[SeriesQuality]) -> list[float]:
    """One score per study: series of the same patient on the same day are no independent witnesses."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in series:
        if one.median is not None:
            found[one.study_instance_uid].append(one.median)
    return [median(scores) for scores in found.values()]


def _spread(scores: Sequence[float]) -> Spread | None:
    if not scores:
        return None
    ordered = sorted(scores)
    return Spread(len(ordered), ordered[0], percentile(ordered, 25), percentile(ordered, 50), percentile(ordered, 75))


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of ascending values, at least one; linear between neighbours."""
    place = percent / 100 * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _weeks(series: Sequence[SeriesQuality]) -> tuple[Week, ...]:
    by_monday: dict[dt.date, list[SeriesQuality]] = defaultdict(list)
    for one in series:
        by_monday[one.acquired_on - dt.timedelta(days=one.acquired_on.weekday())].append(one)
    return tuple(_week(monday, by_monday) for monday in sorted(by_monday))


def _week(monday: dt.date, by_monday: Mapping[dt.date, Sequence[SeriesQuality]]) -> Week:
    series = by_monday[monday]
    reasons = [one.reason for one in series if one.median is None]
    return Week(
        monday=monday,
        series=len(series),
        poor=sum(one.poor > 0 for one in series),
        unscored=len(reasons),
        reason=_commonest(reasons),
        scores=_spread(_studies(series)),
    )


def _commonest(reasons: Sequence[str]) -> str:
    return Counter(reasons).most_common(1)[0][0] if reasons else ""


def _scanner(name: str, days: Sequence[dt.date], today: dt.date) -> Scanner:
    last = days[-1]
    gaps = sorted((after - before).days for before, after in pairwise(days))
    every = (last - days[0]).days / len(gaps) if gaps else None
    seldom = len(days) < LEAST_DAYS
    longest = None if seldom else max(LEAST_SILENCE_DAYS, int(SILENCE_FACTOR * percentile(gaps, GAP_PERCENTILE)))
    silent = longest is not None and (today - last).days > longest
    usual = "one day only" if every is None else f"usually every {'day' if every < 1.05 else f'{every:.1f} days'}"
    if silent:
        says = f"nothing since {last} ({usual})"
    elif seldom:
        says = f"last images of {last}; on too few days to miss it: {len(days)} of {LEAST_DAYS}"
    else:
        says = f"last images of {last} ({usual})"
    return Scanner(name, len(days), last, every, longest, silent, says)
