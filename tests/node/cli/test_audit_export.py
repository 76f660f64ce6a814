from __future__ import annotations

import json
import stat
from pathlib import Path
from xml.etree import ElementTree

import pytest

from node.audit import chain
from node.audit.chain import Sealed
from node.audit.events import Action
from node.db.session import Database
from node.jobs import telling
from node.jobs.record import record

pytestmark = pytest.mark.usefixtures("seeded")


def test_the_sealed_events_can_be_proven_from_the_file_alone(run, tmp_path: Path) -> None:
    path = tmp_path / "trail.jsonl"
    assert run("audit", "export", "--out", path).exit_code == 0
    events = [Sealed(**json.loads(line)) for line in path.read_text(encoding="utf8").splitlines()]
    assert chain.verify(events, head_number=len(events), head_digest=events[-1].digest) == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.glob("*.unfinished")) == []


def test_each_form_has_a_line_for_what_it_tells(run) -> None:
    events = [json.loads(line) for line in run("audit", "export").stdout.splitlines()]
    resources = [json.loads(line) for line in run("audit", "export", "--format", "fhir").stdout.splitlines()]
    messages = [
        ElementTree.fromstring(line) for line in run("audit", "export", "--format", "dicom").stdout.splitlines()
    ]
    assert "delivery.dead" in [event["action"] for event in events]
    assert [resource["id"] for resource in resources[: len(events)]] == [str(event["number"]) for event in events]
    assert {message.tag for message in messages} == {"AuditMessage"}
    kinds = [message.find("EventIdentification/EventID").get("csd-code") for message in messages]  # type: ignore[union-attr]
    assert kinds.count("110101") == 2  # the first two exports


def test_an_export_is_on_record_before_its_first_line(run, seeded: Database) -> None:
    assert json.loads(run("audit", "export", "--format", "fhir", "--since", "1h").stdout.splitlines()[0])
    (asked,) = json.loads(run("audit", "--action", "trail", "--json").stdout)
    assert asked["detail"]["question"]["export"] == "fhir"
    assert "@" in asked["actor"]


def test_a_span_of_time_is_exported(run) -> None:
    assert run("audit", "export", "--until", "2000-01-01").stdout == ""
    assert len(run("audit", "export", "--since", "1h").stdout.splitlines()) > 4
    assert run("audit", "export", "--since", "whenever").exit_code == 2


def test_a_file_that_is_there_is_left_alone(run, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("mine", encoding="utf8")
    result = run("audit", "export", "--out", path)
    assert (result.exit_code, path.read_text(encoding="utf8")) == (2, "mine")
    assert "it is there already" in result.stderr
    nowhere = run("audit", "export", "--out", tmp_path / "no" / "file")
    assert (nowhere.exit_code, "cannot be written" in nowhere.stderr) == (2, True)


def test_a_long_trail_is_read_in_parts_and_told_whole(run, seeded: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "_TOGETHER", 3)
    with seeded.write() as session:
        for number in range(7):
            record(
                session, Action.INSTANCE_STORED, peer="CT1", study_instance_uid="1.2.9", patient_id="P-9",
                detail={"association": "a", "sop_instance_uid": f"1.2.9.{number}"},
            )  # fmt: skip
    lines = run("audit", "export").stdout.splitlines()
    assert [json.loads(line)["number"] for line in lines] == list(range(1, len(lines) + 1))
    told = [line for line in run("audit", "export", "--format", "dicom").stdout.splitlines() if "1.2.9" in line]
    assert len(told) == 1
    assert "7 events up to" in told[0]
