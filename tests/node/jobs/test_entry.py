"""Images that come once the files of their study were deleted: what is success, what is held, what is reported."""

import pytest

from node.archive import Archive
from node.db import receiving
from node.db.session import Database
from node.db.tables import ConflictRow, InstanceRow, JobRow, PurgeRow, ResultRow, RevisionRow, StudyRow
from node.errors import Conflict, OutOfResources
from node.jobs.again import retry
from node.jobs.purge import Rules
from node.jobs.receive import ReceivingDesk
from node.jobs.record import now
from node.settings import Settings

from .house import CHEST, HEAD, Arrive, House, image, words


@pytest.fixture
def house(settings: Settings, database: Database, archive: Archive, desk: ReceivingDesk, arrive: Arrive) -> House:
    return House(settings, database, archive, desk, arrive)


@pytest.fixture
def purged(house: House) -> House:
    """A study of one series of two images was delivered and proven, and its files were deleted."""
    house.treat(image(1), image(2))
    assert house.purge() is not None
    return house


def test_the_same_bytes_are_held_again_and_make_no_second_result(purged: House) -> None:
    purged.send(image(1))
    purged.send(image(1))
    first, second = purged.rows(InstanceRow)
    assert (first.purged_at, second.purged_at is not None) == (None, True)
    assert purged.lies() == []
    assert [row.number for row in purged.rows(RevisionRow)] == [1], "what was reported of it stands"
    assert purged.actions().count("instance.held_again") == 1
    assert purged.actions().count("instance.duplicate") == 1
    [study] = purged.rows(StudyRow)
    assert study.purged_at is None
    row = purged.purge()
    assert row is not None
    assert row.files == 1, "and goes again when its days are over"


def test_other_bytes_are_still_another_object(purged: House) -> None:
    changed = image(1)
    changed.PatientName = "SOMEBODY^ELSE"
    with pytest.raises(Conflict):
        purged.send(changed)
    [aside] = purged.rows(ConflictRow)
    assert b"SOMEBODY^ELSE" in purged.archive.path(aside.path).read_bytes()
    assert all(row.purged_at for row in purged.rows(InstanceRow))
    assert purged.purge(Rules(0.0, None, 0.0)) is not None
    with pytest.raises(Conflict):
        purged.send(changed)
    [aside] = purged.rows(ConflictRow)
    assert (aside.purged_at, purged.lies()) == (None, []), "kept aside again, as its sender was told"


def test_an_object_whose_file_goes_while_it_comes_is_refused_for_now(purged: House) -> None:
    arrival = purged.arrive(image(1))
    entry = purged.desk._prepare(arrival)
    purged.archive.path(entry.path).unlink()
    with pytest.raises(OutOfResources, match="send it again"):
        purged.desk._entries.enter(entry)
    assert all(row.purged_at for row in purged.rows(InstanceRow))
    assert purged.actions()[-1] == "instance.refused"


def test_late_images_of_another_series_are_analysed_and_the_report_says_what_is_no_longer_here(purged: House) -> None:
    purged.send(image(1, series=HEAD))
    purged.report()
    assert purged.decisions(2) == {CHEST: "no longer held", HEAD: "analysed"}
    report = purged.document(2)
    text = words(report)
    assert "Not looked at again: earlier images of this study (2)" in text
    assert "What the report of revision 1 says of them still stands." in text
    assert "replaces revision 1" not in text
    assert "PredecessorDocumentsSequence" not in report
    assert report.CompletionFlag == "PARTIAL"
    assert "These images are no longer held here" in text
    purged.deliver()
    assert [row.state for row in purged.rows(RevisionRow)] == ["delivered", "delivered"]


def test_retry_says_that_the_files_were_deleted_also_where_nothing_failed(purged: House) -> None:
    told = retry(purged.database, purged.settings, "1.2.3", actor="ada")
    assert told.reason.startswith("no analysis of revision 1 has failed; files of this study were deleted on ")


def test_a_part_of_a_series_is_never_analysed_as_if_it_were_the_whole(purged: House) -> None:
    purged.send(image(3), image(4))
    purged.report()
    assert purged.decisions(2) == {CHEST: "no longer held"}
    text = words(purged.document(2))
    assert "Of these images 2 are no longer held here" in text
    assert "The rest (2) is not analysed without them" in text
    assert not purged.rows(JobRow, revision_id=purged.rows(RevisionRow, number=2)[0].id, pipeline="low_dose_ct")


def test_once_the_missing_images_are_sent_again_the_whole_series_is_analysed(purged: House) -> None:
    purged.treat(image(3))
    purged.send(image(1), image(2), image(3))
    *_, newest = purged.rows(RevisionRow)
    assert (newest.number, newest.state, newest.images) == (3, "receiving", 0), "no image of it is new"
    purged.report()
    assert purged.decisions(3) == {CHEST: "analysed"}
    [entry] = purged.rows(RevisionRow, number=3)[0].selection
    assert len(entry["sop_instance_uids"]) == 3
    report = purged.document(3)
    assert "replaces revision 2" in words(report)
    assert "Not looked at again" not in words(report)
    uids = [row.sop_instance_uid for row in purged.rows(ResultRow)]
    assert len(uids) == len(set(uids))
    purged.deliver()
    assert purged.purge() is not None


def test_a_whole_study_that_is_sent_again_with_its_late_image_is_analysed_as_a_whole(purged: House) -> None:
    purged.send(image(1), image(2), image(3))
    purged.report()
    assert purged.decisions(2) == {CHEST: "analysed"}
    assert "replaces revision 1" in words(purged.document(2))
    assert len(purged.rows(RevisionRow)) == 2


def test_images_that_come_back_keep_an_open_revision_open(purged: House) -> None:
    purged.send(image(3))
    [row] = [row for row in purged.rows(RevisionRow) if row.state == "receiving"]
    purged.send(image(1))
    again = purged.rows(RevisionRow, number=2)[0]
    assert again.last_image_at > row.last_image_at
    assert again.images == 1
    with purged.database.write() as session:
        assert not receiving.close_revision(session, row, at=now(), because="it had looked before the image came back")
        assert receiving.close_revision(session, again, at=now(), because="nothing came since")


def test_a_third_report_replaces_the_second_and_leaves_the_first_standing(purged: House) -> None:
    purged.treat(image(1, series=HEAD))
    purged.treat(image(1, series="1.2.3.3"))
    report = words(purged.document(3))
    assert "replaces revision 2" in report
    assert "Do not use the results of revision 2." in report
    assert "What the report of revision 1 says of them still stands." in report


def test_revision_numbers_and_result_uids_never_come_twice(purged: House) -> None:
    first = {row.sop_instance_uid for row in purged.rows(ResultRow)}
    purged.treat(image(3), image(1, series=HEAD))
    assert [row.number for row in purged.rows(RevisionRow)] == [1, 2]
    later = {row.sop_instance_uid for row in purged.rows(ResultRow)} - first
    assert later
    keeper = purged.housekeeping(keep_days=1e-9)
    for _ in range(3):
        keeper.tick()
    assert len(purged.rows(PurgeRow)) == 2, "what came late goes in its turn"
    assert purged.files() == set()


def test_our_own_result_routed_back_after_the_purge_is_held_and_goes_in_its_turn(purged: House) -> None:
    back = image(1)
    back.SOPInstanceUID = purged.rows(ResultRow)[0].sop_instance_uid
    purged.send(back)
    assert purged.actions()[-1] == "instance.own_result"
    assert len(purged.rows(RevisionRow)) == 1
    assert purged.purge() is not None
    assert purged.files() == set()
