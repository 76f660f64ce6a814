"""rsyslog as a hospital's audit repository: octet counting over mutual TLS, messages into a file as they came."""

from __future__ import annotations

from pathlib import Path

from network.certificates import Authority
from system.processes import Process, free_port, listens, require

_CONFIGURATION = """
global(workDirectory="{folder}" maxMessageSize="64k"
  defaultNetstreamDriverCAFile="{authority}"
  defaultNetstreamDriverCertFile="{certificate}" defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
template(name="raw" type="string" string="%rawmsg%\\n")
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="audit")
ruleset(name="audit") {{ action(type="omfile" file="{out}" template="raw") }}
"""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Rsyslog:
    def __init__(self, folder: Path, authority: Authority) -> None:
        self.program = require("rsyslogd")
        self.folder = folder
        self.port = free_port()
        self.out = folder / "messages"
        self.process: Process | None = None
        folder.mkdir(parents=True, exist_ok=True)
        ours = authority.issue("repository")
        (folder / "rsyslog.conf").write_text(
            _CONFIGURATION.format(
                folder=folder,
                authority=authority.certificate,
                certificate=ours.certificate,
                key=ours.key,
                port=self.port,
                out=self.out,
            ),
            encoding="utf8",
        )

    def __enter__(self) -> Rsyslog:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        command = [self.program, "-n", "-f", self.folder / "rsyslog.conf", "-i", self.folder / "rsyslog.pid"]
        self.process = Process(command, log=self.folder / "rsyslog.log")
        self.process.wait_ready(lambda: listens(self.port))

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None

    def crash(self) -> None:
        assert self.process is not None
        self.process.kill()
        (self.folder / "rsyslog.pid").unlink(missing_ok=True)
        self.process = None

    def messages(self) -> list[bytes]:
        """The audit messages, without their syslog headers."""
        if not self.out.exists():
            return []
        return [line.partition(_BYTE_ORDER_MARK)[2] for line in self.out.read_bytes().splitlines()]
