"""The trail over HTTP: who may read it, what is found, page by page, and that reading is on record."""

from __future__ import annotations

import datetime as dt
from typing import Any
from urllib.parse import urlsplit

import pytest

from node.archive import Archive
from node.audit.events import Action
from node.db.session import Database
from node.db.tables import AuditEventRow
from node.jobs.record import record
from node.jobs.telling import Trail
from node.settings import Settings
from node.web.app import make_app
from seeded.rows import INCOMPLETE, RUNNING

from .conftest import TOKEN, Client

BEARER = {"authorization": f"Bearer {TOKEN}"}
HERE = "/fhir/AuditEvent"


def found(site: Any, query: str = "", status: int = 200) -> dict[str, Any]:
    answer = site.client.get(HERE + query, **BEARER)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/fhir+json")
    body: dict[str, Any] = answer.json()
    return body


def subtypes(bundle: dict[str, Any]) -> list[str]:
    resources = [entry["resource"] for entry in bundle.get("entry", [])]
    return [(event.get("subtype") or [event["type"]])[-1]["code"] for event in resources]


def ids(bundle: dict[str, Any]) -> list[str]:
    return [entry["resource"]["id"] for entry in bundle.get("entry", [])]


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer "}, {"authorization": f"Bearer {TOKEN}x"}, {"authorization": f"Basic {TOKEN}"}],
)
def test_without_the_token_nobody_reads(site: Any, headers: dict[str, str]) -> None:
    for path in (HERE, HERE + "/1"):
        answer = site.client.get(path, **headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["resourceType"] == "OperationOutcome"


def test_without_a_token_in_the_settings_nobody_reads(database: Database, archive: Archive, tmp_path: Any) -> None:
    settings = Settings.load(home=tmp_path)
    ask = Trail(settings, database).ask
    app = make_app(settings, database=database, archive=archive, ping_broker=lambda: None, ask=ask)
    for headers in ({}, {"authorization": "Bearer "}, BEARER):
        answer = Client(app).get(HERE, **headers)
        assert answer.status_code == 403
        assert "PACSNODE_AUDIT_TOKEN" in answer.text


def test_a_reading_is_on_record_with_the_address_and_the_question(site: Any) -> None:
    found(site, "?patient=P-1&date=ge2026-01-01")
    with site.database.read() as session:
        *_, last = session.query(AuditEventRow).order_by(AuditEventRow.number)
    assert (last.action, last.actor, last.patient_id) == ("trail.queried", "audit-token@127.0.0.1", "P-1")
    assert last.detail["question"] == {"over": "fhir", "since": "2026-01-01T00:00:00.000000+00:00"}
    assert subtypes(found(site, "?subtype=trail")) == ["trail.queried"]


def test_a_search_narrows(site: Any) -> None:
    assert set(subtypes(found(site, f"?entity={RUNNING}"))) == {"instance.stored"}
    assert ids(found(site, f"?entity=urn:oid:{RUNNING}")) == ids(found(site, f"?entity.identifier=x|{RUNNING}"))
    by_patient = found(site, "?patient.identifier=P-3")
    assert subtypes(by_patient) == ["instance.stored", "delivery.dead"]  # the second names only a study of P-3
    assert subtypes(found(site, "?entity=P-3")) == ["instance.stored", "delivery.dead", "trail.queried"]
    assert ids(found(site, f"?entity={INCOMPLETE}")) == ids(by_patient)
    assert subtypes(found(site, "?outcome=8")) == ["delivery.dead"]
    assert set(subtypes(found(site, "?agent=CT1&subtype=instance"))) == {"instance.stored"}
    assert "entry" not in found(site, "?agent=CT1&subtype=instance.conflict")


def test_dates_are_spans_of_time(site: Any) -> None:
    today = dt.datetime.now(dt.UTC).date()
    yesterday, tomorrow = today - dt.timedelta(days=1), today + dt.timedelta(days=1)
    all_of_it = len(ids(found(site, "?subtype=instance")))
    for query, is_all in {
        f"date={today}": True,
        f"date=ge{today}&date=lt{tomorrow}": True,
        f"date=gt{today}": False,
        f"date=le{today}": True,
        f"date=lt{today}": False,
        f"date={today.year}": True,
        f"date=eq{today:%Y-%m}": True,
        f"date=ge{yesterday}T00:00:00%2B14:00": True,
        f"date=ge{yesterday}T23:59:59.5Z&date=ge2020": True,
        "date=lt2020-02": False,
    }.items():
        count = len(ids(found(site, f"?subtype=instance&{query}")))
        assert count == (all_of_it if is_all else 0), query


@pytest.mark.parametrize(
    "query",
    ["colour=blue", "date=yesterday", "date=sa2026-01-01", "date=ge2026-13", "_count=x", "_after=-1", "outcome=5",
     "entity=", "patient=a&patient=b", "_count=1&_count=2", "date=ge9999-12-31T23:59:59Z&date=9999", "entity=%00"],
)  # fmt: skip
def test_what_cannot_be_carried_out_is_said_and_shows_nothing(site: Any, query: str) -> None:
    body = found(site, f"?{query}", status=400)
    assert body["resourceType"] == "OperationOutcome"
    assert body["issue"][0]["diagnostics"]


def test_pages_walk_the_trail_once_to_its_end_while_it_grows(site: Any) -> None:
    with site.database.write() as session:
        for _ in range(7):
            record(session, Action.NODE_STARTED, actor="test")
    seen, path = [], "?_count=3"
    for _ in range(20):
        page = found(site, path)
        assert len(page.get("entry", [])) <= 3
        seen += ids(page)
        following = [link["url"] for link in page["link"] if link["relation"] == "next"]
        if not following:
            break
        path = "?" + urlsplit(following[0]).query
    with site.database.read() as session:
        before = session.query(AuditEventRow).filter(AuditEventRow.action != "trail.queried").count()
    assert seen == [str(number) for number in range(1, before + 1)]


def test_an_event_is_read_by_its_number(site: Any) -> None:
    one = site.client.get(HERE + "/1", **BEARER)
    assert (one.status_code, one.json()["id"]) == (200, "1")
    for identity in ("0", "999999", "1.7", "x", "1e3", "9" * 40):
        assert site.client.get(f"{HERE}/{identity}", **BEARER).status_code == 404


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_while_the_database_is_away_that_is_said(site: Any) -> None:
    site.database.close()
    with site.database.write() as session:
        session.connection().exec_driver_sql("DROP TABLE alembic_version")
    assert "database" in found(site, status=503)["issue"][0]["diagnostics"]
