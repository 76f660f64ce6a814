"""Protocol on one association: negotiation, services, and peers who break the rules."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role

from network.desk import RecordingDesk
from network.objects import CT, EXPLICIT, data_set_of
from network.raw import (
    RELEASE_RQ,
    VERIFICATION,
    associate_rq,
    associated,
    command,
    connected,
    echo_rq,
    message,
    p_data,
    pdv,
    store_rq,
)
from node.dicom.receive import StorageScp

StartScp = Callable[..., StorageScp]
COMMITMENT = "1.2.840.10008.1.20.1"
IMPLICIT = "1.2.840.10008.1.2"


def results(port: int, contexts: list[tuple[str, tuple[str, ...]]]) -> list[tuple[int, str]]:
    """(result, transfer syntax) of each proposed context."""
    with connected(port) as peer:
        peer.say(associate_rq(contexts))
        kind, body = peer.hear()
        assert kind == 2
    found, position = [], 68
    while position < len(body):
        item, _, length = struct.unpack_from(">BBH", body, position)
        if item == 0x21:
            found.append((body[position + 6], body[position + 12 : position + 4 + length].decode()))
        position += 4 + length
    return found


def still_serves(scp: StorageScp) -> None:
    with associated(scp.port) as peer:
        peer.say(message(3, echo_rq()))
        assert peer.hear_status() == 0


# negotiation


def test_takes_old_new_and_private_storage_classes_and_no_others(scp: StorageScp) -> None:
    taken = {
        "Enhanced CT": "1.2.840.10008.5.1.4.1.1.2.1",
        "Legacy Converted Enhanced CT": "1.2.840.10008.5.1.4.1.1.2.2",
        "Dose SR": "1.2.840.10008.5.1.4.1.1.88.67",
        "Label map": "1.2.840.10008.5.1.4.1.1.66.7",
        "PR": "1.2.840.10008.5.1.4.1.1.11.1",
        "KO": "1.2.840.10008.5.1.4.1.1.88.59",
        "retired NM": "1.2.840.10008.5.1.4.1.1.5",
        "not yet thought of": "1.2.840.10008.5.1.4.1.1.999.1",
        "private": "1.3.12.2.1107.5.9.1",
        "Commitment": COMMITMENT,
    }
    refused = {
        "Print": "1.2.840.10008.5.1.1.9",
        "Worklist": "1.2.840.10008.5.1.4.31",
        "Move": "1.2.840.10008.5.1.4.1.2.2.2",
    }
    found = results(scp.port, [(uid, (EXPLICIT,)) for uid in (*taken.values(), *refused.values())])
    assert [result for result, _ in found] == [0] * len(taken) + [3] * len(refused)


def test_takes_the_syntax_that_the_sender_names_first_but_explicit_before_implicit(scp: StorageScp) -> None:
    big, jpeg2000, video = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.7.1"
    proposals = [(jpeg2000, EXPLICIT), (IMPLICIT, EXPLICIT), (big, IMPLICIT), (EXPLICIT, jpeg2000), (video, IMPLICIT)]
    found = results(scp.port, [(CT, proposal) for proposal in proposals])
    assert found == [(0, jpeg2000), (0, EXPLICIT), (0, big), (0, EXPLICIT), (0, IMPLICIT)]


def test_refuses_syntaxes_that_hold_no_pixels(scp: StorageScp) -> None:
    jpip, unknown = "1.2.840.10008.1.2.4.204", "1.2.3.4"
    assert [result for result, _ in results(scp.port, [(CT, (jpip,)), (CT, (unknown,))])] == [4, 4]


def test_answers_128_contexts(scp: StorageScp) -> None:
    assert results(scp.port, [(CT, (EXPLICIT,))] * 128) == [(0, EXPLICIT)] * 128


@pytest.mark.parametrize(
    ("request_", "expected"),
    [({"version": 2}, (1, 2, 2)), ({"application": "1.2.840.10008.3.1.1.2"}, (1, 1, 2))],
)
def test_rejects_other_protocols(scp: StorageScp, request_: dict[str, object], expected: tuple[int, ...]) -> None:
    with connected(scp.port) as peer:
        peer.say(associate_rq(**request_))
        kind, body = peer.hear()
        assert (kind, tuple(body[1:])) == (3, expected)


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),  # a TLS greeting on the plain port
        struct.pack(">BBI", 1, 0, 0xFFFFFFFF) + bytes(100),
        struct.pack(">BBI", 1, 0, 10) + bytes(10),
        p_data(pdv(1, 3, echo_rq())),
        RELEASE_RQ,
    ],
)
def test_whoever_begins_with_something_else_is_sent_away(scp: StorageScp, desk: RecordingDesk, words: bytes) -> None:
    with connected(scp.port) as peer:
        peer.say(words)
        assert peer.hear()[0] == 7
    assert desk.callers == []
    still_serves(scp)


# services


def test_says_that_it_does_not_know_an_operation(scp: StorageScp) -> None:
    find = command(e0002=CT, e0100=0x20, e0110=9, e0700=0, e0800=1)
    with associated(scp.port) as peer:
        peer.say(message(1, find, bytes(50_000)))
        assert peer.hear_status() == 0x0211
        peer.say(message(1, command(e0120=9, e0100=0x0FFF, e0800=0x0101)))  # a cancel has no response
        peer.say(message(3, echo_rq()))
        assert peer.hear_status() == 0


def report(committed: list[str], failed: list[str]) -> Dataset:
    told = Dataset()
    told.TransactionUID = "1.2.3.9"
    told.ReferencedSOPSequence = [Dataset() for _ in committed]
    for item, uid in zip(told.ReferencedSOPSequence, committed, strict=True):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, uid
    told.FailedSOPSequence = [Dataset() for _ in failed]
    for item, uid in zip(told.FailedSOPSequence, failed, strict=True):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID, item.FailureReason = CT, uid, 0x0112
    return told


@pytest.mark.parametrize("with_role", [True, False])
def test_hears_a_commitment_report_from_a_pacs_that_calls_back(
    scp: StorageScp, desk: RecordingDesk, with_role: bool
) -> None:
    ae = AE("PACS")
    ae.add_requested_context(COMMITMENT)
    roles = [build_role(COMMITMENT, scp_role=True)] if with_role else []
    association = ae.associate("127.0.0.1", scp.port, ext_neg=roles)
    try:
        assert association.accepted_contexts[0].as_scp is with_role
        status, _ = association.send_n_event_report(report(["1.1", "1.2"], ["1.3"]), 2, COMMITMENT, COMMITMENT + ".1")
        assert status.Status == 0
    finally:
        association.release()
    assert desk.reports[0].transaction_uid == "1.2.3.9"
    assert desk.reports[0].committed == {"1.1", "1.2"}
    assert desk.reports[0].failed == {"1.3": "0x0112 (no such object instance)"}


def test_a_commitment_report_that_says_nothing_is_not_acknowledged(scp: StorageScp, desk: RecordingDesk) -> None:
    event = command(e0002=COMMITMENT, e0100=0x0100, e0110=3, e0800=1, e1000=COMMITMENT + ".1", e1002=1)
    with associated(scp.port, contexts=[(COMMITMENT, (EXPLICIT,))]) as peer:
        for rubbish in (b"", b"\xff" * 9, b"\x08\x00\x95\x11UI\x04\x00../x"):
            peer.say(message(1, event, rubbish))
            assert peer.hear_status() == 0x0110
    assert desk.reports == []


# peers who lie


@pytest.mark.parametrize("instance", ["../../etc/passwd", "1.2..3", "..", "", "1.2.3/4", "a.b", "1" * 65, "1.2\n3"])
def test_an_instance_uid_that_is_none_is_refused_and_never_a_file_name(
    scp: StorageScp, desk: RecordingDesk, spool: Path, instance: str
) -> None:
    with associated(scp.port) as peer:
        peer.say(message(1, store_rq(instance), bytes(40_000)))
        assert peer.hear_status() == 0xC000
        peer.say(message(1, store_rq("1.2.3"), b"1234"))
        assert peer.hear_status() == 0
    assert [loss[1] for loss in desk.losses] == [""]
    assert len(desk.taken) == 1


def test_a_class_other_than_the_context_s_is_refused(scp: StorageScp, desk: RecordingDesk) -> None:
    with associated(scp.port) as peer:
        peer.say(message(1, store_rq("1.2.3", sop_class="1.2.840.10008.5.1.4.1.1.7"), bytes(40_000)))
        assert peer.hear_status() == 0xA900
    assert desk.taken == []


def test_a_store_request_without_a_data_set_is_refused(scp: StorageScp) -> None:
    with associated(scp.port) as peer:
        peer.say(message(1, store_rq("1.2.3", data=0x0101)))
        assert peer.hear_status() == 0xC000


BROKEN = {
    "data set after a command that has none": p_data(pdv(3, 3, echo_rq())) + p_data(pdv(3, 2, b"1234")),
    "command within an object": message(1, store_rq("1.2.3")) + p_data(pdv(3, 3, echo_rq())),
    "data of another context": message(1, store_rq("1.2.3")) + p_data(pdv(3, 2, b"1234")),
    "context that was not accepted": message(99, store_rq("1.2.3"), b"1234"),
    "commands interleaved": p_data(pdv(1, 1, store_rq("1.2.3")[:20]), pdv(3, 3, echo_rq())),
    "element longer than the command": message(1, store_rq("1.2.3")[:-3], b"1234"),
    "element of another group": message(1, struct.pack("<HHI", 8, 0, 0), b"1234"),
    "no message id": message(1, command(e0002=CT, e0100=1, e0800=1, e1000="1.2.3"), b"1234"),
    "no operation": message(1, command(e0002=CT, e0110=1, e0800=1, e1000="1.2.3"), b"1234"),
    "no word on a data set": message(1, command(e0002=CT, e0100=1, e0110=1, e1000="1.2.3"), b"1234"),
    "response to nothing": message(1, command(e0100=0x8001, e0120=1, e0800=0x0101, e0900=0)),
    "command without end": b"".join(p_data(pdv(1, 1, bytes(16_000))) for _ in range(5)),
    "fragment longer than its PDU": struct.pack(">BBI", 4, 0, 20) + struct.pack(">IBB", 100, 1, 3) + bytes(14),
    "fragment shorter than its header": p_data(struct.pack(">IBB", 1, 1, 3)),
    "PDU ends within a fragment header": p_data(pdv(1, 1, b"12"), b"123"),
    "P-DATA too short": p_data(b"1234"),
    "P-DATA without end": struct.pack(">BBI", 4, 0, 0xFFFFFFFF),
    "second association request": associate_rq(),
    "release confirmed but not asked": struct.pack(">BBII", 6, 0, 4, 0),
    "release of a wrong length": struct.pack(">BBI", 5, 0, 8) + bytes(8),
    "unknown PDU": struct.pack(">BBI", 0x99, 0, 4) + bytes(4),
}


@pytest.mark.parametrize("words", BROKEN.values(), ids=BROKEN.keys())
def test_broken_protocol_ends_that_association_and_nothing_else(
    scp: StorageScp, desk: RecordingDesk, spool: Path, words: bytes
) -> None:
    with associated(scp.port) as other:
        with associated(scp.port) as peer:
            peer.say(words)
            peer.say(p_data(pdv(3, 3, echo_rq())))
            while (heard := peer.hear()[0]) == 4:
                continue
            assert heard == 7
        other.say(message(1, store_rq("1.2.4"), b"1234"))
        assert other.hear_status() == 0
    desk.wait(lambda desk: len(desk.ends) == 2)
    assert ("association-2", "aborted", 0, 0) in desk.ends
    assert [taken.arrival.sop_instance_uid for taken in desk.taken] == ["1.2.4"]
    assert not list(spool.iterdir())


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100, 16_382, 120_000])
def test_fragments_may_have_any_size(scp: StorageScp, desk: RecordingDesk, step: int) -> None:
    data = random.Random(step).randbytes(3000 * min(step, 100))
    encoded = store_rq("1.2.3")
    with associated(scp.port) as peer:
        for start in range(0, len(encoded), step):
            peer.say(p_data(pdv(1, 3 if start + step >= len(encoded) else 1, encoded[start : start + step])))
        peer.say(b"".join(p_data(pdv(1, 0, data[start : start + step])) for start in range(0, len(data), step)))
        peer.say(p_data(pdv(1, 2, b"")))  # the last fragment may be empty
        assert peer.hear_status() == 0
    assert data_set_of(desk.taken[0].file) == data


def test_one_pdu_may_hold_a_command_and_its_data(scp: StorageScp, desk: RecordingDesk) -> None:
    with associated(scp.port) as peer:
        encoded = store_rq("1.2.3")
        peer.say(p_data(pdv(1, 1, encoded[:9]), pdv(1, 3, encoded[9:]), pdv(1, 0, b"12"), pdv(1, 2, b"34")))
        assert peer.hear_status() == 0
        assert data_set_of(desk.taken[0].file) == b"1234"


def test_bytes_may_come_one_by_one(scp: StorageScp, desk: RecordingDesk) -> None:
    with connected(scp.port) as peer:
        for byte in associate_rq():
            peer.say(bytes([byte]))
        assert peer.hear()[0] == 2
        for byte in message(1, store_rq("1.2.3"), b"1234") + RELEASE_RQ:
            peer.say(bytes([byte]))
        assert peer.hear_status() == 0
        assert peer.hear()[0] == 6
    assert data_set_of(desk.taken[0].file) == b"1234"


def test_an_object_larger_than_the_buffer_arrives_whole(scp: StorageScp, desk: RecordingDesk) -> None:
    data = random.Random(1).randbytes(5_000_001)
    with associated(scp.port) as peer:
        peer.say(message(1, store_rq("1.2.3"), data, step=131_066))
        assert peer.hear_status() == 0
    assert data_set_of(desk.taken[0].file) == data


def test_answers_fit_a_peer_with_tiny_pdus(scp: StorageScp) -> None:
    with associated(scp.port, max_length=32) as peer:
        peer.say(message(3, echo_rq()))
        whole, control = b"", 0
        while not control & 2:
            kind, body = peer.hear()
            assert kind == 4
            assert len(body) <= 32
            control = body[5]
            whole += body[6:]
        assert struct.pack("<HHIH", 0, 0x0900, 2, 0) in whole


def test_the_file_meta_tells_where_the_object_came_from(scp: StorageScp, desk: RecordingDesk) -> None:
    with associated(scp.port, calling="CT2") as peer:
        peer.say(message(1, store_rq("1.2.3"), struct.pack("<HH2sH", 8, 0x60, b"CS", 2) + b"CT"))
        assert peer.hear_status() == 0
    image = dcmread(BytesIO(desk.taken[0].file))
    assert image.Modality == "CT"
    assert image.file_meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert image.file_meta.MediaStorageSOPClassUID == CT
    assert image.file_meta.SourceApplicationEntityTitle == "CT2"


# random harm


def test_random_mutations_never_harm_the_server(
    start_scp: StartScp, desk: RecordingDesk, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Bounded fuzzing of the whole path: every stream ends, nothing is left over, and the next echo is answered."""
    scp = start_scp(idle_timeout_s=2, dimse_timeout_s=2, association_timeout_s=2, connection_timeout_s=2)
    rng = random.Random(20260101)
    greeting = associate_rq([(CT, (EXPLICIT,)), (VERIFICATION, (EXPLICIT,)), (COMMITMENT, (EXPLICIT,))])
    event = command(e0002=COMMITMENT, e0100=0x0100, e0110=3, e0800=1, e1000=COMMITMENT + ".1", e1002=1)
    talk = message(1, store_rq("1.2.3"), bytes(3000), step=700) + message(3, echo_rq())
    talk += message(5, event, struct.pack("<HH2sH", 8, 0x1195, b"UI", 4) + b"1.2\0") + RELEASE_RQ
    for _ in range(250):
        stream = bytearray(greeting + talk)
        first = 0 if rng.random() < 0.4 else len(greeting)
        for _ in range(rng.randint(1, 4)):
            harm(stream, first, rng)
        with connected(scp.port) as peer:
            try:
                peer.say(bytes(stream))
                peer.sock.shutdown(1)
            except OSError:
                continue
            assert peer.is_closed()
    still_serves(scp)
    desk.wait(lambda desk: len(desk.ends) == len(desk.callers))
    assert not list(spool.iterdir())
    ours = [record for record in caplog.records if record.name.startswith("node.")]
    assert not [record for record in ours if record.levelname == "ERROR"]


def harm(stream: bytearray, first: int, rng: random.Random) -> None:
    at = rng.randrange(first, len(stream))
    act = rng.randrange(4)
    if act == 0:
        stream[at] = rng.randrange(256)
    elif act == 1:
        del stream[at : at + rng.randint(1, 40)]
    elif act == 2:
        stream[at:at] = rng.randbytes(rng.randint(1, 40))
    else:
        stream[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", bytes(4), b"\0\0\0\1", b"\x7f\xff\xff\xff"])
