from __future__ import annotations

import datetime as dt
import re
from html.parser import HTMLParser

from node.db import migrate
from node.db.watch import CAUTION, RULES
from seeded.scores import CHEST, FORCE, add_score, add_weeks

TODAY = dt.date(2026, 11, 20)  # a Friday
PAGE = f"/quality?on={TODAY}"
NASTY = "<script>alert(1)</script> \"&' CT"


class Page(HTMLParser):
    """Elements and text; fails on an element that is closed out of turn."""

    VOID = ("meta", "line", "rect", "circle", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def test_nothing_scored_yet_says_why_that_may_be(site) -> None:
    answer = site.client.get(PAGE)
    assert answer.status_code == 200
    assert "No series has been scored yet" in answer.text
    assert "no trained network" in answer.text
    assert "&lt;CHEST&gt;" in answer.text


def test_old_scores_alone_are_said_with_their_day(site) -> None:
    with site.database.write() as session:
        add_score(session, "1.1", dt.date(2020, 5, 4), 2.0)
    assert (
        "Nothing in the 26 weeks up to 2026-11-20. The newest series that was scored is of 2020-05-04"
        in site.client.get(PAGE).text
    )


def test_flags_come_first_and_lead_to_their_scanner(site) -> None:
    with site.database.write() as session:
        add_weeks(session, "1.1", TODAY, level=2.6, recent_level=1.8, scanner="Zeta")
        add_weeks(session, "1.2", TODAY, level=3.0, scanner="Alpha")
        add_weeks(session, "1.3", TODAY, level=3.0, scanner="Beta", until_days_ago=20)
    text = site.client.get(PAGE).text
    found = re.findall(r'<li><a href="#(s\d)">(.*?)</a></li>', text)
    since = TODAY - dt.timedelta(days=21)
    assert found[0] == ("s0", f"Beta: nothing since {since} (usually every 2.0 days)")
    assert found[1][0] == "s1"
    assert found[1][1].startswith(f"Zeta, {CHEST}: lower than its baseline by 0.")
    assert re.findall(r'<section id="(s\d)"><h2>(.*?)</h2>', text) == [("s0", "Beta"), ("s1", "Zeta"), ("s2", "Alpha")]
    assert "2 of 3 scanner-and-protocol pairs compared" in text
    assert (text.count('<article class="drifted">'), text.count('<article class="steady">')) == (1, 1)


def test_all_well_is_said(site) -> None:
    with site.database.write() as session:
        add_weeks(session, "1.1", TODAY, level=2.6)
    text = site.client.get(PAGE).text
    assert "Nothing drifted, and no scanner fell silent." in text
    assert "1 of 1 scanner-and-protocol pair compared" in text
    assert 'class="flags"' not in text


def test_too_few_studies_are_said_with_numbers(site) -> None:
    with site.database.write() as session:
        add_weeks(session, "1.1", TODAY, level=2.6, from_days_ago=42, days_apart=7)
    assert "Too few studies yet: 3 of 20 for a baseline" in site.client.get(PAGE).text


def test_what_an_older_network_said_is_named_and_not_drawn(site) -> None:
    with site.database.write() as session:
        add_score(session, "1.1", TODAY - dt.timedelta(days=9), 2.0, model="old 1")
        add_score(session, "1.2", TODAY, 2.0, model="new 2")
    text = site.client.get(PAGE).text
    assert text.count("<svg") == 1
    assert "not comparable with the scores of new 2 (old 1)" in text


def test_texts_of_headers_are_never_markup(site) -> None:
    with site.database.write() as session:
        add_weeks(session, "1.1", TODAY, level=2.6, recent_level=1.8, scanner=NASTY, protocol=f"P {NASTY}")
        add_score(session, "1.9", TODAY, None, scanner=NASTY, protocol="Q", reason=f"R {NASTY}", model=f"M {NASTY}")
    answer = site.client.get(PAGE).text
    page = Page(answer)
    assert "script" not in page.names
    assert "<script" not in answer
    for text in (NASTY, f"P {NASTY}", f"R {NASTY}"):
        assert text in page.text
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert labels[0] is not None
    assert labels[0].startswith(f"{NASTY}, P {NASTY}: median ")


def test_the_page_needs_nothing_but_itself(site) -> None:
    with site.database.write() as session:
        add_weeks(session, "1.1", TODAY, level=2.6)
    answer = site.client.get(PAGE)
    page = Page(answer.text)
    assert {"script", "link", "img", "iframe", "form"} & set(page.names) == set()
    targets = [value for name, value in page.attributes if name in ("src", "href", "action") or name.startswith("on")]
    assert set(targets) == {"/"}
    assert "url(" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "prefers-color-scheme: dark" in answer.text
    assert ("viewport", "width=device-width, initial-scale=1") in zip(
        *[[value for name, value in page.attributes if name == wanted] for wanted in ("name", "content")], strict=True
    )


def test_no_patient_and_no_study_is_shown(site) -> None:
    with site.database.write() as session:
        add_weeks(session, "1.2.3.77", TODAY, level=2.6)
    text = site.client.get(PAGE).text
    for secret in ("P-77", "SECRET", "ACC-77", "1.2.3", "P-1", "PHANTOM"):
        assert secret not in text


def test_the_rules_and_the_caution_stand_at_the_end(site) -> None:
    text = Page(site.client.get(PAGE).text).text
    for said in (CAUTION, *RULES):
        assert said in text
    assert "Its scale was set by physics, not by readers" in text


def test_weeks_can_be_read_as_numbers(site) -> None:
    monday = TODAY - dt.timedelta(days=TODAY.weekday())
    with site.database.write() as session:
        for number, score in enumerate((1.0, 2.0, 3.0, 4.0, 1.5)):
            add_score(session, f"1.{number}", monday, score, poor=number % 2)
        add_score(session, "1.8", monday, None, reason="a head")
    year, week, _ = monday.isocalendar()
    cells = re.findall(r"<td>(.*?)</td>", site.client.get(PAGE).text)
    assert cells == [f"{year}-W{week:02d}", "6", "5", "1.00", "1.50", "2.00", "3.00", "2", "1", "a head"]


def test_a_scanner_that_is_never_scored_has_no_empty_chart(site) -> None:
    with site.database.write() as session:
        add_score(session, "1.8", TODAY, None, reason="a head")
    text = site.client.get(PAGE).text
    assert "Nothing scored, most often: a head" in text
    assert "<svg" not in text
    assert FORCE in text


def test_without_a_usable_database_it_is_503_and_says_why(site) -> None:
    migrate.downgrade(site.database, "0001")
    answer = site.client.get(PAGE)
    assert answer.status_code == 503
    assert "pacsnode migrate" in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_the_front_page_leads_here(site) -> None:
    assert 'href="/quality"' in site.client.get("/").text


def test_without_a_day_it_is_today(site) -> None:
    before = dt.date.today()
    with site.database.write() as session:
        add_score(session, "1.1", before, 2.0)
    text = site.client.get("/quality").text
    assert f"{before}: 0 of 1" in text or f"{dt.date.today()}: 0 of 1" in text


def test_what_is_no_day_is_refused(site) -> None:
    assert site.client.get("/quality?on=yesterday").status_code == 422
