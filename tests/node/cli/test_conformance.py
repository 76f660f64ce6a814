"""The statement as a document: the copy in deploy/, what a home adds, and that no password is in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.cli.app import app
from node.cli.conformance import SECRETS
from node.db.session import Database
from node.settings import Completion, Peer, Settings

ROOT = Path(__file__).parents[3]
COPY = ROOT / "deploy" / "CONFORMANCE.md"
PASSWORD = "not-to-be-shown-to-anybody"


def statement(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "conformance"])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_copy_in_deploy_is_what_the_command_prints() -> None:
    assert COPY.read_text(encoding="utf8") == statement(), (
        "the code has changed what the statement says: `pacsnode conformance > deploy/CONFORMANCE.md`, without a home"
    )


def test_nothing_of_this_machine_and_no_placeholder_is_in_the_copy() -> None:
    copy = COPY.read_text(encoding="utf8")
    assert "$" not in copy
    assert str(ROOT) not in copy
    assert str(Path.home()) not in copy


@pytest.mark.parametrize("guide", ["README.md", "deploy/README.md"])
def test_the_guides_link_to_it(guide: str) -> None:
    path = ROOT / guide
    links = re.findall(r"\]\(([^)#]*CONFORMANCE\.md)\)", path.read_text(encoding="utf8"))
    assert {(path.parent / link).resolve() for link in links} == {COPY.resolve()}


def test_every_table_has_as_many_cells_in_each_line() -> None:
    columns = 0
    for line in statement().splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not (cells and columns) or cells == columns, line
        columns = cells


def test_every_setting_and_every_line_of_the_site_file_is_told_with_its_meaning() -> None:
    told = {line.split(" | ")[0].removeprefix("| "): line for line in statement().splitlines() if line.startswith("| ")}
    for name, field in Settings.model_fields.items():
        assert " ".join((field.description or "no meaning").split()) in told[name].replace("\\|", "|")
    peers = {f"peer.{name}" for name in Peer.model_fields if name != "completion"}
    assert peers | {f"peer.completion.{name}" for name in Completion.model_fields} <= told.keys()


def test_with_json_it_is_for_machines(run) -> None:
    result = CliRunner().invoke(app, ["conformance", "--json"])
    found = json.loads(result.stdout)
    assert found["site"] is None
    assert {one["name"] for one in found["settings"]} == set(Settings.model_fields)
    assert {"uid": "1.2.840.10008.5.1.4.1.1.2", "name": "CT Image Storage"} in found["border"]["accepted_classes"]


def test_with_a_home_it_tells_of_this_site(run, seeded: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACSNODE_AET", "OURNODE")
    monkeypatch.setenv("PACSNODE_MAX_ASSOCIATIONS", "7")
    text = run("conformance").stdout
    assert "AE title OURNODE, port 11112." in text
    assert "| associations as acceptor, in all | 7 (max_associations) |" in text
    assert re.search(r"\| max_associations \| 64 \| 7 \|", text)
    listed = json.loads(run("peers", "list", "--json").stdout)
    assert listed["peers"]
    for peer in listed["peers"]:
        assert f"| {peer['aet']} | {peer['host']} |" in text
    for route in listed["routes"]:
        assert f"| {', '.join(route['to'])} | {', '.join(route['pipelines'])} |" in text
    found = json.loads(run("conformance", "--json").stdout)
    assert [peer["aet"] for peer in found["site"]["peers"]] == [peer["aet"] for peer in listed["peers"]]
    assert found["site"]["routes"] == listed["routes"]


def test_an_analysis_that_is_off_at_this_site_is_named(run, seeded: Database, tmp_path: Path) -> None:
    assert "not in service" not in run("conformance").stdout
    site = tmp_path / "site.toml"
    site.write_text(
        '[[analysis]]\nname = "chest_xray"\nstate = "off"\nreason = "to be accepted first"\n', encoding="utf8"
    )
    assert run("peers", "apply", site).exit_code == 0
    assert "Analyses not in service: chest_xray (off)." in run("conformance").stdout


def test_without_a_home_the_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACSNODE_AET", "OURNODE")
    assert "OURNODE" not in statement()


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_no_password_is_shown(name: str, run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {
        "database_url": f"sqlite:///{home / PASSWORD}.sqlite",
        "redis_url": f"redis://:{PASSWORD}@127.0.0.1:6379/0",
        "audit_token": PASSWORD,
    }[name]
    monkeypatch.setenv(f"PACSNODE_{name.upper()}", value)
    assert run("migrate").exit_code == 0
    for options in ((), ("--json",)):
        result = run("conformance", *options)
        assert result.exit_code == 0, result.output
        assert PASSWORD not in result.stdout
        assert "is set" in result.stdout


def test_a_home_without_a_database_is_said(run) -> None:
    result = run("conformance")
    assert (result.exit_code, "holds no database of a node" in result.stderr) == (2, True)
