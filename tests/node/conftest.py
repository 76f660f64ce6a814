"""Fixtures of the service's tests: a migrated database of both kinds, an archive, seeded rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from system.stores import Postgres

from node.archive import Archive
from node.db import migrate
from node.db.session import Database
from node.jobs.record import seal_pending


@pytest.fixture(scope="session")
def postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Migrated and empty; every test that uses it runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'node.sqlite'}"
    else:
        url = request.getfixturevalue("postgres_cluster").new_database()
    database = Database(url, before_commit=seal_pending)
    migrate.upgrade(database)
    yield database
    database.close()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path / "archive")
    archive.prepare()
    return archive
