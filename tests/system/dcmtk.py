"""DCMTK's tools as modality and PACS: each call is one run of the program, its text kept for the report."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from system.processes import Process, free_port, listens, require


@dataclass(frozen=True)
class Address:
    """Where an application entity listens and what it is called."""

    aet: str
    port: int
    host: str = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    status: int
    text: str

    @property
    def ok(self) -> bool:
        return self.status == 0


def run(program: str, *arguments: str | Path | int, timeout_s: float = 120) -> Answer:
    done = subprocess.run(
        [require(program), *(str(argument) for argument in arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=timeout_s,
        check=False,
    )
    return Answer(done.returncode, done.stdout.decode("utf8", "replace"))


def echoscu(to: Address, *, calling: str = "MODALITY") -> Answer:
    return run("echoscu", "-to", 10, "-ta", 10, "-aet", calling, "-aec", to.aet, to.host, to.port)


def storescu(to: Address, files: Sequence[Path], *, calling: str = "MODALITY", options: Sequence[str] = ()) -> Answer:
    """`-R` proposes the classes of the files themselves: the default list has no Comprehensive 3D SR."""
    return run("storescu", "-v", "-R", *options, "-aet", calling, "-aec", to.aet, to.host, to.port, *files)


def dcmsend(to: Address, files: Sequence[Path], *, calling: str = "MODALITY", options: Sequence[str] = ()) -> Answer:
    """Its exit status is 0 even when the peer refused: count `with status SUCCESS` in the text."""
    return run("dcmsend", "-v", *options, "-aet", calling, "-aec", to.aet, to.host, to.port, *files)


def dcmsend_successes(answer: Answer) -> int:
    """From the summary: `  * with status SUCCESS  : 24`."""
    for line in answer.text.splitlines():
        if "with status SUCCESS" in line:
            return int(line.rpartition(":")[2])
    return 0


def findscu(to: Address, keys: Sequence[str], *, calling: str = "MODALITY") -> Answer:
    queries = [part for key in keys for part in ("-k", key)]
    return run("findscu", "-S", "-aet", calling, "-aec", to.aet, to.host, to.port, *queries)


class StoreScp:
    """storescp: takes everything (`-pm +xa`), stores it by SOP Instance UID, knows no commitment and no query."""

    def __init__(
        self,
        folder: Path,
        *,
        aet: str = "STORESCP",
        options: Sequence[str] = ("-pm", "+xa"),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.program = require("storescp")
        self.folder = folder
        self.received = folder / "received"
        self.options = options
        self.env = env
        self.address = Address(aet, free_port())
        self.process: Process | None = None

    def __enter__(self) -> StoreScp:
        self.received.mkdir(parents=True, exist_ok=True)
        arguments = [*self.options, "-aet", self.address.aet, "-od", self.received, self.address.port]
        self.process = Process([self.program, *map(str, arguments)], log=self.folder / "storescp.log", env=self.env)
        self.process.wait_ready(lambda: listens(self.address.port))
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process is not None:
            self.process.stop()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def files(self) -> list[Path]:
        return sorted(path for path in self.received.iterdir() if path.is_file())
