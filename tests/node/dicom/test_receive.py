"""The SCP seen from outside: DCMTK, pynetdicom and raw bytes call it over real sockets."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom import AE

from network.desk import RecordingDesk
from network.objects import CT, EXPLICIT, STUDY, ct_image, data_set_of, syntax_of, write
from network.raw import (
    ABORT,
    RELEASE_RQ,
    VERIFICATION,
    associate_rq,
    associated,
    connected,
    echo_rq,
    message,
    store_rq,
)
from node.dicom.negotiation import TRANSFER_SYNTAXES
from node.dicom.receive import Caller, StorageScp
from node.dicom.status import STATUS_OF
from node.errors import ConfigurationError, OutOfResources, Refused, UnknownCaller, WrongCalledTitle
from node.settings import Settings
from system.dcmtk import Address, dcmsend, dcmsend_successes, echoscu, run, storescu
from system.processes import wait_until

StartScp = Callable[..., StorageScp]


def raised(error: Exception) -> Callable[[object], None]:
    def act(_: object) -> None:
        raise error

    return act


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return [write(ct_image(number), tmp_path / f"{number}.dcm") for number in range(1, 4)]


# as DCMTK and pynetdicom see it


def test_answers_an_echo_of_dcmtk(scp: StorageScp, desk: RecordingDesk) -> None:
    assert echoscu(Address("PACSNODE", scp.port), calling="CT1").ok
    desk.wait(lambda desk: desk.ends)
    assert desk.callers[0].calling_aet == "CT1"
    assert desk.callers[0].called_aet == "PACSNODE"
    assert desk.callers[0].host == "127.0.0.1"
    assert desk.ends == [("association-1", "released", 0, 0)]


def test_keeps_the_data_set_bit_for_bit(scp: StorageScp, desk: RecordingDesk, images: list[Path]) -> None:
    assert storescu(Address("PACSNODE", scp.port), images).ok
    desk.wait(lambda desk: desk.ends)
    assert len(desk.taken) == 3
    for taken, path in zip(desk.taken, images, strict=True):
        sent = data_set_of(path.read_bytes())
        assert data_set_of(taken.file) == sent
        assert taken.arrival.size == len(sent)
        assert taken.arrival.sha256 == hashlib.sha256(sent).hexdigest()
        assert taken.arrival.sop_instance_uid == dcmread(path).SOPInstanceUID
        assert taken.arrival.sop_class_uid == CT
        assert taken.arrival.transfer_syntax_uid == syntax_of(taken.file) == EXPLICIT
    assert desk.ends == [("association-1", "released", 3, 0)]


@pytest.mark.parametrize(
    ("tool", "options", "propose", "syntax"),
    [
        ("dcmconv", ["+ti"], "-xi", "1.2.840.10008.1.2"),
        ("dcmconv", ["+tb"], "-xb", "1.2.840.10008.1.2.2"),
        ("dcmconv", ["+td"], "-xd", "1.2.840.10008.1.2.1.99"),
        ("dcmcrle", [], "-xr", "1.2.840.10008.1.2.5"),
        ("dcmcjpeg", ["+e1"], "-xs", "1.2.840.10008.1.2.4.70"),
        ("dcmcjpls", ["+el"], "-xt", "1.2.840.10008.1.2.4.80"),
    ],
)
def test_takes_what_dcmtk_encodes(
    scp: StorageScp, desk: RecordingDesk, images: list[Path], tool: str, options: list[str], propose: str, syntax: str
) -> None:
    encoded = images[0].with_name("encoded.dcm")
    assert run(tool, *options, images[0], encoded).ok
    assert storescu(Address("PACSNODE", scp.port), [encoded], options=[propose]).ok
    desk.wait(lambda desk: desk.ends)
    assert desk.taken[0].arrival.transfer_syntax_uid == syntax
    assert dcmread(encoded).file_meta.TransferSyntaxUID == syntax
    if syntax.endswith(".99"):  # DCMTK deflates anew when it sends
        kept = images[0].with_name("kept.dcm")
        kept.write_bytes(desk.taken[0].file)
        assert dcmread(kept) == dcmread(encoded)
    else:
        assert data_set_of(desk.taken[0].file) == data_set_of(encoded.read_bytes())


def test_takes_a_folder_from_dcmsend(scp: StorageScp, desk: RecordingDesk, images: list[Path]) -> None:
    answer = dcmsend(Address("PACSNODE", scp.port), images)
    assert dcmsend_successes(answer) == 3, answer.text
    assert {taken.arrival.sop_instance_uid for taken in desk.taken} == {f"{STUDY}.1.{n}" for n in (1, 2, 3)}


def test_takes_objects_of_pynetdicom_with_small_fragments(
    scp: StorageScp, desk: RecordingDesk, images: list[Path]
) -> None:
    ae = AE("PYNET")
    ae.add_requested_context(CT, EXPLICIT)
    association = ae.associate("127.0.0.1", scp.port, max_pdu=16384)
    try:
        for path in images:
            assert association.send_c_store(dcmread(path)).Status == 0
    finally:
        association.release()
    desk.wait(lambda desk: desk.ends)
    assert [data_set_of(taken.file) for taken in desk.taken] == [data_set_of(path.read_bytes()) for path in images]


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_keeps_every_transfer_syntax_as_it_came(scp: StorageScp, desk: RecordingDesk, syntax: str) -> None:
    data = os.urandom(70001)
    with associated(scp.port, contexts=[(CT, (syntax,))]) as peer:
        peer.say(message(1, store_rq("1.2.3"), data))
        assert peer.hear_status() == 0
        peer.say(RELEASE_RQ)
        assert peer.hear()[0] == 6
    assert data_set_of(desk.taken[0].file) == data
    assert desk.taken[0].arrival.transfer_syntax_uid == syntax


# who may call


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UnknownCaller("nobody knows it"), (1, 1, 3)),
        (WrongCalledTitle("not ours"), (1, 1, 7)),
        (OutOfResources("later"), (2, 3, 1)),
        (RuntimeError("a fault of ours"), (2, 2, 1)),
    ],
)
def test_rejects_with_the_reason_of_the_standard(
    scp: StorageScp, desk: RecordingDesk, error: Exception, expected: tuple[int, int, int]
) -> None:
    desk.on_admit = raised(error)
    with connected(scp.port) as peer:
        peer.say(associate_rq())
        kind, body = peer.hear()
        assert (kind, tuple(body[1:])) == (3, expected)
    assert desk.ends == []


def test_dcmtk_reads_the_rejection(scp: StorageScp, desk: RecordingDesk) -> None:
    desk.on_admit = raised(UnknownCaller("nobody knows it"))
    answer = echoscu(Address("PACSNODE", scp.port))
    assert not answer.ok
    assert "Calling AE Title Not Recognized" in answer.text


def test_rejects_for_now_beyond_the_limit(start_scp: StartScp) -> None:
    scp = start_scp(max_associations=2)
    with associated(scp.port) as first, associated(scp.port), connected(scp.port) as third:
        third.say(associate_rq())
        kind, body = third.hear()
        assert (kind, tuple(body[1:])) == (3, (2, 3, 2))
        first.say(RELEASE_RQ)
        assert first.hear()[0] == 6
        first.sock.shutdown(socket.SHUT_WR)
        assert first.is_closed()
        with associated(scp.port) as fourth:
            fourth.say(message(3, echo_rq()))
            assert fourth.hear_status() == 0


# what the desk says


def test_full_disk_is_told_at_once_and_the_association_lives(scp: StorageScp, desk: RecordingDesk) -> None:
    with associated(scp.port) as peer:
        desk.room = "91 % of the disk is used"
        peer.say(message(1, store_rq("1.2.3"), bytes(100_000)))
        assert peer.hear_status() == 0xA700
        desk.room = None
        peer.say(message(1, store_rq("1.2.4", message_id=2), bytes(100_000)))
        assert peer.hear_status() == 0
        peer.say(RELEASE_RQ)
        assert peer.hear()[0] == 6
    desk.wait(lambda desk: desk.ends)
    assert desk.losses == [("association-1", "1.2.3", "91 % of the disk is used")]
    assert desk.ends == [("association-1", "released", 1, 1)]


@pytest.mark.parametrize("kind", sorted(STATUS_OF, key=lambda kind: kind.__name__))
def test_refusals_of_the_desk_become_statuses(scp: StorageScp, desk: RecordingDesk, kind: type[Refused]) -> None:
    desk.on_take = raised(kind("for a reason"))
    with associated(scp.port) as peer:
        peer.say(message(1, store_rq("1.2.3"), b"1234"))
        response = peer.hear_response()
        assert response[0x0900] == STATUS_OF[kind]
        assert 0x0902 in response  # Error Comment
        peer.say(message(3, echo_rq()))
        assert peer.hear_status() == 0


def test_a_fault_of_ours_is_never_success(scp: StorageScp, desk: RecordingDesk) -> None:
    desk.on_take = raised(RuntimeError("the database is away"))
    with associated(scp.port) as peer:
        peer.say(message(1, store_rq("1.2.3"), b"1234"))
        assert peer.hear_status() == 0x0110
        desk.on_take = lambda arrival: None
        peer.say(message(1, store_rq("1.2.3"), b"1234"))
        assert peer.hear_status() == 0


def test_nothing_is_answered_before_the_desk_has_taken_it(scp: StorageScp, desk: RecordingDesk) -> None:
    may_go = threading.Event()
    desk.on_take = lambda arrival: may_go.wait(20) and None
    with associated(scp.port) as peer:
        peer.say(message(1, store_rq("1.2.3"), b"1234"))
        peer.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            peer.sock.recv(1)
        peer.sock.settimeout(20)
        may_go.set()
        assert peer.hear_status() == 0


def test_a_moved_file_stays_where_it_was_moved(scp: StorageScp, desk: RecordingDesk, tmp_path: Path) -> None:
    desk.on_take = lambda arrival: arrival.path.rename(tmp_path / "kept.dcm") and None
    with associated(scp.port) as peer:
        peer.say(message(1, store_rq("1.2.3"), b"1234"))
        assert peer.hear_status() == 0
    assert data_set_of((tmp_path / "kept.dcm").read_bytes()) == b"1234"


def test_a_spool_that_cannot_be_written_is_out_of_resources(scp: StorageScp, desk: RecordingDesk, spool: Path) -> None:
    spool.rmdir()
    with associated(scp.port) as peer:
        peer.say(message(1, store_rq("1.2.3"), bytes(300_000)))
        assert peer.hear_status() == 0xA700
        spool.mkdir()
        peer.say(message(1, store_rq("1.2.3"), bytes(300_000)))
        assert peer.hear_status() == 0
    assert [loss[1] for loss in desk.losses] == ["1.2.3"]


def test_priority_reaches_the_desk(scp: StorageScp, desk: RecordingDesk) -> None:
    with associated(scp.port) as peer:
        for number, priority in enumerate((0, 1, 2, 77)):
            peer.say(message(1, store_rq(f"1.2.{number}", priority=priority), b"1234"))
            assert peer.hear_status() == 0
    assert [taken.arrival.priority for taken in desk.taken] == [0, 1, 2, 0]


# many at once


def test_eight_senders_of_the_same_object_are_all_answered(scp: StorageScp, desk: RecordingDesk) -> None:
    data = os.urandom(300_000)

    def send(_: int) -> int:
        with associated(scp.port) as peer:
            peer.say(message(1, store_rq("1.2.3"), data))
            return peer.hear_status()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(send, range(8))) == [0] * 8
    assert len({taken.arrival.path for taken in desk.taken}) == 8
    assert {taken.arrival.sha256 for taken in desk.taken} == {hashlib.sha256(data).hexdigest()}


def test_an_echo_is_answered_while_twenty_senders_stall_in_mid_object(scp: StorageScp, desk: RecordingDesk) -> None:
    stalled = message(1, store_rq("1.2.3"), bytes(50_000))[:-10_000]
    peers = [associated(scp.port) for _ in range(20)]
    senders = [peer.__enter__() for peer in peers]
    try:
        for sender in senders:
            sender.say(stalled)
        assert echoscu(Address("PACSNODE", scp.port)).ok
    finally:
        for peer in peers:
            peer.__exit__(None, None, None)
    desk.wait(lambda desk: len(desk.losses) == 20)


def test_silent_connections_disturb_nobody(start_scp: StartScp) -> None:
    scp = start_scp(association_timeout_s=1.0)
    with connected(scp.port) as silent, connected(scp.port) as slow:
        slow.say(associate_rq()[:20])
        assert echoscu(Address("PACSNODE", scp.port)).ok
        assert silent.is_closed()
        assert slow.is_closed()


def test_a_flood_of_silent_connections_gives_way_to_a_real_one(start_scp: StartScp) -> None:
    scp = start_scp()
    silent = [connected(scp.port) for _ in range(150)]
    first = silent[0].__enter__()
    for other in silent[1:]:
        other.__enter__()
    try:
        assert echoscu(Address("PACSNODE", scp.port)).ok
        assert first.is_closed()  # the oldest had to go
    finally:
        for other in silent:
            other.__exit__(None, None, None)


# ends


def test_an_abort_in_mid_object_leaves_nothing(scp: StorageScp, desk: RecordingDesk, spool: Path) -> None:
    with associated(scp.port) as peer:
        peer.say(message(1, store_rq("1.2.3"), bytes(50_000))[:-2_012])  # whole PDUs, but not the last
        peer.say(ABORT)
        assert peer.is_closed()
    desk.wait(lambda desk: desk.ends)
    assert [loss[:2] for loss in desk.losses] == [("association-1", "1.2.3")]
    assert desk.ends == [("association-1", "aborted", 0, 0)]
    assert not list(spool.iterdir())


def test_a_connection_lost_in_mid_object_leaves_nothing(scp: StorageScp, desk: RecordingDesk, spool: Path) -> None:
    with associated(scp.port) as peer:
        peer.say(message(1, store_rq("1.2.3"), b"whole"))
        assert peer.hear_status() == 0
        peer.say(message(1, store_rq("1.2.4"), bytes(50_000))[:-1])
    desk.wait(lambda desk: desk.ends)
    assert [loss[:2] for loss in desk.losses] == [("association-1", "1.2.4")]
    assert desk.ends == [("association-1", "lost", 1, 0)]
    assert not list(spool.iterdir())


def test_silence_between_objects_ends_the_association(start_scp: StartScp, desk: RecordingDesk) -> None:
    scp = start_scp(idle_timeout_s=0.2)
    with associated(scp.port) as peer:
        assert peer.hear()[0] == 7
    desk.wait(lambda desk: desk.ends)
    assert desk.ends == [("association-1", "timed out", 0, 0)]


@pytest.mark.parametrize("cut", [3, 60, 40_000])
def test_silence_within_an_object_ends_the_association(
    start_scp: StartScp, desk: RecordingDesk, spool: Path, cut: int
) -> None:
    scp = start_scp(dimse_timeout_s=0.2, idle_timeout_s=0.2)
    with associated(scp.port) as peer:
        peer.say(message(1, store_rq("1.2.3"), bytes(50_000))[:cut])
        assert peer.hear()[0] == 7
    desk.wait(lambda desk: desk.ends)
    assert desk.ends == [("association-1", "timed out", 0, 0)]
    assert len(desk.losses) == (1 if cut > 1000 else 0)


def test_stop_lets_an_object_in_flight_be_completed(scp: StorageScp, desk: RecordingDesk, spool: Path) -> None:
    whole = message(1, store_rq("1.2.3"), bytes(50_000))
    with associated(scp.port) as sender, associated(scp.port) as idle:
        sender.say(whole[:30_000])
        idle.say(message(3, echo_rq()))
        assert idle.hear_status() == 0
        wait_until(lambda: list(spool.iterdir()), "the object has been begun", every_s=0.01)
        stopping = threading.Thread(target=scp.stop, kwargs={"grace_s": 20.0})
        stopping.start()
        assert idle.hear()[0] == 7
        sender.say(whole[30_000:])
        assert sender.hear_status() == 0
        assert sender.hear()[0] == 7
        stopping.join(20)
        assert not stopping.is_alive()
    assert sorted(desk.ends) == [("association-1", "aborted", 1, 0), ("association-2", "aborted", 0, 0)]
    assert not scp_answers(scp)


def test_stop_cuts_whoever_does_not_come_to_an_end(scp: StorageScp, desk: RecordingDesk, spool: Path) -> None:
    with associated(scp.port) as sender:
        sender.say(message(1, store_rq("1.2.3"), bytes(50_000))[:30_000])
        wait_until(lambda: list(spool.iterdir()), "the object has been begun", every_s=0.01)
        scp.stop(grace_s=0.1)
        assert sender.is_closed()
    desk.wait(lambda desk: desk.ends)
    assert [loss[1] for loss in desk.losses] == ["1.2.3"]


def scp_answers(scp: StorageScp) -> bool:
    try:
        with associated(scp.port):
            return True
    except OSError:
        return False


# start


def test_what_a_killed_run_left_in_the_spool_is_removed(start_scp: StartScp, spool: Path) -> None:
    spool.mkdir()
    (spool / "0badcafe-00000001.part").write_bytes(b"half an object")
    start_scp()
    assert not list(spool.iterdir())


def test_a_port_in_use_is_a_configuration_error(scp: StorageScp, desk: RecordingDesk, tmp_path: Path) -> None:
    other = StorageScp(Settings(host="127.0.0.1", port=scp.port), desk, tmp_path / "other")
    with pytest.raises(ConfigurationError, match=f"port {scp.port}"):
        other.start()


def test_callers_are_told_apart_by_host_and_title(scp: StorageScp, desk: RecordingDesk) -> None:
    with associated(scp.port, calling="CT 2") as peer:
        port = peer.sock.getsockname()[1]
    desk.wait(lambda desk: desk.ends)
    assert desk.callers == [Caller("CT 2", "PACSNODE", "127.0.0.1", port, None)]


def test_verification_context_takes_no_objects(scp: StorageScp, desk: RecordingDesk) -> None:
    with associated(scp.port, contexts=[(VERIFICATION, (EXPLICIT,))]) as peer:
        peer.say(message(1, store_rq("1.2.3", sop_class=VERIFICATION), b"1234"))
        assert peer.hear_status() == 0xA900
    assert desk.taken == []


def test_objects_on_several_contexts_may_alternate(scp: StorageScp, desk: RecordingDesk) -> None:
    capture = "1.2.840.10008.5.1.4.1.1.7"
    contexts = [(CT, (EXPLICIT,)), (capture, ("1.2.840.10008.1.2.4.50",)), (VERIFICATION, (EXPLICIT,))]
    with associated(scp.port, contexts=contexts) as peer:
        for number in range(3):
            peer.say(message(1, store_rq(f"1.2.{number}"), b"slice"))
            assert peer.hear_status() == 0
            peer.say(message(5, echo_rq()))
            assert peer.hear_status() == 0
            peer.say(message(3, store_rq(f"1.3.{number}", sop_class=capture), b"capture"))
            assert peer.hear_status() == 0
    assert [taken.arrival.sop_class_uid for taken in desk.taken] == [CT, capture] * 3
    assert desk.taken[5].arrival.sop_instance_uid == "1.3.2"


def test_a_peer_that_does_not_wait_for_answers_is_served_in_order(scp: StorageScp, desk: RecordingDesk) -> None:
    with associated(scp.port) as peer:
        peer.say(b"".join(message(1, store_rq(f"1.2.{n}", message_id=n), b"x" * n) for n in range(1, 20)) + RELEASE_RQ)
        assert [peer.hear_response()[0x0120] for _ in range(19)] == list(range(1, 20))
        assert peer.hear()[0] == 6
    assert [taken.arrival.size for taken in desk.taken] == list(range(1, 20))


def test_a_receiver_may_be_stopped_and_started_again(scp: StorageScp) -> None:
    scp.stop()
    assert not scp_answers(scp)
    scp.start()
    assert scp_answers(scp)


def test_a_title_with_control_characters_gets_no_association(scp: StorageScp, desk: RecordingDesk) -> None:
    with connected(scp.port) as peer:
        peer.say(associate_rq(calling="CT\n2\x1b[0m"))
        assert peer.hear()[0] == 7
    assert desk.callers == []


def test_classes_without_a_context_are_told_when_the_association_ends(scp: StorageScp, desk: RecordingDesk) -> None:
    entity = AE(ae_title="MODALITY")
    entity.add_requested_context("1.2.840.10008.1.1")
    entity.add_requested_context("1.2.840.10008.5.1.4.31")  # worklist: never ours
    association = entity.associate("127.0.0.1", scp.port, ae_title="PACSNODE")
    assert association.is_established
    association.release()
    desk.wait(lambda it: it.ends)
    assert desk.not_accepted == [("1.2.840.10008.5.1.4.31",)]
