"""A study under legal hold: nobody deletes anything of it, and the trail knows who said so."""

import pytest

from node.archive import Archive
from node.db.session import Database
from node.db.tables import AuditEventRow, StudyRow
from node.errors import ConfigurationError
from node.jobs.hold import hold, release
from node.jobs.purge import Rules, verdict
from node.jobs.receive import ReceivingDesk
from node.settings import Settings

from .house import AT_ONCE, STUDY, Arrive, House, image

ALL = Rules(0.0, 0.0, 0.0, asked="by hand")


@pytest.fixture
def house(settings: Settings, database: Database, archive: Archive, desk: ReceivingDesk, arrive: Arrive) -> House:
    house = House(settings, database, archive, desk, arrive)
    house.treat(image(1))
    return house


def test_nothing_of_a_held_study_goes_by_whatever_rule_until_it_is_released(house: House) -> None:
    assert hold(house.database, STUDY, why="case 17", actor="ada@ward") == ""
    before = house.files()
    assert house.purge(ALL) is None
    clock = house.housekeeping(keep_days=1e-9, keep_failed_days=1e-9, keep_conflict_days=1e-9)
    for _ in range(4):
        clock.tick()
    assert house.files() == before
    judged = verdict(house.database, ALL, STUDY)
    assert judged is not None
    assert judged.kept == "legal hold: case 17"

    assert "case 17" in release(house.database, STUDY, why="closed", actor="bob@ward")
    assert house.purge(AT_ONCE) is not None
    assert house.lies() == []


def test_the_trail_says_who_held_and_released_it_and_why(house: House) -> None:
    hold(house.database, STUDY, why="case 17", actor="ada@ward")
    release(house.database, STUDY, why="closed", actor="bob@ward")
    held, released = house.rows(AuditEventRow)[-2:]
    assert (held.action, held.actor, held.patient_id, held.detail) == (
        "study.held",
        "ada@ward",
        "P-1",
        {"because": "case 17"},
    )
    assert (released.action, released.actor) == ("study.released", "bob@ward")
    assert released.detail == {"because": "closed", "held_because": "case 17"}


def test_a_hold_that_comes_too_late_is_said(house: House) -> None:
    row = house.retention._give_up(STUDY, AT_ONCE, wait=True)
    assert row is not None
    with pytest.raises(ConfigurationError, match="too late: files of this study were deleted"):
        hold(house.database, STUDY, why="case 17", actor="ada")
    house.retention.delete(STUDY)
    assert "only what is sent again is kept" in hold(house.database, STUDY, why="case 17", actor="ada")
    house.send(image(1))
    assert house.purge(ALL) is None, "what is sent again is held too"
    [study] = house.rows(StudyRow)
    assert study.legal_hold == "case 17"


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda db: hold(db, "9.9", why="x", actor="a"), "no study 9.9 was received here"),
        (lambda db: release(db, "9.9", why="x", actor="a"), "no study 9.9 was received here"),
        (lambda db: release(db, STUDY, why="x", actor="a"), "is not under a legal hold"),
        (lambda db: [hold(db, STUDY, why=why, actor="a") for why in "xy"], "it is held already, since .*: x"),
    ],
)
def test_what_cannot_be_held_or_released_is_said(house: House, act, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        act(house.database)
