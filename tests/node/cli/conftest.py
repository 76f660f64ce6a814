"""A home with seeded studies, and the command line as a function."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from node import wiring
from node.cli.app import app
from node.db.session import Database
from node.settings import Settings
from seeded.rows import seed

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"PACSNODE_{name.upper()}", raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def empty(home: Path, migrated_sqlite: Path) -> Database:
    """The migrated database of `home`."""
    database = wiring.build(Settings.load(home=home)).database
    shutil.copyfile(migrated_sqlite, str(database.engine.url.database))
    return database


@pytest.fixture
def seeded(empty: Database) -> Database:
    seed(empty)
    return empty


@pytest.fixture
def run(home: Path) -> Run:
    def invoke(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, ["--home", str(home), *map(str, arguments)])

    return invoke
