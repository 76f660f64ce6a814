"""Fixtures of the service's tests: a migrated database of both kinds, an archive, seeded rows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from node.archive import Archive
from node.db import migrate
from node.db.session import Database
from node.jobs.record import seal_pending
from system.stores import Postgres


@pytest.fixture(scope="session")
def postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def migrated_postgres(postgres_cluster: Postgres) -> str:
    """Name of a database that others are made of: copying it takes a part of what migrating another would."""
    url = postgres_cluster.new_database()
    _migrated(url)
    return url.rsplit("/", 1)[1]


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that others are copies of, whole without its write-ahead log."""
    path = tmp_path_factory.mktemp("migrated") / "node.sqlite"
    _migrated(f"sqlite:///{path}")
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return path


def _migrated(url: str) -> None:
    database = Database(url)
    migrate.upgrade(database)
    database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Migrated and empty; every test that uses it runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        path = shutil.copyfile(request.getfixturevalue("migrated_sqlite"), tmp_path / "node.sqlite")
        database = Database(f"sqlite:///{path}", before_commit=seal_pending)
        event.listen(database.engine, "connect", _trust_the_power)
    else:
        template = request.getfixturevalue("migrated_postgres")
        url = request.getfixturevalue("postgres_cluster").new_database(template)
        database = Database(url, before_commit=seal_pending)
    yield database
    database.close()


def _trust_the_power(connection: Any, _record: Any) -> None:
    """No power is cut under a test: the disk is not waited for, as in the cluster."""
    connection.execute("PRAGMA synchronous=OFF")


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path / "archive")
    archive.prepare()
    return archive
