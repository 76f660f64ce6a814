"""Redis and PostgreSQL as a hospital runs them: real servers on loopback ports, their files in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import redis

from system.processes import Process, free_port, listens, require


class Redis:
    def __init__(self, folder: Path) -> None:
        self.program = require("redis-server")
        self.folder = folder
        self.port = free_port()
        self.process: Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Redis:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        self.process = Process([self.program, *options], log=self.folder / "redis.log")
        self.process.wait_ready(lambda: listens(self.port))

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None

    def flush(self) -> None:
        """Everything in the broker is gone, as after the loss of its machine."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()


def _postgres_binaries() -> str | None:
    """Debian keeps them out of the path, one folder for each version; the newest wins."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return str(found[-1].parent) if found else str(Path(on_path).parent) if on_path else None


class Postgres:
    """A cluster of its own. initdb refuses root, so as root it runs as the system's `postgres` user."""

    def __init__(self, folder: Path) -> None:
        self.binaries = Path(require("initdb (PostgreSQL)", _postgres_binaries()))
        self.folder = folder
        self.port = free_port()
        self.process: Process | None = None
        self.databases = 0

    def __enter__(self) -> Postgres:
        self.folder.mkdir(parents=True, exist_ok=True)
        # not below pytest's folders, which are closed to other users
        self.data = Path(tempfile.mkdtemp(prefix="node-postgres-"))
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.data, owner.pw_uid, owner.pw_gid)
        create = [self.binaries / "initdb", "-D", self.data, "-U", "node", "--auth=trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(self._as_owner(create), check=True, stdout=subprocess.DEVNULL, cwd="/")
        options = ["-c", "listen_addresses=127.0.0.1", "-p", str(self.port), "-k", self.data, "-c", "fsync=off"]
        serve = self._as_owner([self.binaries / "postgres", "-D", self.data, *options])
        self.process = Process(serve, log=self.folder / "postgres.log", cwd=Path("/"))
        self.process.wait_ready(self._answers, timeout_s=60)
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process is not None:
            self.process.stop(signal_number=signal.SIGINT)  # SIGTERM would wait for every client to leave
        shutil.rmtree(self.data, ignore_errors=True)

    def new_database(self, template: str = "template0") -> str:
        """SQLAlchemy URL of a database: an empty one, or a copy of one that nobody is connected to."""
        self.databases += 1
        name = f"node{self.databases}"
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "node"]
        subprocess.run([self.binaries / "createdb", *where, "--template", template, name], check=True)
        return f"postgresql+psycopg://node@127.0.0.1:{self.port}/{name}"

    def _answers(self) -> bool:
        ask = [self.binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ask, check=False).returncode == 0

    def _as_owner(self, command: Sequence[str | Path]) -> list[str]:
        plain = [str(part) for part in command]
        if os.geteuid() != 0:
            return plain
        owner = pwd.getpwnam("postgres")
        drop = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        return [*drop, *plain]
