"""Results to a peer: one association, each file as it lies on disk, and what the peer said of each.

source  PS3.4 Annex B
"""

from __future__ import annotations

import logging
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from node.dicom import messages, status
from node.dicom.association import MOST_CONTEXTS, associate
from node.dicom.direct import DirectLine
from node.dicom.negotiation import UNCOMPRESSED, Accepted, accepted
from node.dicom.reconcile import Coercion, coerce
from node.errors import NoCommonContext, NodeError, Permanent, ResultLost, Transient
from node.settings import Peer, Settings

LOGGER = logging.getLogger(__name__)

_CONVERTIBLE = frozenset({*UNCOMPRESSED, str(DeflatedExplicitVRLittleEndian)})
"""Between these pydicom changes no pixel. Big endian pixels would have to be turned round: never ours."""

Progress = Callable[[int, int], None]
Contexts = Mapping[tuple[str, str], Accepted]


@dataclass(frozen=True)
class Outgoing:
    """One Part 10 file to be sent: as it lies there, or, with a coercion, a copy that is made on the way."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    coercion: Coercion | None = None


@dataclass(frozen=True)
class Sent:
    """How it went. `error` None: success or a warning, which `status` then holds (0xB000…)."""

    sop_instance_uid: str
    status: int | None
    error: NodeError | None


def send(
    settings: Settings, peer: Peer, objects: Sequence[Outgoing], *, on_progress: Progress | None = None
) -> list[Sent]:
    """C-STORE all of them; the answers in the order given.

    An object goes in its own transfer syntax, or, uncompressed, in one of the two little endian ones.
    raises  Transient, Permanent   when no association could be had, so nothing was sent
    When it breaks midway, the rest get PeerUnreachable. What the peer will not have gets its own error each.
    """
    answers: list[Sent] = []
    reached = False

    def note(answer: Sent) -> None:
        answers.append(answer)
        if on_progress is not None:
            on_progress(len(answers), len(objects))

    for batch in _batches(objects):
        before = len(answers)
        try:
            with associate(settings, peer, contexts_of(batch)) as association:
                reached = True
                contexts = {(it.abstract_syntax, it.transfer_syntax): it for it in accepted(association).values()}
                with DirectLine(association) as line:
                    for outgoing in batch:
                        note(_send_one(line, contexts, peer, outgoing))
        except NoCommonContext:
            reached = True
            for outgoing in batch:
                note(_not_taken(peer, outgoing))
        except (Transient, Permanent) as exc:
            if not reached:
                raise
            for outgoing in batch[len(answers) - before :]:
                note(Sent(outgoing.sop_instance_uid, None, exc))
    return answers


def contexts_of(objects: Sequence[Outgoing]) -> list[tuple[str, tuple[str, ...]]]:
    """One context for each class and syntax, so that the peer's choice is per syntax; fallbacks likewise."""
    wanted: dict[tuple[str, str], None] = {}
    for outgoing in objects:
        wanted[outgoing.sop_class_uid, outgoing.transfer_syntax_uid] = None
        if outgoing.transfer_syntax_uid in _CONVERTIBLE:
            for syntax in UNCOMPRESSED:
                wanted[outgoing.sop_class_uid, syntax] = None
    return [(sop_class, (syntax,)) for sop_class, syntax in wanted]


def _batches(objects: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    """As many objects to an association as its 128 contexts allow: in practice all."""
    batch: list[Outgoing] = []
    kinds: dict[tuple[str, str], Outgoing] = {}
    for outgoing in objects:
        kind = (outgoing.sop_class_uid, outgoing.transfer_syntax_uid)
        if kind not in kinds and len(contexts_of([*kinds.values(), outgoing])) > MOST_CONTEXTS:
            yield batch
            batch, kinds = [], {}
        kinds.setdefault(kind, outgoing)
        batch.append(outgoing)
    if batch:
        yield batch


def _not_taken(peer: Peer, outgoing: Outgoing) -> Sent:
    error = NoCommonContext(f"{peer.aet} does not take {UID(outgoing.sop_class_uid).name}")
    return Sent(outgoing.sop_instance_uid, None, error)


def _send_one(line: DirectLine, contexts: Contexts, peer: Peer, outgoing: Outgoing) -> Sent:
    """Raises what DirectLine does where the association breaks; all else is the object's own affair."""
    instance = outgoing.sop_instance_uid
    context = _context_for(contexts, outgoing)
    if context is None:
        return _not_taken(peer, outgoing)
    elements = {
        messages.AFFECTED_CLASS: messages.uid(outgoing.sop_class_uid),
        messages.PRIORITY: messages.short(0),
        messages.AFFECTED_INSTANCE: messages.uid(instance),
    }
    try:
        data = _encoded(outgoing, context.transfer_syntax)
    except ResultLost as exc:
        return Sent(instance, None, exc)
    code = line.store(context, elements, data)
    return Sent(instance, code, status.peer_error(code, f"{peer.aet}: C-STORE"))


def _context_for(contexts: Contexts, outgoing: Outgoing) -> Accepted | None:
    syntaxes: tuple[str, ...] = (outgoing.transfer_syntax_uid,)
    if outgoing.transfer_syntax_uid in _CONVERTIBLE:
        syntaxes += UNCOMPRESSED
    keys = ((outgoing.sop_class_uid, syntax) for syntax in syntaxes)
    return next((contexts[key] for key in keys if key in contexts), None)


def _encoded(outgoing: Outgoing, transfer_syntax: str) -> memoryview:
    """The data set in this transfer syntax: mapped from the file where it is its own. Raises ResultLost."""
    try:
        with outgoing.path.open("rb") as file:
            # never closed by hand: a send that broke midway leaves views of it in its traceback
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        offset, syntax = data_set_start(mapped)
        if syntax != outgoing.transfer_syntax_uid:
            raise ResultLost(f"the file of {outgoing.sop_instance_uid} is in another transfer syntax than recorded")
        if syntax == transfer_syntax and outgoing.coercion is None:
            return memoryview(mapped)[offset:]
        return memoryview(_converted(mapped[:], transfer_syntax, outgoing.coercion))
    except (OSError, ValueError) as exc:
        raise ResultLost(f"the file of {outgoing.sop_instance_uid} cannot be read ({exc})") from exc


def data_set_start(file: bytes | mmap.mmap) -> tuple[int, str]:
    """(offset of the data set, transfer syntax) of a Part 10 file. Raises ValueError. Source: PS3.10 7.1."""
    if file[128:132] != b"DICM":
        raise ValueError("not a DICOM file")
    position, syntax = 132, ""
    while file[position : position + 2] == b"\x02\x00":
        head = file[position : position + 12].ljust(12, b"\0")
        element, vr, length = struct.unpack("<H2sH", head[2:8])
        position += 8
        if vr in (b"OB", b"UN", b"UT"):
            length, position = struct.unpack("<I", head[8:12])[0], position + 4
        if element == 0x10:
            syntax = bytes(file[position : position + length]).rstrip(b"\0 ").decode("ascii", "replace")
        position += length
    if not syntax:
        raise ValueError("no transfer syntax in the file meta information")
    return position, syntax


def _converted(file: bytes, transfer_syntax: str, coercion: Coercion | None) -> bytes:
    """The data set of an uncompressed Part 10 file in a little endian syntax, maybe coerced. Raises ValueError."""
    data_set = pydicom.dcmread(BytesIO(file))
    if coercion is not None:
        coerce(data_set, coercion)
    del data_set.file_meta
    return messages.encode_data_set(data_set, transfer_syntax)
