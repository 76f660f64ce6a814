"""C-STORE without detours: in state 6 the upper layer's thread moves bytes from the socket to the spool file.

pynetdicom negotiates, keeps the state machine and its timers, answers release and abort, and serves every other
service; it also sends whatever is not the answer to a C-STORE request. The association's own thread is parked while
there is nothing for it to do: pynetdicom would let it look every millisecond.

Internals of pynetdicom 3.0.4 that this rests on, besides those of transport.py:
  DULServiceProvider   ._is_transport_event and its place in run_reactor, ._idle_timer, ._kill_thread, .artim_timer
  Association          ._reactor_checkpoint (and that its thread waits there), ._kill, ._sent_abort
  DIMSEServiceProvider .receive_primitive
"""

from __future__ import annotations

import logging
import math
import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pynetdicom import evt
from pynetdicom.pdu_primitives import P_DATA as P_DATA_PRIMITIVE

from node.dicom.fragments import Malformed, NotData, Reader
from node.dicom.transport import Lost, PatientDUL, TimedOut, hang_up

LOGGER = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.25
"""How late something asked for without a wake-up may be seen."""
_LAST_WORDS_S = 1.0


@dataclass(frozen=True)
class Foreign:
    """A message that pynetdicom is to serve: (context id, control byte and data) of its fragments."""

    fragments: list[tuple[int, bytes]]


class Served(Protocol):
    """What an association is to the node."""

    def serve(self, association: Any, reader: Reader) -> list[bytes | memoryview] | Foreign:
        """Read one message; its answer as PDUs, or the message itself where it is pynetdicom's to answer."""

    def leave(self, outcome: str) -> None:
        """No more messages."""


class StreamingDUL(PatientDUL):
    """Upper layer provider of an association as acceptor."""

    def __init__(self, assoc: Any, session: Served, *, linger_s: float, on_end: Callable[[StreamingDUL], None]) -> None:
        super().__init__(assoc)
        self._session = session
        self._linger_s = linger_s
        self._on_end = on_end
        self._reader = Reader(self._receive)
        self._timed_out = self._stopping = False
        self._wake = -1
        self._wake_lock = threading.Lock()  # a write must never reach a descriptor that was given out again
        assoc.bind(evt.EVT_FSM_TRANSITION, self._on_transition)

    # other threads

    def send_pdu(self, primitive: Any) -> None:
        super().send_pdu(primitive)
        self._wake_up()

    def finish(self) -> None:
        """End after the object that is coming in, or at once where there is none."""
        self._stopping = True
        if self.state_machine.current_state == "Sta13":
            self.cut()
        self._wake_up()

    def cut(self) -> None:
        """End now, whatever is under way."""
        self._stopping = True
        sock = self.socket.socket
        if sock is not None:
            hang_up(sock)
        self._wake_up()

    def _wake_up(self) -> None:
        with self._wake_lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    # this thread

    def run(self) -> None:
        """Entry point of the thread."""
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            super().run()
        finally:
            self._session.leave("aborted")
            self.assoc._reactor_checkpoint.set()
            with self._wake_lock:
                os.close(self._wake)
                self._wake = -1
            self._reader.release()  # not with the association, which the garbage collector finds late
            self._on_end(self)

    def _receive(self, view: memoryview) -> int:
        count: int = self.socket.receive_into(view)
        if not count:
            raise Lost("connection closed by the peer")
        self._idle_timer.restart()
        return count

    def _is_transport_event(self) -> bool:
        state = self.state_machine.current_state
        if state == "Sta13":
            return self._await_close()
        if self.socket.has_ahead:
            return bool(super()._is_transport_event())
        if state == "Sta6" and self._stopping:
            self.assoc.acse.send_abort(0x00)
            return False
        if not self._reader.buffered and not self._wait(state):
            return False
        if state != "Sta6":
            return bool(super()._is_transport_event())
        self._park()
        # run_reactor would sleep for a millisecond between two messages
        while self._stream() and not self._stopping and not self.to_provider_queue.queue:
            if not self._reader.buffered and not self._wait(state):
                break
        return False

    def _stream(self) -> bool:
        """One message, and whether another may follow at once.

        What brings the association to an end goes to the state machine as the event that PS3.8 has for it.
        """
        try:
            answer = self._session.serve(self.assoc, self._reader)
            if isinstance(answer, Foreign):
                self._pass_on(answer)
                return False
            self.socket.send_parts(answer)
            return True
        except NotData:
            self.socket.give_back(self._reader.rest())
        except TimedOut as exc:
            LOGGER.warning("association timed out: %s", exc)
            self._timed_out = True
            self.event_queue.put("Evt19")
        except OSError as exc:
            LOGGER.info("%s", exc)
            self.event_queue.put("Evt17")
        except Malformed as exc:
            LOGGER.warning("invalid message: %s", exc)
            self.event_queue.put("Evt19")
        return False

    def _pass_on(self, message: Foreign) -> None:
        primitive = P_DATA_PRIMITIVE()
        primitive.presentation_data_value_list.extend(message.fragments)
        self.assoc.dimse.receive_primitive(primitive)
        self.assoc._reactor_checkpoint.set()

    def _wait(self, state: str) -> bool:
        """Until bytes come. False where something else may have to be done first."""
        if self.event_queue.queue or self.to_provider_queue.queue or self.socket.socket is None:
            return False
        if self.socket.ready:
            return True
        timer = self._idle_timer if state == "Sta6" else self.artim_timer
        if state == "Sta6":
            self._park()
        poll = select.poll()
        poll.register(self.socket.socket, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        events = poll.poll(1 + math.ceil(1000 * max(0.0, min(_LOOK_AGAIN_S, timer.remaining))))
        if any(descriptor == self._wake for descriptor, _ in events):
            os.eventfd_read(self._wake)
            return False
        if not events and self.idle_timer_expired():
            self.assoc._reactor_checkpoint.set()  # its thread aborts
        return bool(events)

    def _park(self) -> None:
        assoc = self.assoc
        ending = assoc._kill or assoc._sent_abort or self._kill_thread or self.idle_timer_expired()
        if assoc.is_established and not ending and not assoc.dimse.msg_queue.queue:
            assoc._reactor_checkpoint.clear()

    def _await_close(self) -> bool:
        """PS3.8 Sta13: the peer closes first, so that our last words are not lost to a reset; but not for ever."""
        wire = self.socket
        until = time.monotonic() + (_LAST_WORDS_S if self._stopping else self._linger_s)
        scrap = memoryview(bytearray(1 << 16))
        try:
            while (left := until - time.monotonic()) > 0:
                wire.patience = min(left, _LAST_WORDS_S) if self._stopping else left
                if not wire.receive_into(scrap):
                    break
        except OSError as exc:
            LOGGER.debug("closing: %s", exc)
        wire.close()
        return True

    def _on_transition(self, event: Any) -> None:
        if event.current_state == "Sta6":
            self.assoc._reactor_checkpoint.set()
        if event.next_state in ("Sta1", "Sta13"):
            self.socket.patience = min(self.socket.patience, _LAST_WORDS_S)
            self._session.leave(self._outcome(event.fsm_event))

    def _outcome(self, event: str) -> str:
        if event == "Evt14":  # A-RELEASE-RP has been sent
            return "released"
        if event == "Evt17" and not self._stopping:
            return "lost"
        if self._timed_out or (event == "Evt15" and self.idle_timer_expired()):
            return "timed out"
        return "aborted"
