"""Receive throughput and CPU seconds per GB: this node beside DCMTK storescp and Orthanc, in one interleaved run.

Every receiver gets the same CT slices (512×512, 16 bit, 0.53 MB) under new UIDs each time, from three senders in turn:
`storescu` as it comes, to receivers as they come; `storescu` and a raw sender with Nagle's algorithm off at both ends.
Speeds are medians of the rounds; CPU is user + system of the receiver's processes over all rounds. The node answers
after each object is synced to disk and its row committed; storescp syncs nothing; Orthanc has its default settings.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from system import studies
from system.dcmtk import Address, StoreScp
from system.node_process import Node, PeerEntry, site_text
from system.orthanc import Orthanc, Remote
from system.processes import NotReady, Process, cpu_seconds, listens, require
from system.raw_sender import Encoded, RawSender

CALLING = "BENCH"
GB = 1e9
NO_NAGLE = {"TCP_NODELAY": "1"}  # read by all that is built on DCMTK, Orthanc included
AS_IT_COMES, TUNED, RAW, MANY = "storescu as it comes", "storescu", "raw", "raw, 4 associations"
SENDERS = (AS_IT_COMES, TUNED, RAW)
SERIAL = "0" * 12
"""Placeholder of fixed width in every UID of the template: replaced in the bytes, so no run repeats another's UIDs."""


@dataclass(frozen=True)
class Endpoint:
    """One running receiver."""

    address: Address
    pid: int


@dataclass(frozen=True)
class Receiver:
    """One row of the table. `tuned` is a second process of the same kind with Nagle's algorithm off."""

    name: str
    note: str
    plain: Endpoint
    tuned: Endpoint


@dataclass
class Runs:
    """What one receiver did with one sender."""

    megabytes_per_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    gigabytes: float = 0.0


@dataclass(frozen=True)
class Load:
    """`count` slices as bytes; `fresh()` gives them new UIDs."""

    template: bytes
    count: int

    @property
    def megabytes(self) -> float:
        return self.count * len(self.template) / 1e6

    def fresh(self, run: int) -> list[tuple[str, bytes]]:
        """(SOP Instance UID, file) of each slice."""
        made = []
        for number in range(1, self.count + 1):
            instance = f"{run:06d}{number:06d}"
            content = self.template.replace(_uid("3", SERIAL), _uid("3", instance))
            made.append((_uid("3", instance).decode(), content.replace(_uid("1", SERIAL), _uid("1", f"{run:012d}"))))
        return made


def _uid(level: str, serial: str) -> bytes:
    return f"2.25.10{level}9{serial}".encode()  # 20 characters: no padding, whatever the serial


def make_load(folder: Path, count: int) -> Load:
    import pydicom

    study = studies.large_ct(folder, 1)
    dataset = pydicom.dcmread(study.files[0])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = _uid("3", SERIAL).decode()
    dataset.StudyInstanceUID = _uid("1", SERIAL).decode()
    dataset.save_as(folder / "template.dcm", enforce_file_format=True)
    return Load((folder / "template.dcm").read_bytes(), count)


Files = Sequence[tuple[str, bytes]]
Send = Callable[[], float]
"""Sends what it was prepared with and returns the seconds it took."""


def raw(to: Address, files: Files) -> Send:
    def data_set(content: bytes) -> bytes:
        return content[144 + int.from_bytes(content[140:144], "little") :]

    objects = [Encoded(uid, data_set(content)) for uid, content in files]

    def send() -> float:
        started = time.perf_counter()
        with RawSender(to.host, to.port, called=to.aet, calling=CALLING) as sender:
            statuses = sender.send(objects)
            took = time.perf_counter() - started
        if any(statuses):
            raise NotReady(f"{to.aet} answered {[hex(status) for status in statuses if status][:3]}")
        return took

    return send


def storescu(to: Address, files: Files, *, folder: Path, env: Mapping[str, str]) -> Send:
    for old in folder.glob("*.dcm"):
        old.unlink()
    for uid, content in files:
        (folder / f"{uid}.dcm").write_bytes(content)
    command = [require("storescu"), "-R", "+sd", "-aet", CALLING, "-aec", to.aet, to.host, str(to.port), str(folder)]

    def send() -> float:
        started = time.perf_counter()
        subprocess.run(command, check=True, env={**os.environ, **env}, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    return send


def prepare(sender: str, receiver: Receiver, files: Files, folder: Path) -> tuple[Endpoint, Send]:
    if sender == AS_IT_COMES:
        return receiver.plain, storescu(receiver.plain.address, files, folder=folder, env={})
    if sender == TUNED:
        return receiver.tuned, storescu(receiver.tuned.address, files, folder=folder, env=NO_NAGLE)
    return receiver.tuned, raw(receiver.tuned.address, files)


@contextlib.contextmanager
def storescp(folder: Path, name: str, options: Sequence[str]) -> Iterator[Receiver]:
    with (
        StoreScp(folder / "plain", options=options) as plain,
        StoreScp(folder / "tuned", options=options, env=NO_NAGLE) as tuned,
    ):
        ends = [Endpoint(scp.address, scp.pid) for scp in (plain, tuned)]
        yield Receiver(name, "syncs nothing", *ends)


@contextlib.contextmanager
def orthanc(folder: Path) -> Iterator[Receiver]:
    peer = Remote(CALLING, 104)
    with Orthanc(folder / "plain", node=peer) as plain, Orthanc(folder / "tuned", node=peer, env=NO_NAGLE) as tuned:
        ends = [Endpoint(pacs.address, pacs.pid) for pacs in (plain, tuned)]
        yield Receiver("Orthanc", "default settings: syncs files", *ends)


@contextlib.contextmanager
def node_receiver(folder: Path) -> Iterator[Receiver]:
    """`pacsnode receive` alone, as a hospital's front door runs it."""
    site = site_text([PeerEntry(CALLING, quiet_s=3600, deadline_s=86400)], {})
    node = Node(folder, site=site, aet="NODE")
    for arguments in (["migrate"], ["peers", "apply", str(node.site)]):
        answer = node.command(*arguments)
        if not answer.ok:
            raise NotReady(f"pacsnode {' '.join(arguments)}: {answer.text}")
    process = Process([*node.command_line(), "receive"], log=node.log, env={**node.env, **node.listening()})
    try:
        process.wait_ready(lambda: listens(node.port))
        end = Endpoint(node.address, process.pid)
        yield Receiver("pacsnode", "durable: synced file, committed row", end, end)
    finally:
        process.stop()


def measure(end: Endpoint, send: Send, megabytes: float, into: Runs) -> None:
    before = cpu_seconds(end.pid)
    took = send()
    time.sleep(0.3)  # what the receiver still does for these objects is its cost, too
    into.cpu_s += cpu_seconds(end.pid) - before
    into.gigabytes += megabytes * 1e6 / GB
    into.megabytes_per_s.append(megabytes / took)


def interleaved(receivers: Sequence[Receiver], load: Load, rounds: int, folder: Path) -> dict[str, dict[str, Runs]]:
    results = {receiver.name: {sender: Runs() for sender in SENDERS} for receiver in receivers}
    run = 0
    for round_number in range(rounds + 1):  # the first warms caches and connections up and is not counted
        for sender in SENDERS:
            for receiver in receivers:
                run += 1
                end, send = prepare(sender, receiver, load.fresh(run), folder)
                measure(end, send, load.megabytes, results[receiver.name][sender] if round_number else Runs())
    return results


def parallel(receivers: Sequence[Receiver], load: Load, rounds: int, associations: int) -> dict[str, Runs]:
    """The raw sender on several associations at once."""
    results = {receiver.name: Runs() for receiver in receivers}
    run = 500_000
    for _ in range(rounds):
        for receiver in receivers:
            jobs = []
            for _ in range(associations):
                run += 1
                jobs.append(raw(receiver.tuned.address, load.fresh(run)))
            together = partial(_together, jobs)
            measure(receiver.tuned, together, load.megabytes * associations, results[receiver.name])
    return results


def _together(jobs: Sequence[Callable[[], float]]) -> float:
    threads = [threading.Thread(target=job) for job in jobs]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def table(receivers: Sequence[Receiver], results: dict[str, dict[str, Runs]], many: dict[str, Runs]) -> str:
    columns = [f"{name}, MB/s" for name in (*SENDERS, MANY)] + ["CPU s/GB, storescu", "CPU s/GB, raw", "durability"]
    lines = ["| Receiver | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for receiver in receivers:
        runs = [*results[receiver.name].values(), many[receiver.name]]
        cells = [f"{statistics.median(run.megabytes_per_s):.0f}" for run in runs]
        for sender in (TUNED, RAW):
            counted = results[receiver.name][sender]
            cells.append(f"{counted.cpu_s / counted.gigabytes:.2f}")
        lines.append(f"| {receiver.name} | " + " | ".join([*cells, receiver.note]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=100, help="CT slices of 0.53 MB in each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-node", action="store_true", help="only the peers")
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    given, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="pacsnode-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        load = make_load(folder / "load", given.slices)
        receivers = [] if given.without_node else [stack.enter_context(node_receiver(folder / "node"))]
        receivers.append(stack.enter_context(storescp(folder / "scp", "DCMTK storescp", ["-pm", "+xa"])))
        receivers.append(stack.enter_context(storescp(folder / "scpb", "DCMTK storescp +B", ["-pm", "+xa", "+B"])))
        receivers.append(stack.enter_context(orthanc(folder / "orthanc")))
        (folder / "files").mkdir()
        results = interleaved(receivers, load, given.rounds, folder / "files")
        many = parallel(receivers, load, given.rounds, 4)
    text = table(receivers, results, many)
    title = f"Receive: {given.slices} CT slices, {load.megabytes:.0f} MB a run, medians of {given.rounds} rounds"
    print(f"\n{title}\n\n{text}\n")
    given.out.mkdir(exist_ok=True)
    (given.out / "receive.md").write_text(text + "\n", encoding="utf8")
    whole = {
        name: {**{sender: asdict(runs) for sender, runs in by.items()}, MANY: asdict(many[name])}
        for name, by in results.items()
    }
    (given.out / "receive.json").write_text(json.dumps(whole, indent=1), encoding="utf8")


if __name__ == "__main__":
    main()
