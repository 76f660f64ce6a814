"""Both halves of a negotiation, agreeing with each other and with pynetdicom's own decoder."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.sop_class import _STORAGE_CLASSES, CTImageStorage, ModalityPerformedProcedureStep  # type: ignore[attr-defined]

from network.raw import associate_rq
from node.dicom.negotiation import (
    TRANSFER_SYNTAXES,
    accept,
    is_storage,
    read_answer,
    read_request,
    rejection,
    rejection_in_words,
    write_request,
)
from node.dicom.streaming import Malformed

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
CT = str(CTImageStorage)


def agree(*contexts: tuple[str, tuple[str, ...]], max_pdu: int = 65536) -> dict[int, tuple[str, str]]:
    pdu, proposed = write_request("US", "THEM", contexts=contexts, max_pdu=max_pdu)
    answer, theirs = accept(read_request(pdu), max_pdu=131072)
    ours, max_length = read_answer(answer, proposed)
    assert ours == theirs
    assert max_length == 131072
    return {number: (context.abstract_syntax, context.transfer_syntax) for number, context in ours.items()}


def test_both_sides_see_the_same_contexts() -> None:
    refused = str(ModalityPerformedProcedureStep)
    assert agree((CT, (EXPLICIT,)), (refused, (EXPLICIT,)), (CT, (IMPLICIT, "1.2.3"))) == {
        1: (CT, EXPLICIT),
        5: (CT, IMPLICIT),
    }


def test_a_request_names_both_titles_and_the_length() -> None:
    pdu, _ = write_request("US", "THEM", contexts=[(CT, (EXPLICIT,))], max_pdu=16384)
    request = read_request(pdu)
    assert (request.calling_aet, request.called_aet, request.max_length) == ("US", "THEM", 16384)
    assert request.protocol_version & 1


def test_reads_a_request_made_of_bytes() -> None:
    request = read_request(associate_rq([(CT, (EXPLICIT, IMPLICIT))], calling="CT 2", max_length=0))
    assert request.calling_aet == "CT 2"
    assert request.max_length == 0
    assert [str(uid) for uid in request.contexts[0].transfer_syntax] == [EXPLICIT, IMPLICIT]


@pytest.mark.parametrize("uid", sorted(_STORAGE_CLASSES.values()))
def test_takes_every_storage_class_that_the_library_knows(uid: str) -> None:
    assert is_storage(uid)


@pytest.mark.parametrize(
    "uid", ["1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.3.1.2.3.3", "1.2.840.10008.5.1.4.31"]
)
def test_other_services_are_not_storage(uid: str) -> None:
    assert not is_storage(uid)


def test_knows_the_syntaxes_of_today() -> None:
    htj2k = {f"1.2.840.10008.1.2.4.{number}" for number in (201, 202, 203)}
    assert htj2k | {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5"} <= set(TRANSFER_SYNTAXES)


@given(st.data())
@settings(max_examples=200)
def test_any_bytes_are_a_request_or_malformed(data: st.DataObject) -> None:
    pdu = bytearray(associate_rq())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(pdu) - 1))
        pdu[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
        if not pdu:
            break
    try:
        request = read_request(bytes(pdu))
    except Malformed:
        return
    accept(request, max_pdu=131072)


@given(st.binary(max_size=100))
def test_any_bytes_are_an_answer_or_malformed(rubbish: bytes) -> None:
    _, proposed = write_request("US", "THEM", contexts=[(CT, (EXPLICIT,))], max_pdu=16384)
    try:
        contexts, _ = read_answer(b"\x02\x00" + rubbish, proposed)
    except Malformed:
        return
    assert set(contexts) <= {1}


def test_rejections_in_words() -> None:
    assert rejection(1, 1, 7)[-3:] == bytes([1, 1, 7])
    assert rejection_in_words(1, 1, 7) == "called AE title not recognised (permanent)"
    assert rejection_in_words(2, 3, 2) == "local limit exceeded (transient)"
    assert rejection_in_words(1, 1, 1) == "no reason given (permanent)"
