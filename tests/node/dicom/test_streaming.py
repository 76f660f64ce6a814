"""The short way of C-STORE and pynetdicom's own, on one association; how it ends."""

from __future__ import annotations

import importlib.metadata
import os
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from network.desk import RecordingDesk
from network.objects import data_set_of
from network.raw import ABORT, RELEASE_RQ, associate_rq, associated, connected, echo_rq, message, store_rq
from node.dicom.receive import StorageScp

StartScp = Callable[..., StorageScp]


def test_pynetdicom_is_the_version_whose_internals_are_known() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf8"))["project"]
    assert f"pynetdicom=={importlib.metadata.version('pynetdicom')}" in project["dependencies"]


def test_an_association_is_parked_while_there_is_nothing_to_do(scp: StorageScp) -> None:
    """pynetdicom's own thread would wake a thousand times a second."""
    with associated(scp.port) as peer:
        for talk in (message(1, store_rq("1.2.3"), b"1234"), message(3, echo_rq())):
            peer.say(talk)
            assert peer.hear_status() == 0
            until = time.monotonic() + 20
            while not all(parked()) and time.monotonic() < until:
                time.sleep(0.01)
            assert parked() == [True]


def parked() -> list[bool]:
    associations = [thread for thread in threading.enumerate() if "AcceptorThread" in thread.name]
    return [not association._reactor_checkpoint.is_set() for association in associations]  # type: ignore[attr-defined]


def test_an_echo_before_the_object_is_complete_waits_for_nothing_but_its_turn(
    scp: StorageScp, desk: RecordingDesk
) -> None:
    data = os.urandom(300_000)
    with associated(scp.port) as peer:
        for number in range(20):
            peer.say(message(3, echo_rq(number)) + message(1, store_rq("1.2.3"), data))
            heard = {peer.hear_response()[0x0100] for _ in range(2)}
            assert heard == {0x8030, 0x8001}
    assert all(data_set_of(taken.file) == data for taken in desk.taken)


def test_a_caller_that_says_everything_at_once_is_served(scp: StorageScp, desk: RecordingDesk) -> None:
    """The first objects are there before the acceptance has been sent."""
    talk = b"".join(message(1, store_rq(f"1.2.{number}"), b"1234") for number in range(5))
    for _ in range(20):
        with connected(scp.port) as peer:
            peer.say(associate_rq())
            assert peer.hear()[0] == 2
            peer.say(talk + message(3, echo_rq()) + RELEASE_RQ)
            heard = [peer.hear()[0] for _ in range(7)]
            assert sorted(heard) == [4] * 6 + [6]
    desk.wait(lambda desk: len(desk.ends) == 20)
    assert {end[1:] for end in desk.ends} == {("released", 5, 0)}


@pytest.mark.parametrize("words", [ABORT, RELEASE_RQ, b""])
def test_whoever_leaves_while_the_desk_still_thinks_is_admitted_and_gone(
    scp: StorageScp, desk: RecordingDesk, words: bytes
) -> None:
    may_go = threading.Event()
    desk.on_admit = lambda caller: may_go.wait(20) and None
    with connected(scp.port) as peer:
        peer.say(associate_rq() + words)
        time.sleep(0.05)  # the request must have been read
    may_go.set()
    desk.wait(lambda desk: desk.ends)
    assert len(desk.ends) == 1
    assert desk.ends[0][1] in ("aborted", "lost")


def test_slots_come_back_however_associations_end(start_scp: StartScp, desk: RecordingDesk) -> None:
    scp = start_scp(max_associations=1, idle_timeout_s=0.3, dimse_timeout_s=0.3)
    endings = (ABORT, RELEASE_RQ, b"", b"\x04\0\xff\xff\xff\xff", message(1, store_rq("1.2.3"), bytes(100))[:-1])
    for number, words in enumerate(endings, 1):
        with associated(scp.port) as peer:
            peer.say(words)
            if words != ABORT:
                peer.hear()
        desk.wait(lambda desk, number=number: len(desk.ends) == number)
    outcomes = [end[1] for end in desk.ends]
    assert outcomes == ["aborted", "released", "timed out", "aborted", "timed out"]


def test_threads_and_descriptors_come_back(scp: StorageScp, desk: RecordingDesk) -> None:
    def use() -> None:
        for _ in range(10):
            with associated(scp.port) as peer:
                peer.say(message(1, store_rq("1.2.3"), b"1234"))
                assert peer.hear_status() == 0
            with connected(scp.port) as peer:
                peer.say(b"nonsense")

    def settle() -> tuple[int, int]:
        until = time.monotonic() + 20
        while any("dicom-Acceptor" in thread.name for thread in threading.enumerate()) and time.monotonic() < until:
            time.sleep(0.02)
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    use()
    before = settle()
    use()
    until = time.monotonic() + 20
    while (now := settle()) > before and time.monotonic() < until:
        time.sleep(0.1)  # the last socket may close after the thread that served it
    assert now <= before
