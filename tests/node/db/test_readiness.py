from __future__ import annotations

from pathlib import Path

from node.db import migrate, readiness
from node.db.session import Database


def test_a_migrated_database_lacks_nothing(database: Database) -> None:
    assert readiness.lack(database) is None


def test_a_database_of_another_release_is_told_what_to_do(database: Database) -> None:
    migrate.downgrade(database, "base")
    assert "stands at nothing" in (readiness.lack(database) or "")
    assert "`pacsnode migrate`" in (readiness.lack(database) or "")


def test_a_database_that_is_not_there_is_said_without_its_address(tmp_path: Path) -> None:
    away = Database(f"sqlite:///{tmp_path / 'no-such-folder' / 'node.sqlite'}")
    assert readiness.lack(away) == "does not answer (OperationalError)"
