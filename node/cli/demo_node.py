"""The node of the demonstration: started and stopped as an operator would, by `pacsnode up` in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from node import wiring
from node.cli import home as homes
from node.cli.children import die_with_parent
from node.db import timeline, views
from node.db.session import Database
from node.dicom.standin import LOOPBACK, StandInPacs
from node.errors import ConfigurationError
from node.settings import Peer, Settings

AET = "PACSNODE"
_START_S = 120.0
_STOP_S = 60.0
_SITE = """# Written by pacsnode demo.
[[peer]]
aet = "{aet}"
host = "{host}"
port = {port}
description = "the stand-in PACS of the demonstration"
[peer.completion]
quiet_s = 2

[[route]]
from = "{aet}"
to = ["{aet}"]
"""


_EMBEDDED = {"database_url": "", "redis_url": ""}
_KEPT = ("PACSNODE_DEVICE", "PACSNODE_THREADS", "PACSNODE_CLOCK_INTERVAL_S")


def _environment() -> dict[str, str]:
    """Whatever else is set for a real node here (its database, its broker) is not for the demonstration."""
    theirs = {name: value for name, value in os.environ.items() if not name.startswith("PACSNODE_") or name in _KEPT}
    return {**theirs, "PYTHONPATH": homes.python_path()}


class DemoNode:
    """A context manager; `wait_ready` before anything is sent."""

    def __init__(self, folder: Path, pacs: StandInPacs) -> None:
        self.home = folder / "home"
        self._site = folder / "site.toml"
        self._log = folder / "up.log"
        self._pacs = pacs
        self._process: subprocess.Popen[bytes] | None = None
        self._opened: Database | None = None

    def __enter__(self) -> DemoNode:
        self._site.write_text(_SITE.format(aet=self._pacs.aet, host=LOOPBACK, port=self._pacs.port), encoding="utf8")
        options = ["--aet", AET, "--host", LOOPBACK, "--port", "0", "--web-port", "0", "--site", str(self._site)]
        command = [sys.executable, "-P", "-m", "node", "--home", str(self.home), "up", *options, "--grace", "10"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  (one prctl call; the threads of the stand-in PACS hold no lock that it needs)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        if self._opened is not None:
            self._opened.close()
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def wait_ready(self) -> None:
        """raises   ConfigurationError   it does not start; the log says why."""
        deadline = time.monotonic() + _START_S
        while not any(line.startswith("ready ") for line in self._lines()):
            self.check()
            if time.monotonic() > deadline:
                raise ConfigurationError(f"the node is not ready after {_START_S:.0f} s; see {self._log}")
            time.sleep(0.1)
        self._pacs.report_to(AET, LOOPBACK, self._settings().port)

    def check(self) -> None:
        """raises   ConfigurationError   it has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise ConfigurationError("the node has ended: " + (" ".join(self._lines()[-3:]) or f"see {self._log}"))

    def _lines(self) -> list[str]:
        return self._log.read_text(encoding="utf8", errors="replace").splitlines()

    def _settings(self) -> Settings:
        return Settings.load(home=self.home, **homes.recall(self.home), **_EMBEDDED)

    def _database(self) -> Database:
        if self._opened is None:
            self._opened = wiring.build(self._settings()).database
        return self._opened

    def settings_of_pacs(self, pacs: StandInPacs) -> Settings:
        """To send as the PACS would."""
        return self._settings().model_copy(update={"aet": pacs.aet})

    def as_peer(self) -> Peer:
        return Peer(aet=AET, host=LOOPBACK, port=self._settings().port)

    def studies(self) -> list[views.StudyLine]:
        with self._database().read() as session:
            return views.studies(session)

    def timelines(self) -> list[timeline.Timeline]:
        with self._database().read() as session:
            found = [timeline.timeline(session, line.study_instance_uid) for line in views.studies(session)]
        return [line for line in found if line is not None]

    def derived_series(self, modality: str) -> dict[str, str]:
        """Derived series of results → the received series each was made from."""
        with self._database().read() as session:
            return views.derived_series(session, modality)
