import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import func, select

from node.archive import Archive
from node.db import peers
from node.db.session import Database
from node.db.tables import AssociationRow, AuditEventRow, ConflictRow, InstanceRow, RevisionRow, StudyRow
from node.dicom.receive import Arrival
from node.errors import Conflict, NotUnderstood, OutOfResources, UnknownCaller, WrongCalledTitle, WrongClass
from node.jobs.receive import ReceivingDesk
from node.jobs.record import now
from node.jobs.trail import verify
from node.settings import MANUFACTURER, MODEL_NAME, Peer, Settings, Site

from .conftest import CALLER, ct_slice


def actions(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(AuditEventRow.action).order_by(AuditEventRow.number)))


def count(database: Database, row: type) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(row)) or 0


def test_an_object_that_was_taken_is_on_disk_in_a_row_and_in_the_trail(
    database: Database, archive: Archive, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    arrival = arrive(ct_slice())
    sent = arrival.path.read_bytes()
    desk.take(arrival)
    with database.read() as session:
        row = session.scalars(select(InstanceRow)).one()
    assert archive.path(row.path).read_bytes() == sent
    assert row.sha256 == arrival.sha256
    assert actions(database)[-1] == "instance.stored"


def test_the_same_object_again_is_success_and_nothing_new(
    database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    desk.take(arrive(ct_slice()))
    desk.take(arrive(ct_slice()))
    assert count(database, InstanceRow) == 1
    with database.read() as session:
        assert session.scalars(select(RevisionRow)).one().images == 1
    assert actions(database)[-1] == "instance.duplicate"


def test_other_bytes_under_the_same_uid_are_kept_aside_and_refused(
    database: Database, archive: Archive, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    desk.take(arrive(ct_slice()))
    changed = ct_slice()
    changed.PatientName = "SOMEBODY^ELSE"
    with pytest.raises(Conflict):
        desk.take(arrive(changed))
    with pytest.raises(Conflict):
        desk.take(arrive(changed))
    with database.read() as session:
        kept = session.scalars(select(InstanceRow)).one()
        aside = session.scalars(select(ConflictRow)).one()
    assert kept.path != aside.path
    assert b"PHANTOM^TEST" in archive.path(kept.path).read_bytes()
    assert b"SOMEBODY^ELSE" in archive.path(aside.path).read_bytes()


def test_eight_senders_of_the_same_series_make_one_study(
    database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    arrivals = [[arrive(ct_slice(number=number)) for number in range(1, 6)] for _ in range(8)]
    taken: list[Arrival] = []

    def send(mine: list[Arrival]) -> None:
        for arrival in mine:
            desk.take(arrival)
            taken.append(arrival)

    threads = [threading.Thread(target=send, args=(mine,)) for mine in arrivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 40
    assert (count(database, StudyRow), count(database, RevisionRow), count(database, InstanceRow)) == (1, 1, 5)
    assert verify(database).complaints == []


def test_our_own_results_are_kept_but_open_no_revision(
    database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    result = ct_slice(series="1.2.3.9")
    equipment = Dataset()
    equipment.Manufacturer, equipment.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    result.ContributingEquipmentSequence = [equipment]
    result.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    desk.take(arrive(result))
    assert count(database, InstanceRow) == 1
    assert count(database, RevisionRow) == 0
    assert actions(database)[-1] == "instance.own_result"


def test_high_priority_makes_the_revision_urgent(
    database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    desk.take(arrive(ct_slice(), priority=1))
    with database.read() as session:
        assert session.scalars(select(RevisionRow)).one().urgent


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"calling_aet": "STRANGER"}, UnknownCaller),
        ({"host": "192.0.2.7"}, UnknownCaller),
        ({"called_aet": "OTHER"}, WrongCalledTitle),
    ],
)
def test_who_is_not_known_stays_outside_and_on_record(
    database: Database, desk: ReceivingDesk, change: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        desk.admit(dataclasses.replace(CALLER, **change))
    assert actions(database)[-1] == "association.refused"
    with database.read() as session:
        assert session.scalars(select(AssociationRow)).one().outcome == "refused"


def test_a_certificate_that_does_not_hold_is_on_record_with_the_address(
    database: Database, desk: ReceivingDesk
) -> None:
    desk.turned_away("10.9.9.9", "its certificate does not hold (certificate has expired)")
    with database.read() as session:
        event = session.scalars(select(AuditEventRow).order_by(AuditEventRow.number.desc())).first()
        assert event is not None
        assert (event.action, event.outcome, event.peer) == ("association.refused", "serious failure", "")
        assert event.detail["host"] == "10.9.9.9"
        assert "certificate has expired" in event.detail["reason"]


def test_a_command_that_lies_about_the_data_set_is_refused_and_on_record(
    database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    with pytest.raises(WrongClass):
        desk.take(dataclasses.replace(arrive(ct_slice()), sop_instance_uid="9.9.9"))
    assert actions(database)[-1] == "instance.refused"
    assert count(database, InstanceRow) == 0


def test_bytes_that_are_no_dicom_are_refused_and_on_record(
    database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    arrival = arrive(ct_slice())
    arrival.path.write_bytes(b"nothing of the kind" * 30)
    with pytest.raises(NotUnderstood):
        desk.take(arrival)
    assert actions(database)[-1] == "instance.refused"


def test_associations_left_open_by_a_killed_receiver_are_closed_by_the_next(
    database: Database, desk: ReceivingDesk, archive: Archive
) -> None:
    desk.admit(CALLER)
    second = ReceivingDesk(desk._settings, database, archive)
    second.open()
    second.close()
    with database.read() as session:
        assert session.scalars(select(AssociationRow)).one().outcome == "receiver stopped"


def test_an_object_whose_file_is_gone_is_refused_for_now_and_on_record(
    database: Database, desk: ReceivingDesk, arrive: Callable[..., Arrival]
) -> None:
    arrival = arrive(ct_slice())
    arrival.path.unlink()
    with pytest.raises(OutOfResources, match="No such file"):
        desk.take(arrival)
    assert actions(database)[-1] == "instance.lost"
    assert count(database, InstanceRow) == 0


@pytest.fixture
def slow_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A name server that finds nothing, and says so once it may."""
    may_answer = threading.Event()

    def resolve(*_args: object, **_more: object) -> None:
        may_answer.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return may_answer


def test_a_slow_name_server_holds_up_no_other_write_and_is_named(
    settings: Settings, database: Database, archive: Archive, slow_resolver: threading.Event
) -> None:
    by_name = Peer(aet="ER", host="er.example.org")
    with database.write() as session:
        peers.replace_site(session, Site.model_validate({"peer": [by_name]}), at=now())
    desk = ReceivingDesk(settings, database, archive)
    refusals: list[UnknownCaller] = []

    def admit() -> None:
        try:
            desk.admit(dataclasses.replace(CALLER, calling_aet="ER"))
        except UnknownCaller as exc:
            refusals.append(exc)

    def write() -> None:
        with database.write() as session:
            peers.note_success(session, "ER")

    threads = [threading.Thread(target=admit), threading.Thread(target=write)]
    for thread in threads:
        thread.start()
        thread.join(3)
    assert [thread.is_alive() for thread in threads] == [True, False]
    slow_resolver.set()
    threads[0].join()
    assert "the name er.example.org of peer 'ER' could not be resolved" in refusals[0].reason
    assert actions(database)[-1] == "association.refused"
