"""A database is put back from a copy: no UID that is out may get other content."""

import datetime as dt

import pytest
from pydicom import dcmread
from sqlalchemy import delete

from node.archive import Archive
from node.db.session import Database
from node.db.tables import DeliveryRow, FindingRow, JobRow, ResultRow, RevisionRow
from node.jobs.receive import ReceivingDesk
from node.jobs.stamp import stamp
from node.settings import Settings

from .house import Arrive, House, image


@pytest.fixture
def house(settings: Settings, database: Database, archive: Archive, desk: ReceivingDesk, arrive: Arrive) -> House:
    return House(settings, database, archive, desk, arrive)


def results(house: House) -> dict[str, set[str]]:
    rows = house.rows(ResultRow)
    return {
        "instances": {row.sop_instance_uid for row in rows},
        "series": {row.series_instance_uid for row in rows},
    }


def put_back(house: House) -> None:
    """As a copy has it that was made when the revision was planned."""
    with house.database.write() as session:
        for kind in (DeliveryRow, ResultRow, FindingRow):
            session.execute(delete(kind))
        session.execute(delete(JobRow).where(JobRow.pipeline == "report"))
    house.change(JobRow, state="queued", attempt=0, started_at=None, outcome="")
    house.change(RevisionRow, state="planned", reported_at=None)


def test_what_the_copy_had_as_complete_is_made_again_as_it_was(house: House) -> None:
    house.send(image(1), image(2))
    house.report()
    before = results(house)
    put_back(house)
    house.report()
    assert results(house) == before


def test_a_study_sent_again_after_the_copy_has_uids_of_its_own(house: House) -> None:
    house.send(image(1), image(2))
    house.report()
    before = results(house)
    put_back(house)
    [revision] = house.rows(RevisionRow)
    house.change(RevisionRow, completed_at=revision.completed_at + dt.timedelta(microseconds=1))
    house.report()
    after = results(house)
    assert len(after["instances"]) == len(before["instances"]) > 1
    assert not before["instances"] & after["instances"]
    assert not before["series"] & after["series"], "nor do old and new images lie in one series"


def test_series_numbers_and_the_note_are_those_that_the_site_has_set(
    settings: Settings, database: Database, archive: Archive, desk: ReceivingDesk, arrive: Arrive
) -> None:
    of_site = {"series_number_base": 70_000, "institution_note": "Evaluation at St. Elsewhere. Not for diagnosis."}
    house = House(settings.model_copy(update=of_site), database, archive, desk, arrive)
    house.send(image(1), image(2))
    house.report()
    made = [dcmread(archive.path(row.path)) for row in house.rows(ResultRow)]
    assert len(made) > 3
    for ds in made:
        assert 70_000 <= ds.SeriesNumber < 70_000 + 10 * 2 + 10, "behind series 2, in the block of the site"
        assert of_site["institution_note"] in str(ds)


def test_what_is_not_complete_has_no_stamp(house: House) -> None:
    house.send(image(1))
    house.report()
    [revision] = house.rows(RevisionRow)
    revision.completed_at = None
    with pytest.raises(ValueError, match="not complete"):
        stamp(house.settings, revision)
