from __future__ import annotations

from node.archive import Archive
from node.db import migrate
from node.web import health


def readiness(site) -> tuple[int, dict[str, str]]:
    answer = site.client.get("/readyz")
    return answer.status_code, answer.json()["parts"]


def test_a_node_whose_parts_all_answer_is_ready(site) -> None:
    assert readiness(site) == (200, dict.fromkeys(("database", "broker", "receiver", "archive"), "ok"))


def test_a_broker_that_is_away_is_named_without_its_address(site) -> None:
    site.broker_is_away.append(True)
    status, parts = readiness(site)
    assert (status, parts["broker"]) == (503, "does not answer (ConnectionError)")


def test_a_receiver_that_does_not_listen_is_named(site) -> None:
    site.receiver.close()
    status, parts = readiness(site)
    assert status == 503
    assert "does not answer" in parts["receiver"]


def test_a_database_of_another_release_is_named_with_its_remedy(site) -> None:
    migrate.downgrade(site.database, "base")
    status, parts = readiness(site)
    assert status == 503
    assert "pacsnode migrate" in parts["database"]


def test_an_archive_without_room_is_named(site) -> None:
    full = Archive(site.archive.root, watermark_percent=0.0001)
    assert "full" in (health._archive(full) or "")
    gone = Archive(site.archive.root / "gone")
    assert "cannot be looked at" in (health._archive(gone) or "")
