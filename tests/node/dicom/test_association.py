"""Calling peers: those who refuse, those who keep silent, those who break off."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import pytest

from network.objects import CT, EXPLICIT
from network.pacs import scripted
from network.raw import ABORT, RELEASE_RQ, VERIFICATION, RawPeer, associate_ac, associate_rj
from node.dicom.association import Broken, associate
from node.errors import NodeError, PeerBusy, PeerRefused, PeerUnreachable
from node.settings import Peer, Settings

SETTINGS = Settings(connection_timeout_s=2, association_timeout_s=1, dimse_timeout_s=1)
CONTEXTS = [(VERIFICATION, (EXPLICIT,)), (CT, (EXPLICIT,))]
Script = Callable[[RawPeer], None]


def try_it(peer: Peer) -> None:
    with associate(SETTINGS, peer, CONTEXTS) as association:
        if "Status" not in association.send_c_echo():
            raise Broken("no answer to C-ECHO")


def failing(script: Script, kind: type[NodeError], words: str) -> None:
    with scripted(script) as peer, pytest.raises(kind, match=words):
        try_it(peer)


def rejects(*codes: int) -> Script:
    def play(peer: RawPeer) -> None:
        assert peer.hear()[0] == 1
        peer.say(associate_rj(*codes))

    return play


def accepts(then: Script) -> Script:
    def play(peer: RawPeer) -> None:
        kind, body = peer.hear()
        assert kind == 1
        peer.say(associate_ac(body))
        then(peer)

    return play


def says(words: bytes) -> Script:
    def play(peer: RawPeer) -> None:
        assert peer.hear()[0] == 1
        peer.say(words)
        peer.hear()

    return play


@pytest.mark.parametrize(
    ("codes", "kind", "words"),
    [
        ((1, 1, 3), PeerRefused, "calling AE title not recognised"),
        ((1, 1, 7), PeerRefused, "called AE title not recognised"),
        ((1, 1, 1), PeerRefused, "no reason given"),
        ((2, 3, 1), PeerBusy, "temporary congestion"),
        ((2, 3, 2), PeerBusy, "local limit"),
    ],
)
def test_a_rejection_is_told_in_words(codes: tuple[int, int, int], kind: type[NodeError], words: str) -> None:
    failing(rejects(*codes), kind, words)


def test_silence_is_told_from_refusal() -> None:
    failing(lambda peer: peer.is_closed() and None, PeerUnreachable, "connected, but no answer to the association")


def test_a_closed_port_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(PeerUnreachable, match="no connection"):
        try_it(Peer(aet="PACS", host="127.0.0.1", port=port))


def test_an_unknown_host_is_unreachable() -> None:
    with pytest.raises(PeerUnreachable, match="no connection"):
        try_it(Peer(aet="PACS", host="pacs.invalid", port=104))


def test_a_peer_that_only_sends_cannot_be_called() -> None:
    with pytest.raises(PeerRefused, match="only sends"):
        try_it(Peer(aet="CT", host="127.0.0.1"))


@pytest.mark.parametrize(
    "words",
    [
        ABORT,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        RELEASE_RQ,
        struct.pack(">BBI", 2, 0, 72) + bytes(68) + b"\x21\0\xff\xff",
        struct.pack(">BBI", 3, 0, 2) + bytes(2),
        struct.pack(">BBI", 2, 0, 0xFFFFFFFF) + bytes(10),
        b"\x02",
    ],
)
def test_nonsense_for_an_answer_is_unreachable(words: bytes) -> None:
    failing(says(words), PeerUnreachable, "PACS")


def test_an_abort_instead_of_a_response_is_unreachable() -> None:
    def abort(peer: RawPeer) -> None:
        assert peer.hear()[0] == 4
        peer.say(ABORT)

    failing(accepts(abort), PeerUnreachable, "no answer")


def test_silence_instead_of_a_response_is_unreachable_and_aborts() -> None:
    heard: list[int] = []

    def wait(peer: RawPeer) -> None:
        heard.extend((peer.hear()[0], peer.hear()[0]))

    failing(accepts(wait), PeerUnreachable, "no answer")
    assert heard == [4, 7]


def test_a_peer_that_fumbles_the_release_has_still_answered() -> None:
    def answer(peer: RawPeer) -> None:
        kind, body = peer.hear()
        assert kind == 4
        response = struct.pack("<HHIH", 0, 0x0100, 2, 0x8030) + struct.pack("<HHIH", 0, 0x0120, 2, 1)
        response += struct.pack("<HHIH", 0, 0x0800, 2, 0x0101) + struct.pack("<HHIH", 0, 0x0900, 2, 0)
        peer.say(struct.pack(">BBIIBB", 4, 0, len(response) + 6, len(response) + 2, body[4], 3) + response)
        assert peer.hear()[0] == 5
        peer.say(ABORT)

    with scripted(accepts(answer)) as peer:
        try_it(peer)


def test_an_error_of_the_caller_aborts() -> None:
    heard: list[int] = []
    with (
        scripted(accepts(lambda peer: heard.append(peer.hear()[0]))) as peer,
        pytest.raises(PeerRefused, match="ours"),
        associate(SETTINGS, peer, CONTEXTS),
    ):
        raise PeerRefused("ours")
    assert heard == [7]
