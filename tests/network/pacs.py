"""Peers to be called: pynetdicom with chosen manners, and a listener that says what it is told to say."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pynetdicom import AE

from network.raw import PATIENCE_S, RawPeer
from node.settings import Peer

Handlers = Sequence[tuple[Any, ...]]


@contextlib.contextmanager
def pynetdicom_scp(
    contexts: Sequence[tuple[str, Sequence[str]]], handlers: Handlers, *, max_pdu: int = 16382
) -> Iterator[Peer]:
    """An SCP of the other implementation."""
    ae = AE("PACS")
    ae.maximum_pdu_size = max_pdu
    for abstract, syntaxes in contexts:
        ae.add_supported_context(abstract, list(syntaxes))
    server = ae.make_server(("127.0.0.1", 0), evt_handlers=list(handlers))
    serving = threading.Thread(target=server.serve_forever, args=(0.02,))  # start_server would look every 0.5 s
    serving.start()
    try:
        yield Peer(aet="PACS", host="127.0.0.1", port=server.server_address[1])
    finally:
        socketserver.BaseServer.shutdown(server)
        serving.join(PATIENCE_S)
        for association in server.active_associations:
            association.abort()
        server.server_close()


@contextlib.contextmanager
def scripted(script: Callable[[RawPeer], None]) -> Iterator[Peer]:
    """A listener that plays `script` to each caller, then closes. What goes wrong in it fails the test."""
    faults: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)

        def play() -> None:
            with contextlib.suppress(OSError):  # the listener was closed: the test is over
                while True:
                    sock, _ = listener.accept()
                    with sock:
                        try:
                            script(RawPeer(sock))
                        except (AssertionError, TimeoutError) as exc:
                            faults.append(exc)

        playing = threading.Thread(target=play)
        playing.start()
        try:
            yield Peer(aet="PACS", host="127.0.0.1", port=listener.getsockname()[1])
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            playing.join(PATIENCE_S)
    assert not faults, faults
