"""/quality: the watch over image quality as one page. No scripts, nothing from elsewhere, no patient data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from html import escape

from fastapi.responses import HTMLResponse, Response

from node.db import quality, readiness, watch
from node.db.session import Database
from node.db.watch import (
    BASELINE_WEEKS,
    CAUTION,
    HISTORY_WEEKS,
    RECENT_WEEKS,
    RULES,
    Group,
    Scanner,
    Spread,
    Verdict,
    Watch,
    Week,
)
from node.web.chart import chart

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
}
_NONE_YET = (
    "No series has been scored yet. Either no CT series that the networks can read has come in since, or no trained"
    " network for image quality is on offer here: the report of each study says which."
)
_CHARTS = (
    "Charts: each bar reaches from the first to the third quartile of a week's studies, and its dot is the median; 0 is"
    " bad and 4 excellent. The grey band and the dashed line are the quartiles and the median of the baseline; the"
    " shaded ground is the time that is held against it."
)
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --soft: #5b6670; --paper: #fff; --ground: #f3f5f7; --line: #d5dbe0;
  --mark: #2463a8; --alert: #b3261e; --alert-ground: #fbe9e7; --fine: #1e6b3a; --fine-ground: #e6f3ea;
  --judged: #eef2f6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8eb; --soft: #9aa6b0; --paper: #1b2025; --ground: #121619;
  --line: #38414a; --mark: #7db4ef; --alert: #ff8a80; --alert-ground: #3a1f1d; --fine: #8fd6a6;
  --fine-ground: #17301f; --judged: #242b32; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .2rem 0; } h2 { font-size: 1.15rem; margin: 1.8rem 0 .2rem; }
h3 { font-size: 1rem; margin: 0; } p { margin: .3rem 0; } a { color: var(--mark); }
.soft, footer { color: var(--soft); } footer { margin-top: 2rem; border-top: 1px solid var(--line); max-width: 60rem; }
.flags, .fine { border-left: 4px solid; border-radius: 4px; padding: .6rem .9rem; margin: 1rem 0; }
.flags { border-color: var(--alert); background: var(--alert-ground); }
.fine { border-color: var(--fine); background: var(--fine-ground); }
.flags ul { margin: .3rem 0; padding-left: 1.2rem; }
.cards { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); }
article { background: var(--paper); border: 1px solid var(--line); border-radius: 6px; padding: .7rem .8rem; }
article.drifted { border-color: var(--alert); }
.badge { font-weight: 600; } .drifted .badge, .silent { color: var(--alert); } .steady .badge { color: var(--fine); }
article:has(details[open]) { grid-column: 1 / -1; }
svg { display: block; width: 100%; max-width: 30rem; height: auto; margin: .4rem 0; font: 11px system-ui, sans-serif; }
svg text { fill: var(--soft); } svg .grid { stroke: var(--line); } svg rect.judged { fill: var(--judged); }
rect.baseline { fill: var(--soft); opacity: .22; } line.baseline { stroke: var(--soft); stroke-dasharray: 4 3; }
line.usual { stroke: var(--mark); stroke-width: 1.5; } rect.usual { fill: var(--mark); opacity: .35; }
circle.usual { fill: var(--mark); } line.flagged { stroke: var(--alert); stroke-width: 1.5; }
rect.flagged { fill: var(--alert); opacity: .35; } circle.flagged { fill: var(--alert); }
details { margin-top: .3rem; } summary { color: var(--soft); cursor: pointer; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; overflow-wrap: normal; }
th, td { text-align: right; padding: .15rem .5rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child, td:last-child { text-align: left; } td:last-child { white-space: normal; }
"""


def page(database: Database, *, aet: str, today: dt.date) -> Response:
    """The watch of that day; 503 in words where the database cannot be read."""
    lack = readiness.lack(database)
    if lack is not None:
        return _answer(aet, f'<p class="flags">The database {escape(lack)}.</p>', status=503)
    with database.read() as session:
        found = watch.look(session, today=today)
        last = None if found.groups else quality.last_acquired(session)
    return _answer(aet, _watch(found) if found.groups else _nothing(last, today))


def _answer(aet: str, body: str, *, status: int = 200) -> Response:
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>pacsnode: image quality</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f'<p class="soft"><a href="/">pacsnode</a>, AE title {escape(aet)}. Research use, not a medical device.</p>'
        f"<h1>Image quality</h1>{body}{_footer()}</body></html>\n"
    )
    return HTMLResponse(text, status_code=status, headers=HEADERS)


def _footer() -> str:
    texts = "".join(f"<p>{escape(text)}</p>" for text in (CAUTION, *RULES, _CHARTS))
    return f"<footer><h2>How to read this</h2>{texts}</footer>"


def _nothing(last: dt.date | None, today: dt.date) -> str:
    if last is None:
        return f"<p>{_NONE_YET}</p>"
    return f"<p>Nothing in the {HISTORY_WEEKS} weeks up to {today}. The newest series that was scored is of {last}.</p>"


def _watch(found: Watch) -> str:
    order = {scanner.name: number for number, scanner in enumerate(found.scanners)}
    drifted = {group.scanner for group in found.drifted}
    first = sorted(found.scanners, key=lambda s: (not s.silent and s.name not in drifted, order[s.name]))
    sections = (_scanner(found, scanner, number) for number, scanner in enumerate(first))
    return _verdict(found, [scanner.name for scanner in first]) + "".join(sections)


def _verdict(found: Watch, order: Sequence[str]) -> str:
    compared = f"{found.today}: {found.compared} of {_count(found)} compared with their baselines."
    if not found.silent and not found.drifted:
        return f'<div class="fine"><p>Nothing drifted, and no scanner fell silent.</p><p>{compared}</p></div>'
    flags = [(scanner.name, f"{scanner.name}: {scanner.says}") for scanner in found.silent]
    flags += [(group.scanner, f"{group.scanner}, {group.protocol}: {group.says}") for group in found.drifted]
    items = "".join(f'<li><a href="#s{order.index(name)}">{escape(text)}</a></li>' for name, text in flags)
    hint = "<p>Every scanner is silent: look at the node, and at what sends to it, first.</p>"
    return f'<div class="flags"><ul>{items}</ul>{hint if found.all_silent else ""}<p>{compared}</p></div>'


def _count(found: Watch) -> str:
    number = sum(group.verdict is not Verdict.SUPERSEDED for group in found.groups)
    return f"{number} scanner-and-protocol pair{'s' if number != 1 else ''}"


def _scanner(found: Watch, scanner: Scanner, number: int) -> str:
    groups = [group for group in found.groups if group.scanner == scanner.name]
    shown = [group for group in groups if group.verdict is not Verdict.SUPERSEDED]
    older = "".join(
        f'<p class="soft">{escape(group.protocol)}: {escape(group.says)} ({escape(group.model)}).</p>'
        for group in groups
        if group.verdict is Verdict.SUPERSEDED
    )
    cards = "".join(_card(group, found.today) for group in shown)
    kind = "silent" if scanner.silent else "soft"
    return (
        f'<section id="s{number}"><h2>{escape(scanner.name)}</h2><p class="{kind}">{escape(_upper(scanner.says))}.</p>'
        f'<div class="cards">{cards}</div>{older}</section>'
    )


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _card(group: Group, today: dt.date) -> str:
    kind = {Verdict.DRIFTED: "drifted", Verdict.STEADY: "steady"}.get(group.verdict, "few")
    return (
        f'<article class="{kind}"><h3>{escape(group.protocol)}</h3><p class="badge">{escape(_upper(group.says))}</p>'
        f"{_scores(group, today)}"
        f'<details><summary>Week by week</summary><div class="wide">{_table(group.weeks)}</div></details></article>'
    )


def _scores(group: Group, today: dt.date) -> str:
    if group.recent is None and group.before is None:
        return f'<p class="soft">Nothing scored in the last {RECENT_WEEKS + BASELINE_WEEKS} weeks.</p>'
    return (
        f'{chart(group, today)}<p class="soft">Last {RECENT_WEEKS} weeks: {_median(group.recent)}.'
        f" {BASELINE_WEEKS} weeks before: {_median(group.before)}. Scored by {escape(group.model)}.</p>"
    )


def _median(spread: Spread | None) -> str:
    if spread is None:
        return "nothing"
    return f"{spread.median:.2f} ({spread.studies} {'study' if spread.studies == 1 else 'studies'})"


def _table(weeks: Sequence[Week]) -> str:
    names = ("week", "series", "studies", "lowest", "25 %", "median", "75 %", "with poor images", "not scored", "why")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><tr>{head}</tr>{''.join(_row(week) for week in reversed(weeks))}</table>"


def _row(week: Week) -> str:
    scores = week.scores
    values = ("", "", "", "") if scores is None else (scores.lowest, scores.lower, scores.median, scores.upper)
    shown = [value if isinstance(value, str) else f"{value:.2f}" for value in values]
    cells = [week.name, week.series, scores.studies if scores else 0, *shown, week.poor, week.unscored, week.reason]
    return "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>"
