from __future__ import annotations

import json
from pathlib import Path

import pytest

from node.cli.home import free_port
from node.cli.words import person
from node.db.session import Database
from node.dicom.standin import StandInPacs

SITE = """
[[peer]]
aet = "PACS"
host = "127.0.0.1"
port = {port}
[[route]]
from = "*"
to = ["PACS"]
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(SITE.format(port=free_port("127.0.0.1")), encoding="utf8")
    return path


def test_a_site_file_becomes_rows_once(run, empty: Database, site: Path) -> None:
    assert "added: PACS" in run("peers", "apply", site).stdout
    assert "nothing to change" in run("peers", "apply", site).stdout
    listed = json.loads(run("peers", "list", "--json").stdout)
    assert [peer["aet"] for peer in listed["peers"]] == ["PACS"]
    assert listed["routes"][0]["to"] == ["PACS"]
    assert "PACS" in run("peers", "list").stdout


def test_the_list_says_whom_results_follow(run, empty: Database, site: Path) -> None:
    run("peers", "apply", site)
    assert "reconciled" not in run("peers", "list").stdout
    text = site.read_text(encoding="utf8")
    site.write_text(text.replace('aet = "PACS"', 'aet = "PACS"\nreconcile = true'), encoding="utf8")
    run("peers", "apply", site)
    assert "reconciled" in run("peers", "list").stdout


def test_the_trail_says_who_changed_what_from_what_to_what(run, empty: Database, site: Path) -> None:
    text = site.read_text(encoding="utf8")
    run("peers", "apply", site)
    old = free_port("127.0.0.1")
    site.write_text(text.replace('host = "127.0.0.1"', 'host = "127.0.0.2"\ntakes = ["sr"]'), encoding="utf8")
    assert 'PACS host: "127.0.0.1" → "127.0.0.2"' in run("peers", "apply", site).stdout
    site.write_text(f'[[peer]]\naet = "CT1"\nhost = "10.0.0.1"\nport = {old}\n', encoding="utf8")
    run("peers", "apply", site)
    run("peers", "apply", site)
    events = json.loads(run("audit", "--action", "config.peers_applied", "--json").stdout)
    assert [event["actor"] for event in events] == [person()] * 3
    assert '→ "127.0.0.2"; PACS takes: ' in run("audit", "--action", "config.peers_applied").stdout
    added, changed, replaced = (event["detail"]["fields"] for event in events)
    assert 'PACS host: "" → "127.0.0.1"' in added
    assert changed == [
        'PACS host: "127.0.0.1" → "127.0.0.2"',
        'PACS takes: ["sr", "seg", "sc", "derived"] → ["sr"]',
    ]
    assert replaced[:2] == ['CT1 host: "" → "10.0.0.1"', f"CT1 port: null → {old}"]
    assert 'PACS host: "127.0.0.2" → ""' in replaced
    assert 'route from * to: ["PACS"] → []' in replaced


def test_a_site_file_that_cannot_be_right_changes_nothing(run, empty: Database, site: Path) -> None:
    site.write_text(site.read_text(encoding="utf8").replace('to = ["PACS"]', 'to = ["ELSEWHERE"]'), encoding="utf8")
    result = run("peers", "apply", site)
    assert result.exit_code == 2
    assert "no such peer in this file" in result.stderr
    assert run("peers", "list").exit_code == 1


def test_echo_tells_an_answer_from_silence(run, empty: Database, site: Path, tmp_path: Path) -> None:
    pacs = StandInPacs(tmp_path / "pacs", aet="PACS")
    site.write_text(SITE.format(port=pacs.start()), encoding="utf8")
    run("peers", "apply", site)
    try:
        (answer,) = json.loads(run("peers", "echo", "--json").stdout)
        assert answer["ok"]
        assert answer["commitment"]
        assert "SEG" in answer["stores"]
    finally:
        pacs.stop()
    silent = run("peers", "echo", "PACS")
    assert silent.exit_code == 3
    assert "no connection" in silent.stdout
    assert run("peers", "echo", "NOBODY").exit_code == 1


def test_an_analysis_is_switched_off_by_the_site_file_and_the_trail_says_by_whom_and_why(
    run, empty: Database, site: Path
) -> None:
    text = site.read_text(encoding="utf8")
    run("peers", "apply", site)
    off = '[[analysis]]\nname = "low_dose_ct"\nstate = "off"\nreason = "new kernel"\n'
    site.write_text(text + off, encoding="utf8")
    said = run("peers", "apply", site).stdout
    assert "analyses: low_dose_ct" in said
    assert 'analysis low_dose_ct state: "on" → "off"' in said
    assert "nothing to change" in run("peers", "apply", site).stdout
    (listed,) = json.loads(run("peers", "list", "--json").stdout)["analyses"]
    assert (listed["name"], listed["state"], listed["reason"]) == ("low_dose_ct", "off", "new kernel")
    assert "new kernel" in run("peers", "list").stdout
    site.write_text(text, encoding="utf8")
    assert 'analysis low_dose_ct state: "off" → "on"' in run("peers", "apply", site).stdout
    *_, before, last = json.loads(run("audit", "--action", "config.peers_applied", "--json").stdout)
    assert before["actor"] == last["actor"] == person()
    assert 'analysis low_dose_ct reason: "" → "new kernel"' in before["detail"]["fields"]
