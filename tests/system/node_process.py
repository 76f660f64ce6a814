"""The node under test, as an operator starts it: `pacsnode up` as a process, asked through its command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from system.dcmtk import Address, Answer
from system.processes import NotReady, Process, alive, free_port, kill, wait_until

PARTS = ("receive", "infer", "deliver", "clock", "web", "redis")
"""Names of `home/run/<name>.pid`, one for each process of the embedded node."""

QUICK = {
    "PACSNODE_CLOCK_INTERVAL_S": "0.25",
    "PACSNODE_LEASE_S": "6",
    "PACSNODE_RETRY_FIRST_S": "0.5",
    "PACSNODE_RETRY_MOST_S": "2",
    "PACSNODE_BREAKER_OPEN_S": "1",
    "PACSNODE_COMMITMENT_WAIT_S": "10",
    "PACSNODE_DISK_WATERMARK_PERCENT": "99.5",
    "PACSNODE_DISK_RESERVE_MB": "64",
}
"""An impatient site: the same code, shorter waits."""


@dataclass(frozen=True)
class PeerEntry:
    """One [[peer]] of the site file."""

    aet: str
    port: int | None = None
    host: str = "127.0.0.1"
    quiet_s: float = 1.5
    deadline_s: float = 600
    when_images: int | None = None
    takes: Sequence[str] | None = None
    commitment: str = "auto"
    may_send: bool = True
    may_receive: bool = True
    reconcile: bool = False

    def toml(self) -> str:
        lines = ["[[peer]]", f'aet = "{self.aet}"', f'host = "{self.host}"', f'commitment = "{self.commitment}"']
        lines += [f"may_send = {str(self.may_send).lower()}", f"may_receive = {str(self.may_receive).lower()}"]
        if self.reconcile:
            lines.append("reconcile = true")
        if self.port is not None:
            lines.append(f"port = {self.port}")
        if self.takes is not None:
            lines.append(f"takes = {json.dumps(list(self.takes))}")
        lines += ["[peer.completion]", f"quiet_s = {self.quiet_s}", f"deadline_s = {self.deadline_s}"]
        if self.when_images is not None:
            lines.append(f"when_images = {self.when_images}")
        return "\n".join(lines)


def site_text(peers: Sequence[PeerEntry], routes: Mapping[str, Sequence[str]]) -> str:
    entries = [peer.toml() for peer in peers]
    entries += [f'[[route]]\nfrom = "{source}"\nto = {json.dumps(list(to))}' for source, to in routes.items()]
    text = "\n\n".join(entries) + "\n"
    tomllib.loads(text)
    return text


_RUN_S = 0.05


class Node:
    """One node under `folder`. `env` goes over the quick settings; a URL in it takes the place of an embedded part."""

    def __init__(
        self,
        folder: Path,
        *,
        site: str,
        aet: str = "NODE",
        port: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.port = port or free_port()
        self.web_port = free_port()
        self.aet = aet
        self.env = {**QUICK, "OMP_NUM_THREADS": "1", "PACSNODE_THREADS": "1", **(env or {})}
        self.site = folder / "site.toml"
        self.process: Process | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.site.write_text(site, encoding="utf8")

    @property
    def address(self) -> Address:
        return Address(self.aet, self.port)

    @property
    def log(self) -> Path:
        return self.folder / "node.log"

    def __enter__(self) -> Node:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self, *, timeout_s: float = 90) -> None:
        before = self._ready_lines()
        command = [*self.command_line(), "up", "--aet", self.aet, "--port", self.port]
        command += ["--web-port", self.web_port, "--site", self.site]
        self.process = Process([str(part) for part in command], log=self.log, env=self.env)
        self.process.wait_ready(lambda: self._ready_lines() > before, timeout_s=timeout_s)

    def stop(self) -> int:
        """Exit status of `pacsnode up` after SIGTERM."""
        if self.process is None:
            return 0
        status = self.process.stop(timeout_s=40)
        self.process = None
        return status

    def crash(self) -> None:
        """SIGKILL to everything of the node at once, as when the machine loses power (but not its disk)."""
        assert self.process is not None
        self.process.child.kill()
        self.process.child.wait(10)
        self.process.end_session()
        for name in PARTS:
            pid = self.pid(name)
            if pid is not None:
                kill(pid)
        self.process = None

    def pid(self, part: str) -> int | None:
        try:
            pid = int((self.home / "run" / f"{part}.pid").read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None
        return pid if alive(pid) else None

    def kill(self, *parts: str) -> None:
        """SIGKILL to processes of the node, all at once; returns when they are back, under other process ids."""
        old = {part: self.strike(part) for part in parts}
        for part, pid in old.items():
            self.wait_anew(part, pid)

    def strike(self, part: str) -> int:
        """SIGKILL, without waiting; its process id."""
        pid = self.pid(part)
        if pid is None:
            raise NotReady(f"{part} does not run\n{self.tail()}")
        kill(pid)
        return pid

    def wait_anew(self, part: str, before: int) -> None:
        """Until it is started again, under another process id."""
        back = partial(self._runs_anew, part, before)
        wait_until(back, f"{part} is started again\n{self.tail()}", timeout_s=60)

    @contextmanager
    def stopped(self, part: str, *, once: Callable[[], bool], timeout_s: float = 120) -> Iterator[None]:
        """SIGSTOP as soon as `once` holds; SIGCONT at the end, if it still lives.

        It is looked at while it stands still, and runs `_RUN_S` between two looks: on a busy machine too, what lasts
        longer than that is not missed.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            pid = self.pid(part)
            assert pid is not None, f"{part} does not run\n{self.tail()}"
            kill(pid, signal.SIGSTOP)
            if once():
                break
            kill(pid, signal.SIGCONT)
            if time.monotonic() > deadline:
                raise NotReady(f"not within {timeout_s:g} s: a moment to stop {part}\n{self.tail()}")
            time.sleep(_RUN_S)
        try:
            yield
        finally:
            kill(pid, signal.SIGCONT)

    @contextmanager
    def started_with_stopped(self, part: str) -> Iterator[None]:
        """Start the node; one part of it is stopped before it can do anything, until the end of the block."""
        with ThreadPoolExecutor(1) as pool:
            start = pool.submit(self.start)
            pid = wait_until(lambda: self.pid(part), f"{part} runs", every_s=0.01)
            kill(pid, signal.SIGSTOP)
            try:
                wait_until(lambda: all(self.pid(name) for name in PARTS), "all parts run")
                yield
            finally:
                kill(pid, signal.SIGCONT)
            start.result(90)

    def _runs_anew(self, part: str, before: int | None) -> bool:
        return self.pid(part) not in (None, before)

    def command_line(self) -> list[str]:
        """The command with its home, before any subcommand."""
        return [str(Path(sys.executable).parent / "pacsnode"), "--home", str(self.home)]

    def listening(self) -> dict[str, str]:
        """Environment that says to a single process what `up` takes as options."""
        return {"PACSNODE_AET": self.aet, "PACSNODE_PORT": str(self.port), "PACSNODE_WEB_PORT": str(self.web_port)}

    def _ready_lines(self) -> int:
        if not self.log.exists():
            return 0
        text = self.log.read_text(encoding="utf8", errors="replace")
        return sum(line.startswith("ready") for line in text.splitlines())

    def tail(self, lines: int = 60) -> str:
        """End of every log of the node, for the report of a test that failed."""
        logs = [self.log, *sorted((self.home / "log").glob("*.log"))]
        parts = []
        for log in logs:
            if log.exists():
                text = log.read_text(encoding="utf8", errors="replace").splitlines()[-lines:]
                parts.append(f"== {log.name}\n" + "\n".join(text))
        return "\n".join(parts)

    def command(self, *arguments: str | Path | int, timeout_s: float = 120) -> Answer:
        """Any other subcommand with the same home."""
        done = subprocess.run(
            [*self.command_line(), *(str(argument) for argument in arguments)],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            env={**os.environ, **self.env},
            check=False,
        )
        text = done.stdout.decode("utf8", "replace")
        return Answer(done.returncode, text if done.returncode == 0 else text + done.stderr.decode("utf8", "replace"))

    def json(self, *arguments: str | Path | int) -> Any:
        answer = self.command(*arguments, "--json")
        if not answer.ok:
            raise AssertionError(f"pacsnode {' '.join(map(str, arguments))} ended with {answer.status}\n{answer.text}")
        return json.loads(answer.text)

    def web(self, path: str) -> httpx.Response:
        with httpx.Client(trust_env=False, timeout=10) as client:
            return client.get(f"http://127.0.0.1:{self.web_port}{path}")
