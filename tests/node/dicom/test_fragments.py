"""The reader, whatever way its bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from network.raw import ABORT, RELEASE_RQ, message, p_data, pdv
from node.dicom import fragments
from node.dicom.fragments import Malformed, NotData, Reader
from node.dicom.transport import Lost


class Script:
    """Brings these bytes, so many at a time, and then ends."""

    def __init__(self, data: bytes, steps: list[int]) -> None:
        self.data, self.steps = data, steps

    def __call__(self, view: memoryview) -> int:
        step = min(self.steps[0] if self.steps else len(self.data), len(view), len(self.data))
        if not step:
            raise Lost("the script has ended")
        self.steps = self.steps[1:] + self.steps[:1]
        view[:step], self.data = self.data[:step], self.data[step:]
        return step


steps = st.lists(st.integers(1, 5000), min_size=1, max_size=5)


@given(st.binary(max_size=300), st.binary(max_size=20_000), st.integers(1, 9000), steps)
@settings(max_examples=150)
def test_a_message_comes_out_as_it_went_in(command: bytes, data: bytes, step: int, cuts: list[int]) -> None:
    stream = message(5, command, data, step=step) + message(7, b"next") + RELEASE_RQ
    reader = Reader(Script(stream, cuts), size=1 << 17)
    assert reader.command() == (5, command)
    poured: list[bytes] = []
    reader.pour(5, lambda pieces: poured.extend(bytes(piece) for piece in pieces))
    assert b"".join(poured) == data
    assert reader.command() == (7, b"next")
    with pytest.raises(NotData):
        reader.command()
    rest = reader.rest()
    assert RELEASE_RQ.startswith(rest)
    assert len(rest) >= 6


@given(st.binary(max_size=3000), st.integers(1, 700), steps)
def test_a_data_set_in_memory_is_the_same(data: bytes, step: int, cuts: list[int]) -> None:
    reader = Reader(Script(message(1, b"c", data, step=step), cuts), size=1 << 17)
    reader.command()
    assert reader.data(1, most=3000) == data


@given(st.binary(max_size=400))
@settings(max_examples=300)
def test_any_bytes_end_in_a_message_or_an_error_of_ours(rubbish: bytes) -> None:
    reader = Reader(Script(b"\x04\x00" + rubbish, []), size=1 << 17)
    try:
        context_id, _ = reader.command()
        reader.pour(context_id, lambda pieces: None)
    except (Malformed, NotData, Lost):
        return


def test_what_we_cut_reads_back() -> None:
    data = bytes(range(256)) * 40
    for step in (1, 6, 1000, 100_000):
        parts = fragments.p_data(3, b"command", is_command=True, step=step)
        parts += fragments.p_data(3, data, is_command=False, step=step)
        reader = Reader(Script(b"".join(parts), []), size=1 << 17)
        assert reader.command() == (3, b"command")
        assert reader.data(3, most=len(data)) == data


def test_a_data_set_too_long_for_its_service_is_malformed() -> None:
    reader = Reader(Script(message(1, b"c", bytes(1000), step=400), []), size=1 << 17)
    reader.command()
    with pytest.raises(Malformed, match="too long"):
        reader.data(1, most=999)


def test_an_abort_within_an_object_is_told() -> None:
    reader = Reader(Script(message(1, b"c") + p_data(pdv(1, 0, b"1234")) + ABORT, []), size=1 << 17)
    reader.command()
    with pytest.raises(NotData, match="type 7"):
        reader.pour(1, lambda pieces: None)
    assert reader.rest() == ABORT
    assert not reader.buffered
