from __future__ import annotations

import json
import re

import pytest
from sqlalchemy import text

from node.audit.events import Action
from node.db.session import Database
from node.db.tables import StudyRow
from node.jobs.record import record
from seeded.rows import INCOMPLETE

pytestmark = pytest.mark.usefixtures("seeded")


def test_the_trail_is_a_table_and_asking_is_recorded(run) -> None:
    first = run("audit")
    assert first.exit_code == 0
    assert "config.peers_applied" in first.stdout
    assert "trail.queried" not in first.stdout
    assert "trail.queried" in run("audit").stdout


def test_filters_narrow_and_json_is_complete(run) -> None:
    found = json.loads(run("audit", "--study", INCOMPLETE, "--action", "delivery", "--json").stdout)
    (event,) = found
    assert (event["action"], event["peer"], event["outcome"]) == ("delivery.dead", "PACS", "serious failure")
    assert len(event["digest"]) == 64
    assert json.loads(run("audit", "--peer", "CT1", "--limit", "2", "--json").stdout)[0]["peer"] == "CT1"
    assert json.loads(run("audit", "--patient", "P-2", "--since", "1h", "--json").stdout)[0]["patient_id"] == "P-2"


def test_no_event_is_exit_code_1_with_an_empty_list(run) -> None:
    result = run("audit", "--until", "2000-01-01", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, [])


def test_verify_says_that_the_chain_holds_and_gives_its_head(run) -> None:
    result = run("audit", "verify")
    assert result.exit_code == 0
    head = json.loads(run("audit", "verify", "--json").stdout)["head"]
    assert head in result.stdout
    assert run("audit", "verify", "--expect", head).exit_code == 0
    assert run("audit", "verify", "--expect", "f" * 64).exit_code == 1


def test_a_part_of_a_head_is_no_head_and_no_sign_of_tampering(run) -> None:
    head = json.loads(run("audit", "verify", "--json").stdout)["head"]
    for expect in (head[:4], head[:63], head + "0", "3f9a…", "g" * 64, " "):
        result = run("audit", "verify", "--expect", expect)
        assert result.exit_code == 2, expect
        assert "give the whole head" in " ".join(result.stderr.replace("│", " ").split())
    assert run("audit", "verify", "--expect", f" {head.upper()}").exit_code == 0


def test_the_help_shows_a_whole_head(run) -> None:
    assert re.search(r"--expect\s+[0-9a-f]{64}\s", run("audit", "verify", "--help").stdout)


def test_a_time_before_all_time_is_said(run) -> None:
    result = run("audit", "--since", "99999999999d")
    assert (result.exit_code, "too long ago" in result.stderr) == (2, True)


def test_verify_finds_a_changed_event(run, seeded: Database) -> None:
    with seeded.write() as session:
        session.execute(text("UPDATE audit_event SET peer = 'SOMEBODY' WHERE number = 3"))
    result = run("audit", "verify")
    assert result.exit_code == 1
    assert "event 3 was changed" in result.stderr


def test_a_patient_has_the_events_of_its_studies_in_table_and_json(run, seeded: Database) -> None:
    with seeded.write() as session:
        record(session, Action.DELIVERY_DEFERRED, study_instance_uid=INCOMPLETE, peer="PACS")
        patient = session.get_one(StudyRow, INCOMPLETE).patient_id
    found = json.loads(run("audit", "--patient", patient, "--action", "delivery.deferred", "--json").stdout)
    assert [(event["study_instance_uid"], event["patient_id"]) for event in found] == [(INCOMPLETE, "")]
    assert "delivery.deferred" in run("audit", "--patient", patient).stdout
    assert run("audit", "verify").exit_code == 0


def test_an_auditor_reads_all_of_it_page_by_page(run) -> None:
    run("audit")
    whole = [json.loads(line) for line in run("audit", "--all", "--json").stdout.splitlines()]
    assert [one["number"] for one in whole] == [*range(1, len(whole) + 1)]
    seen: list[int] = []
    while (page := run("audit", "--after", str(seen[-1] if seen else 0), "--limit", "3", "--json")).exit_code == 0:
        events = json.loads(page.stdout)
        assert len(events) == 3 or "more events fit" not in page.stderr
        seen += [one["number"] for one in events]
        if len(seen) > len(whole):
            break
    assert seen[: len(whole)] == [one["number"] for one in whole]


def test_a_cut_list_says_so_and_a_whole_one_does_not(run) -> None:
    cut = run("audit", "--limit", "2")
    assert "these are the newest 2, and older ones fit too" in cut.stderr
    assert "more events fit: --after 2 goes on" in run("audit", "--after", "0", "--limit", "2").stderr
    assert "fit" not in run("audit", "--limit", "2000").stderr
    assert "fit" not in run("audit", "--all").stderr


def test_that_all_was_asked_for_is_recorded_before_anything_is_shown(run, seeded: Database) -> None:
    run("audit", "--all", "--patient", "P-2")
    last = json.loads(run("audit", "--action", "trail", "--json").stdout)[-1]
    assert (last["patient_id"], last["detail"]["events"]) == ("P-2", "all")
    assert last["detail"]["up_to"] == last["number"] - 1


def test_nothing_that_fits_is_said_of_all_too(run) -> None:
    result = run("audit", "--all", "--peer", "NOBODY")
    assert (result.exit_code, result.stdout) == (1, "")
