"""The home folder: what lies where, who works on it, and which process options it was given.

archive/   received and produced objects          node.sqlite   the database (unless a URL is set)
run/       settings.json, up.lock, redis.sock, and for each process NAME.pid and NAME.ready
log/       NAME.log for each process, rotated
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from node.errors import ConfigurationError
from node.settings import Settings

REMEMBERED = ("aet", "host", "port", "web_host", "web_port")
_LONGEST_SOCKET_PATH = 107  # sun_path of Linux is 108 bytes with its final zero


def settings_file(home: Path) -> Path:
    return home / "run" / "settings.json"


def load(home: Path | None, **given: Any) -> Settings:
    """Settings from, in falling order: the command line, the environment, what this home remembers, the defaults."""
    bare = Settings.load(home=home)
    asked = {name: value for name, value in given.items() if value is not None}
    known = {name: value for name, value in recall(bare.home).items() if not _in_environment(name)}
    return Settings.load(**{"home": home, **known, **asked})


def _in_environment(name: str) -> bool:
    return any(f"PACSNODE_{name.upper()}{end}" in os.environ for end in ("", "_FILE"))


def recall(home: Path) -> dict[str, Any]:
    """What `remember` wrote; empty where nothing has been started yet. raises ConfigurationError"""
    path = settings_file(home)
    try:
        found = json.loads(path.read_text(encoding="utf8"))
        if not isinstance(found, dict):
            raise ValueError("not what was written there")
    except FileNotFoundError:
        return {}
    except NotADirectoryError as exc:
        raise ConfigurationError(f"{home}: not a folder, so it cannot be the home of a node") from exc
    except PermissionError:
        raise
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{path}: cannot be read ({exc}); delete it and start the node again") from exc
    return {name: found[name] for name in REMEMBERED if name in found}


def remember(settings: Settings) -> None:
    """So that other commands need only --home."""
    path = settings_file(settings.home)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".new")
    unfinished.write_text(
        json.dumps({name: getattr(settings, name) for name in REMEMBERED}, indent=2) + "\n", encoding="utf8"
    )
    unfinished.replace(path)


def prepare(settings: Settings) -> None:
    """Make the folders; only their owner may look in. raises ConfigurationError"""
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (settings.run_dir, log_dir(settings), settings.archive_dir):
            folder.mkdir(exist_ok=True, mode=0o700)
    except OSError as exc:
        raise ConfigurationError(f"{settings.home}: cannot be the home of a node ({exc.strerror})") from exc
    sock = str(redis_socket(settings))
    if not settings.redis_url and len(sock.encode()) > _LONGEST_SOCKET_PATH:
        raise ConfigurationError(
            f"{sock}: too long for a socket; choose a home with a shorter path, or set a redis_url"
        )


def log_dir(settings: Settings) -> Path:
    return settings.home / "log"


def redis_socket(settings: Settings) -> Path:
    """Where the embedded broker listens: what Settings.broker_url names."""
    return settings.run_dir.resolve() / "redis.sock"


def need_database(settings: Settings) -> None:
    """raises   ConfigurationError   this home has no database, so nothing can be asked of it."""
    if not settings.database_url and not (settings.home / "node.sqlite").exists():
        raise ConfigurationError(
            f"{settings.home} holds no database of a node. Give --home DIR (or PACSNODE_HOME) as for `pacsnode up`;"
            " for a node on PostgreSQL set PACSNODE_DATABASE_URL as it was for the node."
        )


@contextmanager
def sole_owner(settings: Settings) -> Iterator[None]:
    """Hold the home's lock. raises ConfigurationError where another `up` has it."""
    path = settings.run_dir / "up.lock"
    with path.open("a+", encoding="utf8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            file.seek(0)
            raise ConfigurationError(
                f"{settings.home} is in use: `pacsnode up` runs there already (process {file.read().strip()})."
                " Stop that one first, or choose another --home."
            ) from exc
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)


def owner(home: Path) -> int | None:
    """The process id of the `up` that has this home, None where there is none."""
    path = home / "run" / "up.lock"
    try:
        with path.open("r+", encoding="utf8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read().strip() or 0) or None
    except OSError:
        return None
    return None


def ready_pid(settings: Settings, name: str) -> int | None:
    """The process that `up` runs under this name and that has said it is ready; None where there is none."""
    try:
        pid = int(json.loads((settings.run_dir / f"{name}.ready").read_text(encoding="ascii"))["pid"])
        started = int((settings.run_dir / f"{name}.pid").read_text(encoding="ascii"))
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid if pid == started else None


def free_port(host: str) -> int:
    """A TCP port that nobody listens on just now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def own_address(host: str) -> str:
    """Where a listener on `host` is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def python_path() -> str:
    """PYTHONPATH by which a child process finds this package, also where it is not installed."""
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))


def embedded_server() -> str:
    """Which Redis `up` starts. raises ConfigurationError where there is none"""
    from node.cli import embedded

    return f"embedded Redis ({embedded.command(Path('redis.sock'))[0]})"
