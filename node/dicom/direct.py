"""C-STORE straight from the file: P-DATA written in the calling thread on an association of pynetdicom's.

pynetdicom would copy a data set several times and hand it to another thread in pieces. While a DirectLine is open its
threads leave the socket alone; what is not the answer to an object (an abort, a request for release) is given back.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from node.dicom import messages
from node.dicom.association import Broken
from node.dicom.fragments import Malformed, NotData, Reader, p_data
from node.dicom.messages import Command
from node.dicom.negotiation import Accepted
from node.dicom.transport import Lost

_STEP = 1 << 17
_BUFFER = 1 << 17
_YIELD_WAIT_S = 5.0


class DirectLine:
    """Context manager on an established association. Its methods raise OSError, Malformed, Broken."""

    def __init__(self, association: Any) -> None:
        most = association.acceptor.maximum_length
        if 0 < most < 8:
            raise Malformed(f"a maximum PDU length of {most}")
        self._association = association
        self._dul = association.dul
        self._wire = association.dul.socket
        self._step = min(_STEP, most - 6) if most else _STEP
        self._reader = Reader(self._receive, _BUFFER)
        self._last_id = 0

    def __enter__(self) -> DirectLine:
        self._association._reactor_checkpoint.clear()
        self._dul.resume.clear()
        self._dul.yielded.clear()
        self._dul.direct.set()
        if not self._dul.yielded.wait(_YIELD_WAIT_S):
            self._leave()
            raise Broken("the association broke")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wire.give_back(self._reader.rest())
        self._leave()

    def _leave(self) -> None:
        self._dul.direct.clear()
        self._dul.resume.set()
        self._association._reactor_checkpoint.set()

    def store(self, context: Accepted, elements: Mapping[int, bytes], data: bytes | memoryview) -> int:
        """Send one object, which goes out as it lies in memory; the status of the answer."""
        self._last_id = self._last_id % 0xFFFF + 1
        command = messages.encode_command(
            {
                **elements,
                messages.COMMAND_FIELD: messages.short(messages.C_STORE_RQ),
                messages.MESSAGE_ID: messages.short(self._last_id),
                messages.DATA_SET_TYPE: messages.short(messages.DATA_SET),
            }
        )
        parts = p_data(context.context_id, command, is_command=True, step=self._step)
        parts += p_data(context.context_id, data, is_command=False, step=self._step)
        self._wire.send_parts(parts)
        try:
            answer = Command.parse(self._reader.command()[1])
        except NotData as exc:
            raise Broken(f"no answer to an object: {exc}") from exc
        if answer.number(messages.RESPONDED_ID) != self._last_id or answer.has_data_set:
            raise Malformed("a message that is not the answer to the object")
        return answer.need(messages.STATUS)

    def _receive(self, view: memoryview) -> int:
        count: int = self._wire.receive_into(view)
        if not count:
            raise Lost("connection closed by the peer")
        return count
