"""C-STORE to peers of other makes, good and bad."""

from __future__ import annotations

import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pynetdicom import evt

from network.desk import RecordingDesk
from network.objects import CT, EXPLICIT, STUDY, ct_image, data_set_of, write
from network.pacs import pynetdicom_scp, scripted
from network.raw import RawPeer, associate_ac
from node.dicom.messages import is_uid
from node.dicom.negotiation import is_storage
from node.dicom.receive import StorageScp
from node.dicom.send import Outgoing, data_set_start, send
from node.errors import (
    NoCommonContext,
    NotUnderstood,
    OutOfResources,
    PeerBusy,
    PeerRefused,
    PeerUnreachable,
    ResultLost,
)
from node.settings import Peer, Settings
from system.dcmtk import StoreScp

SETTINGS = Settings(aet="NODE", dimse_timeout_s=10)
IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
J2K = "1.2.840.10008.1.2.4.90"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def outgoing(folder: Path, count: int = 3, syntax: str = EXPLICIT, side: int = 64) -> list[Outgoing]:
    found = []
    for number in range(1, count + 1):
        path = write(ct_image(number, side=side), folder / f"out{number}.dcm", syntax)
        found.append(Outgoing(path, CT, f"{STUDY}.1.{number}", syntax))
    return found


class Keeper:
    """C-STORE handler of a pynetdicom SCP: keeps the bytes, answers with the statuses given, in turn."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.kept: list[tuple[str, str, bytes]] = []

    def __call__(self, event: Any) -> int:
        encoded = event.request.DataSet.getvalue()
        self.kept.append((str(event.request.AffectedSOPInstanceUID), str(event.context.transfer_syntax), encoded))
        return self.statuses.pop(0) if self.statuses else 0

    @property
    def handlers(self) -> list[tuple[Any, ...]]:
        return [(evt.EVT_C_STORE, self)]


def test_storescp_gets_the_files_as_they_are(tmp_path: Path) -> None:
    objects = outgoing(tmp_path)
    told: list[tuple[int, int]] = []
    with StoreScp(tmp_path / "scp", options=("+B", "+xa")) as pacs:
        peer = Peer(aet=pacs.address.aet, host="127.0.0.1", port=pacs.address.port)
        answers = send(SETTINGS, peer, objects, on_progress=lambda done, all_: told.append((done, all_)))
        received = {dcmread(path).SOPInstanceUID: path for path in pacs.files()}
    assert [(answer.sop_instance_uid, answer.status, answer.error) for answer in answers] == [
        (one.sop_instance_uid, 0, None) for one in objects
    ]
    for one in objects:
        assert data_set_of(received[one.sop_instance_uid].read_bytes()) == data_set_of(one.path.read_bytes())
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("max_pdu", [0, 128, 4096, 16382, 1 << 20])
def test_any_maximum_length_is_kept_to(tmp_path: Path, max_pdu: int) -> None:
    objects, keeper, lengths = outgoing(tmp_path), Keeper(), []

    def measure(event: Any) -> None:
        lengths.append(len(event.data) - 6)

    handlers = [*keeper.handlers, (evt.EVT_DATA_RECV, measure)]
    with pynetdicom_scp([(CT, [EXPLICIT])], handlers, max_pdu=max_pdu) as peer:
        answers = send(SETTINGS, peer, objects)
    assert all(answer.status == 0 for answer in answers)
    assert [kept[2] for kept in keeper.kept] == [data_set_of(one.path.read_bytes()) for one in objects]
    if max_pdu:
        assert max(lengths[1:]) <= max_pdu


def test_our_own_receiver_gets_them_too(scp: StorageScp, desk: RecordingDesk, tmp_path: Path) -> None:
    objects = outgoing(tmp_path, side=700)
    answers = send(SETTINGS, Peer(aet="PACSNODE", host="127.0.0.1", port=scp.port), objects)
    assert all(answer.status == 0 for answer in answers)
    assert [data_set_of(taken.file) for taken in desk.taken] == [data_set_of(one.path.read_bytes()) for one in objects]
    assert desk.callers[0].calling_aet == "NODE"


def test_a_peer_that_knows_only_implicit_gets_implicit(tmp_path: Path) -> None:
    objects, keeper = outgoing(tmp_path), Keeper()
    with pynetdicom_scp([(CT, [IMPLICIT])], keeper.handlers) as peer:
        answers = send(SETTINGS, peer, objects)
    assert all(answer.status == 0 for answer in answers)
    for kept, one in zip(keeper.kept, objects, strict=True):
        assert kept[1] == IMPLICIT
        same = write(dcmread(one.path), tmp_path / "same.dcm", IMPLICIT)
        assert kept[2] == data_set_of(same.read_bytes())


@pytest.mark.parametrize(("ours", "theirs"), [(IMPLICIT, EXPLICIT), (DEFLATED, EXPLICIT), (DEFLATED, IMPLICIT)])
def test_uncompressed_objects_find_a_syntax(tmp_path: Path, ours: str, theirs: str) -> None:
    objects, keeper = outgoing(tmp_path, 1, ours), Keeper()
    with pynetdicom_scp([(CT, [theirs])], keeper.handlers) as peer:
        (answer,) = send(SETTINGS, peer, objects)
    assert (answer.status, answer.error) == (0, None)
    same = write(dcmread(objects[0].path), tmp_path / "same.dcm", theirs)
    assert keeper.kept[0][1:] == (theirs, data_set_of(same.read_bytes()))


def test_the_own_syntax_goes_before_any_other(tmp_path: Path) -> None:
    objects, keeper = outgoing(tmp_path, 1, DEFLATED), Keeper()
    with pynetdicom_scp([(CT, [EXPLICIT, DEFLATED, IMPLICIT])], keeper.handlers) as peer:
        send(SETTINGS, peer, objects)
    assert keeper.kept[0][1:] == (DEFLATED, data_set_of(objects[0].path.read_bytes()))


def test_what_the_peer_does_not_take_is_told_for_each_object(tmp_path: Path) -> None:
    good = outgoing(tmp_path, 2)
    capture = ct_image(9)
    capture.SOPClassUID = CAPTURE
    other = Outgoing(write(capture, tmp_path / "sc.dcm"), CAPTURE, f"{STUDY}.1.9", EXPLICIT)
    with pynetdicom_scp([(CT, [EXPLICIT])], Keeper().handlers) as peer:
        answers = send(SETTINGS, peer, [good[0], other, good[1]])
    assert [answer.status for answer in answers] == [0, None, 0]
    assert isinstance(answers[1].error, NoCommonContext)
    assert "Secondary Capture" in answers[1].error.reason


def test_compressed_objects_are_not_decoded_for_a_peer(tmp_path: Path) -> None:
    one = outgoing(tmp_path, 1)[0]
    image = dcmread(one.path)
    image.compress(J2K, generate_instance_uid=False)
    image.save_as(one.path, enforce_file_format=True)
    compressed = Outgoing(one.path, CT, one.sop_instance_uid, J2K)
    with pynetdicom_scp([(CT, [EXPLICIT, IMPLICIT])], Keeper().handlers) as peer:
        (answer,) = send(SETTINGS, peer, [compressed])
    assert isinstance(answer.error, NoCommonContext)


@pytest.mark.parametrize(
    ("status", "kind"), [(0xA700, PeerBusy), (0xC000, PeerRefused), (0xA900, PeerRefused), (0xB000, type(None))]
)
def test_each_status_is_kept_and_judged(tmp_path: Path, status: int, kind: type) -> None:
    with pynetdicom_scp([(CT, [EXPLICIT])], Keeper(0, status, 0).handlers) as peer:
        answers = send(SETTINGS, peer, outgoing(tmp_path))
    assert [answer.status for answer in answers] == [0, status, 0]
    assert [type(answer.error) for answer in answers] == [type(None), kind, type(None)]


def test_an_abort_midway_leaves_the_rest_unreached(tmp_path: Path) -> None:
    seen: list[int] = []

    def abort_second(event: Any) -> int:
        seen.append(1)
        if len(seen) == 2:
            event.assoc.abort()
        return 0

    with pynetdicom_scp([(CT, [EXPLICIT])], [(evt.EVT_C_STORE, abort_second)]) as peer:
        answers = send(SETTINGS, peer, outgoing(tmp_path, 4))
    assert answers[0].status == 0
    assert [type(answer.error) for answer in answers[1:]] == [PeerUnreachable] * 3
    assert [answer.sop_instance_uid for answer in answers] == [f"{STUDY}.1.{n}" for n in range(1, 5)]


def test_a_connection_closed_within_a_large_object_is_told(tmp_path: Path) -> None:
    def play(peer: RawPeer) -> None:
        peer.say(associate_ac(peer.hear()[1]))
        peer.hear()

    with scripted(play) as peer:
        answers = send(SETTINGS, peer, outgoing(tmp_path, 2, side=2000))
    assert [type(answer.error) for answer in answers] == [PeerUnreachable] * 2


def test_no_association_is_raised(tmp_path: Path) -> None:
    with pytest.raises(PeerUnreachable):
        send(Settings(association_timeout_s=0.2), Peer(aet="X", host="127.0.0.1", port=1), outgoing(tmp_path, 1))


@pytest.mark.parametrize("harm", ["gone", "empty", "rubbish", "another syntax"])
def test_a_file_that_is_not_what_was_written_is_lost_and_the_rest_is_sent(tmp_path: Path, harm: str) -> None:
    objects = outgoing(tmp_path)
    path = objects[1].path
    if harm == "gone":
        path.unlink()
    elif harm == "another syntax":
        write(ct_image(2), path, IMPLICIT)
    else:
        path.write_bytes(b"" if harm == "empty" else b"rubbish" * 100)
    keeper = Keeper()
    with pynetdicom_scp([(CT, [EXPLICIT, IMPLICIT])], keeper.handlers) as peer:
        answers = send(SETTINGS, peer, objects)
    assert [answer.status for answer in answers] == [0, None, 0]
    assert isinstance(answers[1].error, ResultLost)
    assert objects[1].sop_instance_uid in answers[1].error.reason


def test_more_kinds_than_one_association_has_contexts_go_in_several(
    scp: StorageScp, desk: RecordingDesk, tmp_path: Path
) -> None:
    objects = []
    for number in range(1, 101):
        image = ct_image(number, side=8)
        image.SOPClassUID = f"1.2.826.0.1.3680043.10.511.9.{number}"
        path = write(image, tmp_path / f"{number}.dcm")
        objects.append(Outgoing(path, str(image.SOPClassUID), f"{STUDY}.1.{number}", EXPLICIT))
    answers = send(SETTINGS, Peer(aet="PACSNODE", host="127.0.0.1", port=scp.port), objects)
    assert [(answer.sop_instance_uid, answer.status) for answer in answers] == [
        (one.sop_instance_uid, 0) for one in objects
    ]
    assert len(desk.callers) == 2


def test_our_own_refusals_come_back_as_what_they_were(scp: StorageScp, desk: RecordingDesk, tmp_path: Path) -> None:
    turns = iter([OutOfResources("full"), NotUnderstood("no study"), None])

    def take(_: object) -> None:
        error = next(turns)
        if error is not None:
            raise error

    desk.on_take = take
    answers = send(SETTINGS, Peer(aet="PACSNODE", host="127.0.0.1", port=scp.port), outgoing(tmp_path))
    assert [type(answer.error) for answer in answers] == [PeerBusy, PeerRefused, type(None)]


def test_several_threads_may_send_at_once(scp: StorageScp, desk: RecordingDesk, tmp_path: Path) -> None:
    objects = outgoing(tmp_path, 5)
    peer = Peer(aet="PACSNODE", host="127.0.0.1", port=scp.port)
    results: list[int | None] = []

    def work() -> None:
        results.extend(answer.status for answer in send(SETTINGS, peer, objects))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [0] * 20
    assert len(desk.taken) == 20


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, DEFLATED])
def test_the_data_set_begins_where_pydicom_says(tmp_path: Path, syntax: str) -> None:
    file = write(ct_image(), tmp_path / "image.dcm", syntax).read_bytes()
    assert data_set_start(file) == (len(file) - len(data_set_of(file)), syntax)


@pytest.mark.parametrize("file", [b"", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM\x08\0\x05\0CS\0\0", bytes(500)])
def test_what_is_no_dicom_file_has_no_data_set(file: bytes) -> None:
    with pytest.raises(ValueError):
        data_set_start(file)


ODD = Path(__file__).parents[3].parent / "shared" / "data" / "odd-dicom.tar.xz"


def odd_objects(folder: Path) -> list[Outgoing]:
    """Fixtures of other projects: any class, any transfer syntax, whatever is wrong inside."""
    found = []
    with tarfile.open(ODD) as archive:
        for member in archive:
            encoded = archive.extractfile(member).read() if member.isfile() else b""
            path = folder / f"{len(found)}.dcm"
            path.write_bytes(encoded)
            try:
                _, syntax = data_set_start(encoded)
                meta = read_file_meta_info(path)
                sop_class, instance = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
            except (ValueError, AttributeError, EOFError):
                continue
            if is_storage(sop_class) and is_uid(instance):
                found.append(Outgoing(path, sop_class, instance, syntax))
    return found


@pytest.mark.data
@pytest.mark.skipif(not ODD.exists(), reason="no ../shared/data beside the repository")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_odd_objects_of_every_kind_arrive_bit_for_bit(scp: StorageScp, desk: RecordingDesk, tmp_path: Path) -> None:
    objects = odd_objects(tmp_path)
    assert len(objects) > 150
    assert len({one.transfer_syntax_uid for one in objects}) > 15
    answers = send(SETTINGS, Peer(aet="PACSNODE", host="127.0.0.1", port=scp.port), objects)
    assert [answer.error for answer in answers if answer.error] == []
    assert len(desk.taken) == len(objects)
    for taken, one in zip(desk.taken, objects, strict=True):
        file = one.path.read_bytes()
        assert data_set_of(taken.file) == file[data_set_start(file)[0] :]
