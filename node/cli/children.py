"""One child process of `pacsnode up`: its pid file, its rotated log, and when it may be started again."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import logging.handlers
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from node.cli.words import remark

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

FIRST_DELAY_S = 1.0
MOST_DELAY_S = 60.0
STEADY_S = 60.0
"""A child that has lived so long is started at once when it dies."""


def die_with_parent() -> None:
    """For `preexec_fn`: a parent that is killed takes its children along, so nothing works on in its home."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Log(logging.handlers.RotatingFileHandler):
    """A rotated log. Where it cannot be written, that is said once, not with a traceback for each line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=5_000_000, backupCount=4, encoding="utf8", delay=True)
        self._is_broken = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002  (logging's own)
        exc = sys.exc_info()[1]
        if not self._is_broken:
            remark(f"{self.baseFilename} cannot be written ({getattr(exc, 'strerror', None) or type(exc).__name__})")
        self._is_broken = True

    def flush(self) -> None:
        super().flush()
        self._is_broken = False


class Child:
    """`begin`, `poll`, `stop`; everything it prints goes to its log."""

    def __init__(self, name: str, command: Sequence[str], *, run_dir: Path, log_dir: Path) -> None:
        self.name = name
        self.restarts = -1
        self._command = list(command)
        self._pid_file = run_dir / f"{name}.pid"
        self.ready_file = run_dir / f"{name}.ready"
        self._log = Log(log_dir / f"{name}.log")
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._began = 0.0
        self._delay_s = 0.0
        self.last_words = ""

    def begin(self, environment: Mapping[str, str]) -> None:
        """Start it. Its own session: Ctrl-C in a terminal reaches only the supervisor, which stops all in order."""
        self.ready_file.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509  (the supervisor has one thread)
        )
        self._pid_file.write_text(f"{self._process.pid}\n", encoding="ascii")
        self._began = time.monotonic()
        self.restarts += 1
        os.set_blocking(self._output(), False)

    def _output(self) -> int:
        if self._process is None or self._process.stdout is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.stdout.fileno()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def output(self) -> int | None:
        """File descriptor of what it prints, None once it has been closed."""
        alive = self._process is not None and self._process.stdout is not None and not self._process.stdout.closed
        return self._output() if alive else None

    def ready(self) -> dict[str, int] | None:
        """What it said when it was ready, None before."""
        try:
            found: dict[str, int] = json.loads(self.ready_file.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None
        return found if found.get("pid") == self.pid else None

    def poll(self) -> int | None:
        """Exit code where it has ended; its last output is in the log then."""
        code = self._process.poll() if self._process is not None else None
        if code is not None:
            self.pump()
        return code

    def pump(self) -> None:
        """Move what it printed into its log."""
        descriptor = self.output
        while descriptor is not None:
            try:
                data = os.read(descriptor, 65536)
            except BlockingIOError:
                return
            if not data:
                self._close_output()
                break
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._write(lines)

    def _close_output(self) -> None:
        if self._rest:
            self._write([self._rest])
        self._rest = b""
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()

    def _write(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            text = line.decode("utf8", "replace").rstrip()
            self._log.handle(logging.makeLogRecord({"msg": text, "args": None}))
            self.last_words = text or self.last_words

    def buried(self) -> float:
        """It has ended: tidy up; seconds to wait before it is started again, growing while it does not hold."""
        self._remove_files()
        lived_s = time.monotonic() - self._began
        self._delay_s = (
            FIRST_DELAY_S if lived_s > STEADY_S else min(max(2 * self._delay_s, FIRST_DELAY_S), MOST_DELAY_S)
        )
        return self._delay_s

    def signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        """It and whatever it started in its session."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """After its end."""
        self.pump()
        self._close_output()
        self._remove_files()
        self._log.close()

    def _remove_files(self) -> None:
        self._pid_file.unlink(missing_ok=True)
        self.ready_file.unlink(missing_ok=True)
