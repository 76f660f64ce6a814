"""A database is put back from a copy: what is made again may have other bytes, and must not have UIDs that are out."""

import pytest
from sqlalchemy import delete

from node.archive import Archive
from node.db.session import Database
from node.db.tables import DeliveryRow, FindingRow, JobRow, ResultRow, RevisionRow
from node.dicom.write import Produced
from node.errors import AnalysisFailed
from node.jobs.receive import ReceivingDesk
from node.jobs.run import Attempt, Outcome, Worker, keep_produced
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


def test_no_uid_of_a_lost_run_is_given_again(house: House) -> None:
    house.send(image(1), image(2))
    house.report()
    before = results(house)
    put_back(house)
    house.report()
    after = results(house)
    assert len(after["instances"]) == len(before["instances"]) > 1
    assert not before["instances"] & after["instances"]
    assert not before["series"] & after["series"], "nor do old and new images lie in one series"


def test_what_is_not_begun_has_no_stamp(house: House) -> None:
    house.send(image(1))
    house.report()
    [revision], [job, *_] = house.rows(RevisionRow), house.rows(JobRow)
    job.started_at = None
    with pytest.raises(ValueError, match="not begun"):
        stamp(house.settings, revision, job)


def test_an_attempt_that_breaks_leaves_no_file_behind(house: House, archive: Archive) -> None:
    house.send(image(1))

    def breaks(attempt: Attempt) -> Outcome:
        keep_produced(archive, attempt, Produced("sc", "1.2", "1.2.3.77", "1.2.3.7", "1.2.840", b"bytes", "page", "g"))
        raise AnalysisFailed("the network broke")

    def unused(*_given: object) -> Outcome:
        raise AssertionError

    house.worker = Worker(
        house.settings.model_copy(update={"max_attempts": 2}),
        house.database,
        actor="test",
        analyse=breaks,
        report=unused,
        after_report=unused,
        discard=archive.discard,
    )
    house.report()
    assert not [path for path in house.files() if path.endswith(".dcm") and path.startswith("results")]
