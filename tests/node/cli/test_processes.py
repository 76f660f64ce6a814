from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from node.cli import home as homes
from node.db import migrate
from node.db.session import Database


def pacsnode(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: a process of the node sets up logging and signals."""
    command = [sys.executable, "-m", "node", "--home", str(home), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_no_process_works_on_a_database_of_another_release(home: Path) -> None:
    refused = pacsnode(home, "receive")
    assert refused.returncode == 2
    assert "run `pacsnode migrate`" in refused.stderr


def test_a_taken_port_is_a_wrong_setting_and_named(home: Path, empty: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = pacsnode(home, "receive", "--host", "127.0.0.1", "--port", port)
    assert refused.returncode == 2
    assert port in refused.stderr
    assert str(homes.load(home).port) == port  # what a process was given, other commands know


def test_migrate_goes_there_and_back_and_says_where_it_is(run) -> None:
    assert run("migrate", "--show").exit_code == 1
    assert f"database at {migrate.head()}," in run("migrate").stdout
    assert run("migrate", "--show").exit_code == 0
    assert "nothing yet" in run("migrate", "--down", "base").stdout


def test_going_down_needs_a_place_to_go_to(run) -> None:
    result = run("migrate", "--down")
    assert result.exit_code == 2
    assert "pacsnode migrate --down REVISION" in result.stderr


def test_a_header_with_a_wrong_value_does_not_bring_it_into_the_log() -> None:
    script = """
import logging
from pydicom.config import WARN
from pydicom.valuerep import validate_value
from node.cli.processes import log_without_patients
log_without_patients()
validate_value("DA", "SECRET-BIRTH", WARN)
logging.getLogger("node").info("ours")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "ours" in done.stderr
    assert "SECRET" not in done.stderr
