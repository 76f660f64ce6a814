"""What `check` says of the audit repository."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from sqlalchemy import text

from network.certificates import Authority
from network.repository import Datagrams, Receiver, mutual
from node.db import feed, trail
from node.db.session import Database


def tried(run) -> dict[str, tuple[str, str]]:
    found = json.loads(run("check", "--json", "--no-models").stdout)["tried"]
    return {one["what"]: (one["verdict"], one["found"]) for one in found if "audit" in one["what"]}


def told(database: Database, number: int, *, trouble: str = "") -> None:
    now = dt.datetime.now(dt.UTC)
    with database.write() as session:
        assert feed.claim(session, "clock", at=now, until=now)
        assert feed.advance(session, "clock", number, at=now, until=now)
        if trouble:
            feed.note_trouble(session, "clock", trouble, at=now)


def test_without_a_repository_nothing_is_at_fault(run, seeded: Database) -> None:
    assert tried(run) == {"audit repository": ("ok", "none is set (PACSNODE_AUDIT_URL): the trail stays here")}


def test_a_repository_that_has_been_told_all_is_fine(run, seeded: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with seeded.read() as session:
        newest = trail.head(session).number
    told(seeded, newest)
    with Receiver() as there:
        monkeypatch.setenv("PACSNODE_AUDIT_URL", f"tcp://127.0.0.1:{there.port}")
        found = tried(run)
        assert there.messages == []
    assert found["audit repository"] == ("ok", f"127.0.0.1:{there.port} (tcp) answers")
    assert found["audit messages"] == ("ok", f"all {newest} events of the trail have been told")


def test_one_that_is_away_and_events_that_wait_too_long_are_faults(
    run, seeded: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(seeded, 1, trouble="10.0.0.1:6514 (tls): Connection refused")
    monkeypatch.setenv("PACSNODE_AUDIT_URL", "tcp://127.0.0.1:1")
    found = tried(run)
    assert found["audit repository"] == ("fault", "127.0.0.1:1 (tcp): Connection refused")
    verdict, words = found["audit messages"]
    assert verdict == "note"  # since a moment ago
    assert words.startswith("events that wait to be told: ")
    assert words.endswith("UTC: 10.0.0.1:6514 (tls): Connection refused")
    with seeded.write() as session:
        session.execute(text("UPDATE audit_event SET at = '2026-01-15T07:10:00.000000+00:00'"))
    assert tried(run)["audit messages"][0] == "fault"


def test_over_udp_nothing_is_promised(run, seeded: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with Datagrams() as there:
        monkeypatch.setenv("PACSNODE_AUDIT_URL", f"udp://127.0.0.1:{there.port}")
        assert tried(run)["audit repository"][0] == "note"


def test_a_certificate_of_its_own_that_ends_soon_is_said(
    run, seeded: Database, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    authority = Authority(tmp_path / "authority", "Hospital")
    ours = authority.issue("node")
    with Receiver(tls=mutual(authority.issue("repository"), authority)) as there:
        monkeypatch.setenv("PACSNODE_AUDIT_URL", f"tls://127.0.0.1:{there.port}")
        assert tried(run)["audit repository"][0] == "fault"  # no certificate at all
        for name, path in (
            ("CERTIFICATE", ours.certificate),
            ("KEY", ours.key),
            ("AUTHORITIES", authority.certificate),
        ):
            monkeypatch.setenv(f"PACSNODE_AUDIT_{name}", str(path))
        assert tried(run)["audit repository"][0] == "ok"
        assert "our certificate ends on" in run("check", "--no-models").stdout
