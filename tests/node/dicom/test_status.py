"""Both tables of the border, complete."""

from __future__ import annotations

import pytest

from node import errors
from node.dicom import status
from node.errors import NodeError, PeerBusy, PeerRefused, Permanent, Refused, Transient


def leaves(kind: type[NodeError]) -> list[type[NodeError]]:
    below = kind.__subclasses__()
    return [leaf for sub in below for leaf in leaves(sub)] if below else [kind]


def test_every_refusal_has_a_failure_status() -> None:
    assert set(status.STATUS_OF) == set(leaves(Refused))
    assert all(code & 0xF000 in (0xA000, 0xC000) or code < 0x0200 for code in status.STATUS_OF.values())
    assert status.SUCCESS not in status.STATUS_OF.values()


@pytest.mark.parametrize("kind", [leaf for leaf in leaves(NodeError) if leaf.__module__ == errors.__name__])
def test_no_error_is_ever_answered_with_success_or_a_warning(kind: type[NodeError]) -> None:
    code = status.status_of(kind("why"))
    assert code != status.SUCCESS
    assert not status.is_warning(code)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0x0000, None),
        (0xB000, None),
        (0xB006, None),
        (0xB007, None),
        (0x0111, None),
        (0xA700, PeerBusy),
        (0xA701, PeerBusy),
        (0xA7FF, PeerBusy),
        (0x0110, PeerBusy),
        (0x0213, PeerBusy),
        (0xA900, PeerRefused),
        (0xA9FF, PeerRefused),
        (0xC000, PeerRefused),
        (0xCFFF, PeerRefused),
        (0x0122, PeerRefused),
        (0x0124, PeerRefused),
        (0x0117, PeerRefused),
        (0xFE00, PeerRefused),
        (0x1234, PeerRefused),
    ],
)
def test_a_peer_s_status_says_whether_to_try_again(code: int, kind: type[NodeError] | None) -> None:
    error = status.peer_error(code, "C-STORE")
    assert (type(error) if error else None) is kind


def test_every_status_is_either_done_or_transient_or_permanent() -> None:
    for code in range(0x10000):
        error = status.peer_error(code, "C-STORE")
        assert error is None or isinstance(error, Transient | Permanent)
        if error is not None:
            assert f"0x{code:04X}" in error.reason


def test_rejections_are_those_of_the_standard() -> None:
    assert status.rejection_of(errors.UnknownCaller("")) == (1, 1, 3)
    assert status.rejection_of(errors.WrongCalledTitle("")) == (1, 1, 7)
    assert status.rejection_of(errors.OutOfResources("")) == (2, 3, 1)
    assert status.rejection_of(errors.Conflict("")) == (1, 1, 1)


def test_says_statuses_in_words() -> None:
    assert status.in_words(0xA700) == "0xA700 (out of resources)"
    assert status.in_words(0xC123) == "0xC123 (cannot understand)"
    assert status.in_words(0x0122) == "0x0122 (SOP class not supported)"
    assert status.in_words(0x4242) == "0x4242 (no meaning known)"
