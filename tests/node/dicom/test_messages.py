"""Command sets, data sets of messages and file meta, against pydicom."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread

from network.objects import ct_image
from node.dicom import messages
from node.dicom.fragments import Malformed
from node.dicom.messages import Command, decode_data_set, encode_data_set

elements = st.dictionaries(st.integers(1, 0xFFFF), st.binary(max_size=40), max_size=10)


@given(elements)
def test_a_command_set_reads_back(written: dict[int, bytes]) -> None:
    read = Command.parse(messages.encode_command(written)).elements
    assert {element: value for element, value in read.items() if element} == written


@given(elements)
def test_the_group_length_is_that_of_the_rest(written: dict[int, bytes]) -> None:
    encoded = messages.encode_command(written)
    assert int.from_bytes(Command.parse(encoded).elements[0], "little") == len(encoded) - 12


@given(st.binary(max_size=200))
def test_any_bytes_are_a_command_set_or_malformed(encoded: bytes) -> None:
    try:
        command = Command.parse(encoded)
    except Malformed:
        return
    assert sum(8 + len(value) for value in command.elements.values()) <= len(encoded)
    assert command.text(0x1000).isascii()


def test_pydicom_reads_the_same_command() -> None:
    encoded = messages.encode_command({0x0100: messages.short(0x8001), 0x0902: messages.text("no\\room ü", 64)})
    read = decode_data_set(encoded, "1.2.840.10008.1.2")
    assert read.CommandField == 0x8001
    assert read.ErrorComment == "no/room ?"


@pytest.mark.parametrize("uid", ["1.2.3", "1", "2.25.0123", "1." * 31 + "99"])
def test_uids(uid: str) -> None:
    assert messages.is_uid(uid)


@pytest.mark.parametrize("uid", ["", ".", "..", "1..2", ".1", "1.", "1/2", "1 2", "1.2\n", "１.２", "1" * 65])
def test_not_uids(uid: str) -> None:
    assert not messages.is_uid(uid)


def test_a_response_names_what_it_answers() -> None:
    request = Command.parse(
        messages.encode_command(
            {
                messages.COMMAND_FIELD: messages.short(0x0130),
                messages.MESSAGE_ID: messages.short(5),
                messages.REQUESTED_CLASS: messages.uid("1.2.3"),
                messages.REQUESTED_INSTANCE: messages.uid("1.2.4"),
            }
        )
    )
    response = Command(messages.response_to(request, 0x0110, comment="x" * 100))
    assert response.need(messages.COMMAND_FIELD) == 0x8130
    assert response.need(messages.RESPONDED_ID) == 5
    assert response.text(messages.AFFECTED_CLASS) == "1.2.3"
    assert response.text(messages.AFFECTED_INSTANCE) == "1.2.4"
    assert response.text(messages.ERROR_COMMENT) == "x" * 64


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_file_meta_and_data_set_make_a_file(syntax: str) -> None:
    image = ct_image()
    meta = messages.file_meta(image.SOPClassUID, image.SOPInstanceUID, syntax, "CT2")
    read = dcmread(BytesIO(meta + encode_data_set(image, syntax)))
    assert read == image
    assert read.file_meta.TransferSyntaxUID == syntax
    assert read.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
    assert read.file_meta.SourceApplicationEntityTitle == "CT2"


def test_rubbish_in_a_message_is_malformed() -> None:
    with pytest.raises(Malformed):
        decode_data_set(b"\xff" * 9, "1.2.840.10008.1.2.1")
