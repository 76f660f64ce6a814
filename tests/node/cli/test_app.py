from __future__ import annotations

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from sqlalchemy import text
from typer.testing import CliRunner

from node.cli import words
from node.cli.app import app
from node.db.session import Database
from seeded.rows import DELIVERED

WITHOUT_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "safetensors", "models.catalogue"):
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
from node.cli import main
sys.argv = ["pacsnode", *sys.argv[1:]]
main()
"""
PROCESSES = ["up", "receive", "infer", "deliver", "clock", "web", "migrate"]
QUESTIONS = [
    *("check", "demo", "studies", "study", "resend", "retry", "audit", "quality", "send", "train", "evaluate", "peers"),
    "conformance",
]


def without_torch(*arguments: str | Path, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.mark.parametrize("command", [*PROCESSES, *QUESTIONS])
def test_every_command_is_listed_and_explains_itself(run, command: str) -> None:
    assert f" {command} " in run("--help").stdout
    explained = run(command, "--help")
    assert explained.exit_code == 0
    assert "Usage:" in explained.stdout


@pytest.mark.parametrize(
    "command",
    [
        *(["up"], ["check"], ["demo"], ["studies"], ["study"], ["resend"], ["retry"], ["audit"]),
        *(["audit", "verify"], ["quality"], ["send"], ["conformance"]),
        *(["peers", "apply"], ["peers", "list"], ["peers", "echo"], ["train", "lidnet"], ["evaluate", "lidnet"]),
    ],
)
def test_help_shows_a_line_to_copy(run, command: list[str]) -> None:
    lines = [line.strip() for line in run(*command, "--help").stdout.splitlines()]
    assert any(line.startswith("pacsnode ") and " ".join(command) in line for line in lines)


def test_the_help_lists_every_exit_code(run) -> None:
    listed = " ".join(run("--help").stdout.split())
    for code, meaning in words.EXIT_CODES.items():
        assert f"{code} {meaning}" in listed


def test_the_version_is_told(run) -> None:
    assert run("--version").stdout.startswith("pacsnode ")


def test_what_failed_is_run_again_from_a_machine_whose_torch_is_broken(seeded: Database, home: Path) -> None:
    done = without_torch("--home", home, "retry", DELIVERED)
    assert (done.returncode, done.stderr) == (1, "no analysis of revision 1 has failed\n")


@pytest.mark.parametrize("command", [["studies"], ["study", DELIVERED], ["audit"], ["peers", "list"]])
def test_questions_are_answered_on_a_machine_whose_torch_is_broken(
    seeded: Database, home: Path, command: list[str]
) -> None:
    done = without_torch("--home", home, *command)
    assert (done.returncode, done.stderr) == (0, "")


def test_check_says_that_torch_is_broken_and_goes_on(seeded: Database, home: Path) -> None:
    done = without_torch("--home", home, "check")
    assert done.returncode == 1
    assert "models: cannot be imported (torch is blocked)" in done.stdout
    assert "ok    database" in done.stdout


def test_a_wrong_setting_is_exit_code_2_and_names_the_setting(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACSNODE_AET", "MUCH TOO LONG FOR AN AE TITLE")
    result = run("studies")
    assert result.exit_code == 2
    assert "settings: aet: an AE title has 1 to 16" in result.stderr


def test_a_database_that_fails_is_exit_code_3_without_its_statement(run, seeded: Database) -> None:
    with seeded.write() as session:
        session.execute(text("DROP TABLE conflict"))
    result = run("study", DELIVERED)
    assert result.exit_code == 3
    assert "no such table" in result.stderr
    assert "SELECT" not in result.stderr


def test_bytes_that_are_no_text_are_not_a_defect_of_the_program(seeded: Database, home: Path) -> None:
    command = [sys.executable, "-m", "node", "--home", home, "study", b"\xff"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, "what was typed is not text in UTF-8\n")


def test_who_may_not_read_is_told_which_file() -> None:
    program = typer.Typer(cls=app.info.cls)

    @program.command()
    def read() -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/srv/node/node.sqlite")

    program.command("other")(lambda: None)
    result = CliRunner().invoke(program, ["read"])
    assert result.exit_code == 2
    assert "/srv/node/node.sqlite: Permission denied. Be the user" in result.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_nothing_is_not_a_defect_of_the_program(number: int) -> None:
    program = typer.Typer(cls=app.info.cls)

    @program.command()
    def up() -> None:
        raise OSError(number, os.strerror(number), "/srv/node/run/up.lock")

    program.command("other")(lambda: None)
    result = CliRunner().invoke(program, ["up"])
    assert (result.exit_code, result.stderr) == (3, f"/srv/node/run/up.lock: {os.strerror(number)}\n")


def test_a_full_disk_behind_the_output_is_not_a_defect_of_the_program(seeded: Database, home: Path) -> None:
    command = [sys.executable, "-m", "node", "--home", str(home), "studies"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (3, "what was to be written: No space left on device\n")


def test_python_dash_m_node_is_pacsnode() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "node", "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("pacsnode ")


def test_a_mistyped_setting_is_said_on_standard_error_and_its_value_is_not(
    run, seeded: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACSNODE_DATABSE_URL", "postgresql://u:secret@db/x")
    result = run("studies", "--json")
    assert "did you mean PACSNODE_DATABASE_URL?" in result.stderr
    assert "secret" not in result.stderr
    assert json.loads(result.stdout)
    tried = json.loads(run("check", "--no-models", "--json").stdout)["tried"]
    assert [one["found"] for one in tried if one["what"] == "settings"] == [result.stderr.strip()]


def examples() -> list[str]:
    """Commands as help and documents show them, without what stands behind them in a list."""
    root = Path(__file__).parents[3]
    shown = []
    for source in sorted((root / "node/cli").glob("*.py")):
        whole_lines = re.sub(r"\\\\\n +", "", source.read_text(encoding="utf8"))
        shown += re.findall(r"^ +(pacsnode (?:\S| (?! ))*)", whole_lines, re.MULTILINE)
    for document in ("README.md", "deploy/README.md"):
        shown += re.findall(r"`(pacsnode [^`\n…]*)`", (root / document).read_text(encoding="utf8"))
    guide = (root / "deploy/HARVEST.md").read_text(encoding="utf8")
    shown += re.findall(r"^ +(pacsnode (?:\S| (?! ))*)", guide, re.MULTILINE)
    return sorted({one for one in shown if one != "pacsnode study"})


@pytest.mark.parametrize("example", examples())
def test_an_example_is_a_command_with_options_that_there_are(example: str) -> None:
    command = typer.main.get_command(app)
    words = shlex.split(example.partition(" > ")[0])  # what the shell takes for itself
    context = command.make_context("pacsnode", words[1:])
    try:
        while rest := [*context._protected_args, *context.args]:
            name, command, rest = context.command.resolve_command(context, rest)
            context = command.make_context(name, rest, parent=context)
        assert context.parent is not None
    except Exception as exc:
        if "does not exist" not in str(getattr(exc, "message", "")):  # files of the reader's own
            raise
