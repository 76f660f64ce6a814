from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from node.cli.children import FIRST_DELAY_S, MOST_DELAY_S, Child, Log
from node.cli.supervisor import NotStarted, Supervisor
from node.errors import ConfigurationError

READY = """
import json, os, sys, time
open(sys.argv[1], "w").write(json.dumps({"pid": os.getpid()}))
print("up", flush=True)
"""
IDLE = READY + "time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + IDLE
Make = Callable[..., Child]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def child(name: str, script: str) -> Child:
        command = [sys.executable, "-c", script, str(tmp_path / f"{name}.ready")]
        return Child(name, command, run_dir=tmp_path, log_dir=tmp_path)

    return child


@pytest.fixture
def deaths() -> list[tuple[str, int, float]]:
    return []


@pytest.fixture
def supervisor(deaths: list[tuple[str, int, float]]) -> Supervisor:
    return Supervisor(os.environ, lambda *death: deaths.append(death), lambda _name: None, grace_s=0.5)


def alive(pid: int | None) -> bool:
    return pid is not None and Path(f"/proc/{pid}").exists()


def test_children_become_ready_and_end_without_leaving_anything(
    supervisor: Supervisor, make: Make, tmp_path: Path
) -> None:
    one, two = make("one", IDLE), make("two", IDLE)
    supervisor.start([one, two])
    ready: list[str] = []
    assert supervisor.until_ready([one, two], lambda child: ready.append(child.name))
    assert sorted(ready) == ["one", "two"]
    assert (tmp_path / "one.pid").read_text(encoding="ascii").strip() == str(one.pid)
    supervisor.stop([["one"], ["two"]])
    assert not alive(one.pid)
    assert not alive(two.pid)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.log", "two.log"]
    assert (tmp_path / "one.log").read_text(encoding="utf8") == "up\n"


def test_a_child_that_dies_is_started_again(
    supervisor: Supervisor, make: Make, deaths: list[tuple[str, int, float]]
) -> None:
    child = make("one", IDLE)
    supervisor.start([child])
    supervisor.until_ready([child], lambda _: None)
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    while child.pid == first:
        supervisor._turn()
    assert supervisor.until_ready([child], lambda _: None)
    assert deaths == [("one", -signal.SIGKILL, FIRST_DELAY_S)]
    supervisor.stop([["one"]])


def test_what_is_told_of_a_return_keeps_no_child_from_it(make: Make) -> None:
    told: list[tuple[str, int | None]] = []
    child = make("one", IDLE)
    supervisor = Supervisor(os.environ, lambda *_: None, lambda name: told.append((name, child.pid)), grace_s=0.5)
    supervisor.start([child])
    supervisor.until_ready([child], lambda _: None)
    first = child.pid
    assert first is not None
    assert not told
    os.kill(first, signal.SIGKILL)
    while not told:
        supervisor._turn()
    assert told == [("one", child.pid)]
    assert child.pid != first
    assert alive(child.pid)
    supervisor.stop([["one"]])


def test_the_delay_grows_to_a_limit_while_a_child_does_not_hold(make: Make) -> None:
    child = make("one", "")
    delays = []
    for _ in range(9):
        child.begin(os.environ)
        while child.poll() is None:
            child.pump()
        delays.append(child.buried())
    assert delays[:4] == [1, 2, 4, 8]
    assert delays[-1] == MOST_DELAY_S
    child.close()


def test_a_child_that_says_its_settings_are_wrong_ends_the_start(supervisor: Supervisor, make: Make) -> None:
    child = make("one", "import sys; print('port 104 is taken'); sys.exit(2)")
    supervisor.start([child])
    with pytest.raises(ConfigurationError, match="one: port 104 is taken"):
        supervisor.until_ready([child], lambda _: None)
    supervisor.stop([["one"]])


def test_a_child_that_never_becomes_ready_is_given_up(
    supervisor: Supervisor, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.cli.children.FIRST_DELAY_S", 0.01)
    child = make("one", "print('no such library'); raise SystemExit(1)")
    supervisor.start([child])
    with pytest.raises(NotStarted, match="no such library"):
        supervisor.until_ready([child], lambda _: None)
    supervisor.stop([["one"]])


def test_a_child_that_does_not_end_in_time_is_killed(supervisor: Supervisor, make: Make) -> None:
    first, stubborn = make("first", IDLE), make("stubborn", STUBBORN)
    supervisor.start([first, stubborn])
    supervisor.until_ready([first, stubborn], lambda _: None)
    supervisor.stop([["first"], ["stubborn"]])
    assert not alive(stubborn.pid)


def test_a_signal_ends_the_watch(supervisor: Supervisor, make: Make) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    supervisor.listen()
    try:
        child = make("one", IDLE)
        supervisor.start([child])
        supervisor.until_ready([child], lambda _: os.kill(os.getpid(), signal.SIGTERM))
        supervisor.watch()
        assert supervisor.stopping
        supervisor.stop([["one"]])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_log_is_rotated_and_does_not_grow_for_ever(make: Make, tmp_path: Path) -> None:
    child = make("one", "for n in range(4000): print(n, 'x' * 60)")
    child._log.maxBytes = 100_000
    child.begin(os.environ)
    while child.poll() is None:
        child.pump()
    child.close()
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("one.log*")}
    assert sorted(sizes) == ["one.log", "one.log.1", "one.log.2"]
    assert max(sizes.values()) <= 100_000
    assert (tmp_path / "one.log").read_text(encoding="utf8").splitlines()[-1].startswith("3999 ")


def test_a_log_that_cannot_be_written_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(Path("/dev/full"))
    for _ in range(3):
        log.handle(logging.makeLogRecord({"msg": "x", "args": None}))
    assert capsys.readouterr().err == "/dev/full cannot be written (No space left on device)\n"
    assert log.stream is not None
    with suppress(OSError):  # what is left in it cannot be written at its end either
        log.stream.close()
