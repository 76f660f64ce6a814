"""Deliveries against a PACS on a real socket that can be told to misbehave."""

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from sqlalchemy import select

from node.archive import Archive
from node.db import deliveries, receiving, work
from node.db.lifecycle import DeliveryState, RevisionState
from node.db.session import Database
from node.db.tables import AuditEventRow, DeliveryRow, JobRow, PeerRow, ResultRow, RevisionRow
from node.dicom.receive import StorageScp
from node.jobs.deliver import Deliverer, finish_revision, new_delivery, resend
from node.jobs.purge import Housekeeping
from node.jobs.receive import ReceivingDesk
from node.jobs.record import now
from node.jobs.site import apply_site
from node.jobs.sweep import Clock
from node.jobs.wake import Waker
from node.settings import Peer, Settings, Site
from system.dcmtk import Address
from system.processes import free_port
from system.standin import StandIn

from .conftest import PACS, SilentBroker, ct_slice

CT = "1.2.840.10008.5.1.4.1.1.2"
SC = "1.2.840.10008.5.1.4.1.1.7"
EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(
        home=tmp_path / "home", port=0, retry_first_s=0.01, retry_most_s=0.01, breaker_open_s=60, breaker_failures=2,
        commitment_wait_s=0.2, delivery_attempts=3, connection_timeout_s=2, dimse_timeout_s=5,
    )  # fmt: skip


@pytest.fixture
def pacs(tmp_path: Path, settings: Settings, desk: ReceivingDesk, archive: Archive) -> Iterator[StandIn]:
    scp = StorageScp(settings, desk, archive.spool)
    port = scp.start()
    stand_in = StandIn(tmp_path / "pacs", reports_to=Address(settings.aet, port))
    yield stand_in
    stand_in.stop()
    scp.stop()


@pytest.fixture
def peer(database: Database, pacs: StandIn) -> Peer:
    peer = Peer(aet=pacs.aet, host="127.0.0.1", port=pacs.port)
    apply_site(database, Site.model_validate({"peer": [PACS, peer]}), actor="test")
    return peer


@pytest.fixture
def deliverer(settings: Settings, database: Database, archive: Archive, peer: Peer) -> Deliverer:
    return Deliverer(settings, database, archive, "test")


@pytest.fixture
def revision_id(database: Database, desk: ReceivingDesk, arrive: Callable, archive: Archive, peer: Peer) -> int:
    """A reported revision with two result objects on their way to the stand-in."""
    desk.take(arrive(ct_slice()))
    with database.write() as session:
        revision = session.scalars(select(RevisionRow)).one()
        job = JobRow(revision_id=revision.id, pipeline=work.REPORT, queued_at=now())
        work.add_job(session, job)
        for state in (RevisionState.COMPLETE, RevisionState.PLANNED, RevisionState.REPORTED):
            receiving.move_revision(session, revision.id, state)
        for number in (1, 2):
            row = result(archive, revision, job, number)
            work.add_results(session, [row])
            deliveries.add(session, new_delivery(row, peer.aet, urgent=False))
        return revision.id


def result(archive: Archive, revision: RevisionRow, job: JobRow, number: int, **changes: object) -> ResultRow:
    ds = ct_slice(series="2.25.1", number=number)
    ds.SOPClassUID = changes.get("sop_class_uid", CT)
    path = archive.spool / "result"
    from pydicom.dataset import FileMetaDataset

    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = EXPLICIT
    ds.save_as(path, enforce_file_format=True)
    data = path.read_bytes()
    path.unlink()
    relative, sha256 = archive.write(data, study="1.2.3", revision=1, instance=ds.SOPInstanceUID)
    values = {
        "sop_instance_uid": ds.SOPInstanceUID, "series_instance_uid": "2.25.1", "sop_class_uid": CT,
        "transfer_syntax_uid": EXPLICIT, "revision_id": revision.id, "job_id": job.id, "kind": "derived", "label": "",
        "alternatives": str(number), "fallback": 0, "path": relative, "size": len(data), "sha256": sha256,
        "made_at": now(),
    }  # fmt: skip
    return ResultRow(**{**values, **changes})


def rows(database: Database) -> list[DeliveryRow]:
    with database.read() as session:
        return list(session.scalars(select(DeliveryRow).order_by(DeliveryRow.id)))


def states(database: Database) -> list[str]:
    return [row.state for row in rows(database)]


def revision_state(database: Database) -> str:
    with database.read() as session:
        return session.scalars(select(RevisionRow)).one().state


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "did not happen within 10 s"
        time.sleep(0.02)


def test_delivered_means_committed(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int, archive: Archive
) -> None:
    pacs.start()
    deliverer.deliver(revision_id, pacs.aet)
    until(lambda: states(database) == ["committed", "committed"])
    assert {row.proof for row in rows(database)} == {"storage commitment"}
    assert revision_state(database) == "delivered"
    assert len(pacs.stored) == 2


def test_a_pacs_without_commitment_is_asked_by_query(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int
) -> None:
    pacs.manners.offers_commitment = False
    pacs.start()
    deliverer.deliver(revision_id, pacs.aet)
    assert states(database) == ["committed", "committed"]
    assert {row.proof for row in rows(database)} == {"query"}


def test_a_peer_that_offers_neither_is_believed_and_the_proof_says_so(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int
) -> None:
    pacs.manners.offers_commitment = pacs.manners.offers_find = False
    pacs.start()
    deliverer.deliver(revision_id, pacs.aet)
    assert {row.proof for row in rows(database)} == {"C-STORE status only"}


@pytest.mark.parametrize("status", [0xC001, 0xA700])
def test_a_query_that_fails_proves_nothing_and_is_asked_again(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int, status: int
) -> None:
    pacs.manners.offers_commitment = False
    pacs.manners.find_status = status
    pacs.start()
    for _ in range(2):
        deliverer.deliver(revision_id, pacs.aet)
        assert {(row.state, row.proof) for row in rows(database)} == {("sent", "")}
        assert all(f"0x{status:04X}" in row.reason for row in rows(database))
        time.sleep(0.3)
    pacs.manners.find_status = 0x0000
    deliverer.deliver(revision_id, pacs.aet)
    assert {(row.state, row.proof, row.reason) for row in rows(database)} == {("committed", "query", "")}


def test_a_peer_that_will_not_be_asked_any_more_proves_nothing(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int
) -> None:
    pacs.manners.silent = True
    pacs.start()
    deliverer.deliver(revision_id, pacs.aet)
    pacs.server.ae.require_calling_aet = ["SOMEBODY-ELSE"]
    time.sleep(0.3)
    deliverer.deliver(revision_id, pacs.aet)
    assert {(row.state, row.proof) for row in rows(database)} == {("sent", "")}
    assert all("rejects the association" in row.reason for row in rows(database))


def test_a_commitment_report_that_never_comes_is_replaced_by_a_query(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int
) -> None:
    pacs.manners.silent = True
    pacs.start()
    deliverer.deliver(revision_id, pacs.aet)
    assert states(database) == ["sent", "sent"]
    time.sleep(0.3)
    deliverer.deliver(revision_id, pacs.aet)
    assert {(row.state, row.proof) for row in rows(database)} == {("committed", "query")}


def test_an_object_that_commitment_denies_is_sent_again_and_not_for_ever(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int
) -> None:
    pacs.manners.denies = True
    pacs.start()
    for _ in range(4):
        deliverer.deliver(revision_id, pacs.aet)
        until(lambda: "sent" not in states(database))
        time.sleep(0.05)
    assert states(database) == ["dead", "dead"]
    assert all("commitment refused" in row.reason for row in rows(database))
    assert max(pacs.offered.values()) == 3
    assert revision_state(database) == "incomplete"


def test_of_three_objects_the_one_that_commitment_denies_is_sent_again_alone(
    database: Database, archive: Archive, pacs: StandIn, deliverer: Deliverer, revision_id: int
) -> None:
    with database.write() as session:
        revision, job = session.get_one(RevisionRow, revision_id), session.scalars(select(JobRow)).one()
        row = result(archive, revision, job, 3)
        work.add_results(session, [row])
        deliveries.add(session, new_delivery(row, pacs.aet, urgent=False))
        denied = row.sop_instance_uid
    pacs.manners.denies_only = denied
    pacs.start()
    deliverer.deliver(revision_id, pacs.aet)
    until(lambda: "sent" not in states(database))
    assert states(database) == ["committed", "committed", "waiting"]
    assert revision_state(database) == "reported"
    pacs.manners.denies_only = ""
    time.sleep(0.05)
    deliverer.deliver(revision_id, pacs.aet)
    until(lambda: revision_state(database) == "delivered")
    assert sorted(pacs.offered.values()) == [1, 1, 2]
    assert pacs.offered[denied] == 2


def test_a_pacs_that_is_full_is_tried_again_and_then_given_up(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int
) -> None:
    pacs.manners.store_status = 0xA700
    pacs.start()
    deliverer.deliver(revision_id, pacs.aet)
    assert states(database) == ["waiting", "waiting"]
    for _ in range(3):
        time.sleep(0.02)
        deliverer.deliver(revision_id, pacs.aet)
    assert states(database) == ["dead", "dead"]
    assert max(pacs.offered.values()) == 3


def test_an_object_that_is_refused_for_good_becomes_a_dead_letter_at_once(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int
) -> None:
    pacs.manners.store_status = 0xC000
    pacs.start()
    deliverer.deliver(revision_id, pacs.aet)
    assert states(database) == ["dead", "dead"]
    assert {row.status for row in rows(database)} == {0xC000}


def test_dead_letters_go_out_when_they_are_resent(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int
) -> None:
    pacs.manners.store_status = 0xC000
    pacs.start()
    deliverer.deliver(revision_id, pacs.aet)
    pacs.manners.store_status = 0x0000
    assert resend(database, study_instance_uid="1.2.3", peer_aet=None, actor="test") == 2
    deliverer.deliver(revision_id, pacs.aet)
    until(lambda: states(database) == ["committed", "committed"])
    assert revision_state(database) == "delivered"


def test_a_warning_is_success_and_is_kept(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int
) -> None:
    pacs.manners.store_status = 0xB000
    pacs.start()
    deliverer.deliver(revision_id, pacs.aet)
    assert {row.status for row in rows(database)} == {0xB000}
    with database.read() as session:
        sent = session.scalars(select(AuditEventRow).where(AuditEventRow.action == "delivery.sent")).all()
    assert [event.detail["status"] for event in sent] == [0xB000, 0xB000]


def test_a_pacs_that_is_away_opens_its_breaker_and_loses_nothing(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int
) -> None:
    for _ in range(6):
        deliverer.deliver(revision_id, pacs.aet)
        time.sleep(0.02)
    assert states(database) == ["waiting", "waiting"]
    with database.write() as session:
        breaker = session.get_one(PeerRow, pacs.aet)
        assert breaker.open_until is not None
        assert breaker.failures == 2, "an open breaker lets nobody try"
        assert deliveries.due_groups(session, now()) == []
        breaker.open_until = None
    pacs.start()
    deliverer.deliver(revision_id, pacs.aet)
    until(lambda: states(database) == ["committed", "committed"])


@contextmanager
def away(_pacs: StandIn) -> Iterator[None]:
    """It has not been started."""
    yield


@contextmanager
def congested(pacs: StandIn) -> Iterator[None]:
    """It has no association left for us, and says so."""
    pacs.start()
    pacs.server.ae.maximum_associations = 1
    other = AE()
    other.add_requested_context(Verification)
    association = other.associate("127.0.0.1", pacs.port)
    yield
    association.release()
    pacs.stop()


@contextmanager
def estranged(pacs: StandIn) -> Iterator[None]:
    """It does not know us any more, and says so for good: its table of AE titles is being mended."""
    pacs.start()
    pacs.server.ae.require_calling_aet = ["SOMEBODY"]
    yield
    pacs.stop()


@pytest.mark.parametrize("trouble", [away, congested, estranged])
def test_a_long_outage_is_not_held_against_the_objects(
    database: Database,
    pacs: StandIn,
    deliverer: Deliverer,
    revision_id: int,
    trouble: Callable[[StandIn], AbstractContextManager[None]],
) -> None:
    with trouble(pacs):
        for _ in range(5):  # delivery_attempts is 3
            close_breaker(database, pacs.aet)
            deliverer.deliver(revision_id, pacs.aet)
            time.sleep(0.02)
    assert {(row.state, row.attempt) for row in rows(database)} == {("waiting", 0)}
    assert objects_deferred(database) == [2, 2, 2, 2, 2], "one event for each try, however many objects wait"
    close_breaker(database, pacs.aet)
    pacs.manners.store_status = 0xA700  # as a PACS does that has just come back
    pacs.start()
    deliverer.deliver(revision_id, pacs.aet)
    assert {(row.state, row.attempt) for row in rows(database)} == {("waiting", 1)}
    pacs.manners.store_status = 0x0000
    time.sleep(0.02)
    deliverer.deliver(revision_id, pacs.aet)
    until(lambda: states(database) == ["committed", "committed"])


def test_a_peer_that_stays_away_is_tried_less_and_less_often(
    settings: Settings, database: Database, archive: Archive, pacs: StandIn, revision_id: int
) -> None:
    patient = settings.model_copy(update={"retry_first_s": 4000.0, "retry_most_s": 50_000.0})
    deliverer = Deliverer(patient, database, archive, "test")
    waits = []
    for _ in range(6):
        close_breaker(database, pacs.aet)
        deliverer.deliver(revision_id, pacs.aet)
        wait = rows(database)[0].not_before - now()
        waits.append(wait.total_seconds())
        with database.write() as session:  # so much time goes by
            for row in session.scalars(select(DeliveryRow)):
                row.created_at, row.not_before = row.created_at - wait, now()
    assert waits == pytest.approx([4000, 4000, 8000, 16_000, 32_000, 50_000], abs=500)


def test_all_that_waits_for_a_peer_is_due_once_it_is_back(
    settings: Settings, database: Database, archive: Archive, pacs: StandIn, revision_id: int
) -> None:
    patient = settings.model_copy(update={"retry_first_s": 4000.0, "retry_most_s": 4000.0})
    deliverer = Deliverer(patient, database, archive, "test")
    deliverer.deliver(revision_id, pacs.aet)
    assert all(row.not_before > now() for row in rows(database))
    with database.write() as session:
        session.get_one(DeliveryRow, rows(database)[0].id).not_before = now()
    pacs.start()
    deliverer.deliver(revision_id, pacs.aet)
    assert {row.state for row in rows(database)} - {"waiting"}
    assert rows(database)[1].not_before <= now()
    deliverer.deliver(revision_id, pacs.aet)
    until(lambda: states(database) == ["committed", "committed"])


def test_a_peer_that_has_moved_gets_what_waits_as_soon_as_the_site_file_says_where(
    settings: Settings, database: Database, archive: Archive, pacs: StandIn, revision_id: int
) -> None:
    patient = settings.model_copy(update={"retry_first_s": 4000.0, "retry_most_s": 4000.0, "breaker_failures": 1})
    deliverer = Deliverer(patient, database, archive, "test")
    deliverer.deliver(revision_id, pacs.aet)
    pacs.port = free_port()
    pacs.start()
    moved = Peer(aet=pacs.aet, host="127.0.0.1", port=pacs.port)
    apply_site(database, Site.model_validate({"peer": [PACS, moved]}), actor="test")
    deliverer.deliver(revision_id, pacs.aet)
    until(lambda: states(database) == ["committed", "committed"])


def objects_deferred(database: Database) -> list[int]:
    with database.read() as session:
        details = session.scalars(select(AuditEventRow.detail).where(AuditEventRow.action == "delivery.deferred"))
        return [detail["objects"] for detail in details]


def test_certificates_of_ours_that_cannot_be_used_are_no_fault_of_an_object(
    settings: Settings, database: Database, archive: Archive, pacs: StandIn, revision_id: int, tmp_path: Path
) -> None:
    secured = Peer(aet=pacs.aet, host="127.0.0.1", port=pacs.port, tls=True)
    apply_site(database, Site.model_validate({"peer": [PACS, secured]}), actor="test")
    lost = settings.model_copy(update={"tls_certificate": tmp_path / "none.pem", "tls_authorities": tmp_path / "ca"})
    Deliverer(lost, database, archive, "test").deliver(revision_id, pacs.aet)
    assert {(row.state, row.attempt) for row in rows(database)} == {("waiting", 0)}
    assert "TLS certificate or key cannot be used" in rows(database)[0].reason


def close_breaker(database: Database, aet: str) -> None:
    with database.write() as session:
        session.get_one(PeerRow, aet).open_until = None


def test_an_abort_in_the_middle_is_taken_up_where_it_broke(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int
) -> None:
    pacs.manners.aborts_after = 1
    pacs.start()
    deliverer.deliver(revision_id, pacs.aet)
    assert sorted(states(database))[-1] == "waiting"
    pacs.manners.aborts_after = None
    time.sleep(0.02)
    deliverer.deliver(revision_id, pacs.aet)
    until(lambda: states(database) == ["committed", "committed"])


def test_an_object_on_which_the_peer_always_aborts_does_not_starve_the_others(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int
) -> None:
    culprit = rows(database)[0].sop_instance_uid
    pacs.manners.aborts_on = culprit
    pacs.start()
    for _ in range(5):
        deliverer.deliver(revision_id, pacs.aet)
        time.sleep(0.05)
    until(lambda: sorted(states(database)) == ["committed", "dead"])
    assert list(pacs.stored) == [rows(database)[1].sop_instance_uid]
    assert pacs.offered[culprit] == 3


def test_the_next_alternative_goes_where_the_peer_lacks_the_class(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int, archive: Archive
) -> None:
    with database.write() as session:
        revision = session.scalars(select(RevisionRow)).one()
        job = session.scalars(select(JobRow)).one()
        preferred = session.scalars(select(ResultRow).order_by(ResultRow.sop_instance_uid)).first()
        assert preferred is not None
        other = result(
            archive, revision, job, 3, sop_class_uid=SC, alternatives=preferred.alternatives, fallback=1, kind="sc"
        )
        work.add_results(session, [other])
    pacs.manners.refuses = (CT,)
    pacs.start()
    deliverer.deliver(revision_id, pacs.aet)
    deliverer.deliver(revision_id, pacs.aet)
    until(lambda: "committed" in states(database))
    assert sorted(states(database)) == ["committed", "dead", "replaced"]
    assert list(pacs.stored) == [other.sop_instance_uid]


def test_a_result_whose_file_was_changed_never_leaves(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int, archive: Archive
) -> None:
    pacs.start()
    for path in archive.path("results").rglob("*.dcm"):
        path.write_bytes(path.read_bytes()[:-2] + b"xx")
    deliverer.deliver(revision_id, pacs.aet)
    assert states(database) == ["dead", "dead"]
    assert not pacs.stored


def test_two_deliverers_at_once_send_each_object_once(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int
) -> None:
    pacs.start()
    threads = [threading.Thread(target=deliverer.deliver, args=(revision_id, pacs.aet)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: states(database) == ["committed", "committed"])
    assert set(pacs.offered.values()) == {1}


def test_a_revision_without_destinations_is_unsent_at_once(database: Database, revision_id: int) -> None:
    with database.write() as session:
        for row in session.scalars(select(DeliveryRow)):
            session.delete(row)
        session.flush()
        finish_revision(session, revision_id, "test")
    assert revision_state(database) == "unsent"


def test_every_move_of_a_delivery_is_on_record(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int
) -> None:
    pacs.start()
    deliverer.deliver(revision_id, pacs.aet)
    until(lambda: revision_state(database) == "delivered")
    with database.read() as session:
        actions = list(session.scalars(select(AuditEventRow.action)))
    assert actions.count("delivery.sent") == 2
    assert actions.count("delivery.committed") == 2
    assert actions.count("revision.delivered") == 1


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)  # SQLite has one writer at a time
def test_of_two_transactions_that_commit_the_last_objects_at_once_one_ends_the_revision(
    database: Database, revision_id: int
) -> None:
    both, asked = threading.Barrier(2, timeout=30), threading.Barrier(2, timeout=2)

    def commit(row: DeliveryRow) -> None:
        with database.write() as session:
            assert deliveries.move(session, row, DeliveryState.COMMITTED)
            both.wait()
            finish_revision(session, revision_id, "test")
            with suppress(threading.BrokenBarrierError):
                asked.wait()  # if both may ask at once, neither has committed when the other one does

    sent(database)
    threads = [threading.Thread(target=commit, args=(row,)) for row in rows(database)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states(database) == ["committed", "committed"]
    assert revision_state(database) == "delivered"


@pytest.mark.parametrize(
    ("revision", "ends", "expected"),
    [
        ("reported", ("committed", "committed"), "delivered"),
        ("reported", ("committed", "dead"), "incomplete"),
        ("incomplete", ("committed", "replaced"), "delivered"),
        ("reported", ("committed", "sent"), "reported"),
    ],
)
def test_the_clock_ends_the_revision_that_nobody_has_ended(
    settings: Settings,
    database: Database,
    archive: Archive,
    revision_id: int,
    revision: str,
    ends: tuple[str, str],
    expected: str,
) -> None:
    with database.write() as session:
        session.get_one(RevisionRow, revision_id).state = revision
        for row, state in zip(session.scalars(select(DeliveryRow)), ends, strict=True):
            row.state = state
    for _ in range(2):
        housekeeping = Housekeeping(settings, database, archive, actor="clock")
        waker = Waker(database, SilentBroker())  # type: ignore[arg-type]
        Clock(settings, database, waker, housekeeping, actor="clock").tick()
    assert revision_state(database) == expected
    with database.read() as session:
        actions = list(session.scalars(select(AuditEventRow.action)))
    assert sum(action in ("revision.delivered", "revision.incomplete") for action in actions) == (revision != expected)


def test_what_the_clock_takes_back_names_its_study_and_its_patient(
    settings: Settings, database: Database, archive: Archive, revision_id: int
) -> None:
    with database.write() as session:
        row = session.scalars(select(DeliveryRow)).first()
        assert row is not None
        row.state, row.attempt, row.lease_until = DeliveryState.SENDING, 1, now() - dt.timedelta(seconds=1)
    housekeeping = Housekeeping(settings, database, archive, actor="clock")
    waker = Waker(database, SilentBroker())  # type: ignore[arg-type]
    Clock(settings, database, waker, housekeeping, actor="clock").tick()
    with database.read() as session:
        event = session.scalars(select(AuditEventRow).where(AuditEventRow.action == "delivery.deferred")).one()
    assert (event.study_instance_uid, event.patient_id, event.actor) == ("1.2.3", "P-1", "clock")
    assert event.detail["reason"] == "the deliverer went silent while sending"


def sent(database: Database) -> None:
    """As if both objects had just been sent."""
    with database.write() as session:
        for row in session.scalars(select(DeliveryRow)):
            row.state, row.attempt = DeliveryState.SENT, 1


def test_what_was_sent_to_a_peer_that_is_no_longer_configured_becomes_a_dead_letter(
    database: Database, pacs: StandIn, deliverer: Deliverer, revision_id: int
) -> None:
    sent(database)
    apply_site(database, Site.model_validate({"peer": [PACS]}), actor="test")
    deliverer.deliver(revision_id, pacs.aet)
    assert states(database) == ["dead", "dead"]
    assert {row.reason for row in rows(database)} == {
        f"sent, but never proved to be stored: peer {pacs.aet} is no longer configured to receive"
    }
    assert revision_state(database) == "incomplete"
    with database.read() as session:
        assert deliveries.due_groups(session, now()) == []
