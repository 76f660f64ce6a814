"""A command that cannot write says who is in its way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from node.cli import busy
from node.cli.app import app
from node.cli.studies import open_database
from node.db.session import PATIENCE_S, Database, is_busy
from node.settings import Settings
from system.stores import Postgres

WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("writes", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def writer(seeded: Database, home: Path) -> Iterator[int]:
    """The id of another process that has begun to write and does not end."""
    command = [sys.executable, "-c", WRITER, str(home / "node.sqlite")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writes\n"
        yield process.pid
        process.kill()


def test_who_writes_is_named_by_process_and_program(writer: int, home: Path) -> None:
    assert f": process {writer} (python" in busy.words(Settings.load(home=home))


def test_a_process_of_this_node_is_named_as_such(writer: int, home: Path) -> None:
    (home / "run").mkdir()
    (home / "run" / "clock.pid").write_text(f"{writer}\n", encoding="ascii")
    assert f"`clock` of this node (process {writer}) writes" in busy.words(Settings.load(home=home))


def test_where_nobody_writes_any_more_nobody_is_named(seeded: Database, home: Path) -> None:
    assert "another process writes" in busy.words(Settings.load(home=home))


def test_a_command_ends_with_these_words_and_exit_code_3_and_leaves_everything(writer: int, home: Path) -> None:
    program = typer.Typer(cls=app.info.cls)

    @program.callback()
    def options(ctx: typer.Context) -> None:
        ctx.obj = home

    @program.command()
    def change() -> None:
        hasty = Database(Settings.load(home=home).sqlalchemy_url, patience_s=0.05)
        with hasty.write() as session:
            session.execute(text("DELETE FROM peer"))

    result = CliRunner().invoke(program, ["change"])
    assert result.exit_code == 3
    assert f"process {writer}" in result.stderr
    assert "locked" not in result.stderr
    patient = Database(Settings.load(home=home).sqlalchemy_url)
    with patient.read() as session:
        assert session.execute(text("SELECT count(*) FROM peer")).scalar_one() == 2


def test_commands_that_people_type_wait_less_long_than_the_node(seeded: Database, home: Path) -> None:
    context = typer.Context(typer.main.get_command(app), obj=home)
    assert open_database(context).patience_s == busy.PATIENCE_S < PATIENCE_S


def test_a_lock_of_postgresql_is_waited_for_as_long(postgres_cluster: Postgres) -> None:
    url = postgres_cluster.new_database()
    holder, hasty = Database(url), Database(url, patience_s=0.05)
    with holder.write() as session:
        session.execute(text("CREATE TABLE thing (a int)"))
    with holder.write() as session:
        session.execute(text("LOCK TABLE thing"))
        with pytest.raises(OperationalError) as caught, hasty.write() as other:
            other.execute(text("DELETE FROM thing"))
    holder.close()
    hasty.close()
    assert is_busy(caught.value)
    assert "pg_stat_activity" in busy.words(Settings.load(database_url=url))
