"""Real programs as children of the test: free ports, waiting until ready, stopping, and what they cost."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

SBIN = "/usr/sbin"  # Debian keeps Orthanc there, which is not on every user's path


class NotReady(AssertionError):
    """Something did not come to pass in the time it was given."""


def find(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=SBIN)


def require(program: str, found: str | None = None) -> str:
    """The path of a program that the system tests need. Without it they skip, and where CI is set they fail."""
    path = found or find(program)
    if path is not None:
        return path
    reason = f"{program} is not installed (see .ci/run)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], T], what: str, *, timeout_s: float = 60, every_s: float = 0.1) -> T:
    """The first true value of `condition`. Raises NotReady, with the last value in its text."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise NotReady(f"not within {timeout_s:g} s: {what} (last seen: {value!r})")
        time.sleep(every_s)


class Process:
    """A child with its output in a file, in a session of its own so that nothing of it is left behind."""

    def __init__(
        self, command: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.name = Path(command[0]).name
        self.log = log
        with log.open("ab") as output:
            self.child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else {**os.environ, **env},
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def running(self) -> bool:
        return self.child.poll() is None

    def tail(self, lines: int = 60) -> str:
        text = self.log.read_text(encoding="utf8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def wait_ready(self, condition: Callable[[], object], *, timeout_s: float = 30) -> None:
        """Raises NotReady with the end of the log when the program ends, or stays silent for too long."""

        def ready() -> object:
            if not self.running:
                raise NotReady(f"{self.name} ended with {self.child.returncode}:\n{self.tail()}")
            return condition()

        try:
            wait_until(ready, f"{self.name} is ready", timeout_s=timeout_s)
        except NotReady as exc:
            raise NotReady(f"{exc}\n{self.tail()}") from exc

    def stop(self, *, timeout_s: float = 20, signal_number: int = signal.SIGTERM) -> int:
        """Asks it to end, then SIGKILL for the whole session. Returns the exit status."""
        if self.running:
            self.child.send_signal(signal_number)
        try:
            self.child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait(10)
        self.end_session()
        return self.child.returncode

    def kill(self) -> None:
        """SIGKILL to the child alone; its own children live on, as after a crash."""
        self.child.kill()
        self.child.wait(10)

    def end_session(self) -> None:
        for pid in session_members(self.pid):
            kill(pid)


def session_members(leader: int) -> list[int]:
    """Processes of the session that `leader` began, itself excepted."""
    return [pid for pid, fields in _processes() if int(fields[3]) == leader and pid != leader and fields[0] != "Z"]


def descendants(pid: int) -> list[int]:
    """All children of a process and theirs, nearest first."""
    parents = {child: int(fields[1]) for child, fields in _processes()}
    found: list[int] = []
    frontier = [pid]
    while frontier:
        frontier = [child for child, parent in parents.items() if parent in frontier]
        found += frontier
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its descendants, and those of them that have ended and been waited for."""
    ticks = 0
    for member in [pid, *descendants(pid)]:
        fields = _stat(member)
        if fields is not None:
            ticks += sum(int(value) for value in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def kill(pid: int, signal_number: int = signal.SIGKILL) -> bool:
    """False when the process was gone already."""
    try:
        os.kill(pid, signal_number)
    except ProcessLookupError:
        return False
    return True


def alive(pid: int) -> bool:
    fields = _stat(pid)
    return fields is not None and fields[0] != "Z"


def _processes() -> Iterator[tuple[int, list[str]]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields is not None:
                yield int(entry), fields


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third (state) on; the second may hold spaces and brackets. See proc(5)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()
