"""The limits on associations."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from node.dicom.slots import Slots


def test_there_are_as_many_as_there_are() -> None:
    slots = Slots(3)
    with ExitStack() as held:
        assert [held.enter_context(slots.one(host)) for host in "abcd"] == [True, True, True, False]
    with slots.one("d") as free:
        assert free


def test_one_host_cannot_have_them_all() -> None:
    slots = Slots(8)
    with ExitStack() as held:
        assert [held.enter_context(slots.one("greedy")) for _ in range(8)] == [True] * 6 + [False] * 2
        assert held.enter_context(slots.one("other"))


def test_a_single_slot_may_be_anybody_s() -> None:
    slots = Slots(1)
    with slots.one("a") as free:
        assert free
        with slots.one("b") as second:
            assert not second


def test_a_slot_comes_back_after_an_error() -> None:
    slots = Slots(1)
    with pytest.raises(RuntimeError), slots.one("a"):
        raise RuntimeError
    with slots.one("b") as free:
        assert free
