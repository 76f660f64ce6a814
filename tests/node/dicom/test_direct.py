"""Objects written straight to the socket of an association that pynetdicom keeps."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from network.desk import RecordingDesk
from network.objects import CT, EXPLICIT
from network.pacs import scripted
from network.raw import ABORT, RELEASE_RQ, VERIFICATION, RawPeer, associate_ac, command, message
from node.dicom import messages
from node.dicom.association import associate
from node.dicom.direct import DirectLine
from node.dicom.negotiation import accepted
from node.dicom.receive import StorageScp
from node.errors import PeerUnreachable
from node.settings import Peer, Settings

SETTINGS = Settings(aet="NODE", dimse_timeout_s=0.5, association_timeout_s=5)
CONTEXTS = [(VERIFICATION, (EXPLICIT,)), (CT, (EXPLICIT,))]
ELEMENTS = {
    messages.AFFECTED_CLASS: messages.uid(CT),
    messages.PRIORITY: messages.short(0),
    messages.AFFECTED_INSTANCE: messages.uid("1.2.3"),
}
Script = Callable[[RawPeer], None]


def store_one(peer: Peer) -> int:
    with associate(SETTINGS, peer, CONTEXTS) as association, DirectLine(association) as line:
        return line.store(accepted(association)[3], ELEMENTS, b"1234")


def accepts(then: Script, *, max_length: int = 16384) -> Script:
    def play(peer: RawPeer) -> None:
        peer.say(associate_ac(peer.hear()[1], max_length=max_length))
        then(peer)

    return play


def answers(reply: bytes, then: Script = lambda peer: None) -> Script:
    def play(peer: RawPeer) -> None:
        assert peer.hear()[0] == 4
        assert peer.hear()[0] == 4
        peer.say(reply)
        then(peer)

    return accepts(play)


def response(*, number: int = 1, data: int = 0x0101, status: int = 0) -> bytes:
    return message(3, command(e0002=CT, e0100=0x8001, e0120=number, e0800=data, e0900=status, e1000="1.2.3"))


def failing(script: Script, words: str) -> None:
    with scripted(script) as peer, pytest.raises(PeerUnreachable, match=words):
        store_one(peer)


def release(peer: RawPeer) -> None:
    assert peer.hear()[0] == 5
    peer.say(struct.pack(">BBII", 6, 0, 4, 0))


def test_the_status_is_that_of_the_answer() -> None:
    with scripted(answers(response(status=0xB007), release)) as peer:
        assert store_one(peer) == 0xB007


def test_pynetdicom_and_the_direct_line_take_turns(scp: StorageScp, desk: RecordingDesk, tmp_path: Path) -> None:
    with associate(SETTINGS, Peer(aet="PACSNODE", host="127.0.0.1", port=scp.port), CONTEXTS) as association:
        for _ in range(3):
            assert association.send_c_echo().Status == 0
            with DirectLine(association) as line:
                for _ in range(3):
                    assert line.store(accepted(association)[3], ELEMENTS, bytes(50_000)) == 0
    desk.wait(lambda desk: desk.ends)
    assert desk.ends == [("association-1", "released", 9, 0)]


def test_a_response_to_another_request_is_no_response() -> None:
    failing(answers(response(number=99), lambda peer: peer.is_closed() and None), "not the answer")


def test_a_response_with_a_data_set_is_no_response() -> None:
    failing(answers(response(data=1), lambda peer: peer.is_closed() and None), "not the answer")


def test_an_abort_instead_of_a_response_is_unreachable() -> None:
    failing(answers(ABORT), "type 7")


def test_a_request_for_release_instead_of_a_response_is_unreachable() -> None:
    failing(answers(RELEASE_RQ, lambda peer: peer.is_closed() and None), "type 5")


def test_a_connection_closed_instead_of_a_response_is_unreachable() -> None:
    failing(answers(b""), "closed by the peer")


def test_silence_instead_of_a_response_is_unreachable_and_aborts() -> None:
    heard: list[int] = []
    failing(answers(b"", lambda peer: heard.append(peer.hear()[0])), "silent")
    assert heard == [7]


def test_half_a_response_is_unreachable() -> None:
    failing(answers(response()[:20], lambda peer: peer.is_closed() and None), "silent")


def test_a_peer_that_stops_reading_is_unreachable() -> None:
    def stall(peer: RawPeer) -> None:
        peer.sock.settimeout(20)
        assert peer.sock.recv(1)
        stalled.wait(20)

    stalled = threading.Event()
    with scripted(accepts(stall)) as peer:
        with (
            pytest.raises(PeerUnreachable, match="silent"),
            associate(SETTINGS, peer, CONTEXTS) as association,
            DirectLine(association) as line,
        ):
            line.store(accepted(association)[3], ELEMENTS, bytes(1 << 24))
        stalled.set()


def test_an_impossible_maximum_length_is_refused() -> None:
    failing(accepts(lambda peer: peer.is_closed() and None, max_length=7), "maximum PDU length of 7")
