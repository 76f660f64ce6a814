from __future__ import annotations

import pytest

from node.db import views
from node.db.session import Database
from node.db.views import StudyLine
from seeded.rows import DELIVERED, INCOMPLETE, RECEIVING, REFUSAL, RUNNING, seed


@pytest.fixture
def seeded(database: Database) -> Database:
    seed(database)
    return database


def lines(database: Database, **asked: str) -> dict[str, StudyLine]:
    with database.read() as session:
        return {line.study_instance_uid: line for line in views.studies(session, **asked)}


def test_lists_the_newest_study_first(seeded: Database) -> None:
    assert list(lines(seeded)) == [RECEIVING, INCOMPLETE, RUNNING, DELIVERED]


def test_a_line_says_how_far_a_study_is(seeded: Database) -> None:
    found = lines(seeded)
    assert (found[RUNNING].state, found[RUNNING].progress, found[RUNNING].step) == ("planned", 0.4, "analyse")
    assert found[RUNNING].urgent
    assert (found[DELIVERED].delivered, found[DELIVERED].deliveries) == (3, 3)
    assert (found[RECEIVING].state, found[RECEIVING].images, found[RECEIVING].progress) == ("receiving", 2, 0.0)


def test_a_line_gives_the_reason_that_somebody_must_act_on(seeded: Database) -> None:
    found = lines(seeded)
    assert found[INCOMPLETE].reason == REFUSAL
    assert found[RUNNING].reason == "A localiser (scout, topogram), not a cross-section."
    assert found[RECEIVING].reason == ""


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"state": "incomplete"}, [INCOMPLETE]),
        ({"search": "P-2"}, [RUNNING]),
        ({"search": "ACC1"}, [DELIVERED]),
        ({"search": "2.3.4"}, [RECEIVING]),
        ({"search": "P-"}, []),
        ({"search": "%"}, []),
    ],
)
def test_finds_by_state_patient_accession_and_part_of_the_uid(
    seeded: Database, asked: dict[str, str], expected: list[str]
) -> None:
    assert list(lines(seeded, **asked)) == expected


def test_a_whole_uid_means_itself_even_where_it_is_part_of_another(seeded: Database) -> None:
    with seeded.read() as session:
        assert views.find_studies(session, DELIVERED) == [DELIVERED]
        assert sorted(views.find_studies(session, "1.2.3")) == [DELIVERED, RUNNING, INCOMPLETE, RECEIVING]
        assert views.find_studies(session, "9.9") == []


def test_names_the_series_that_a_derived_one_was_made_from(seeded: Database) -> None:
    with seeded.read() as session:
        assert views.derived_series(session, "CT") == {f"{uid}.8": f"{uid}.1" for uid in (DELIVERED, INCOMPLETE)}
        assert views.derived_series(session, "DX") == {}
