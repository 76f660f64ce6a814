"""The HTTP server in this process."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

from granian.constants import Interfaces
from granian.server.embed import Server

from node.errors import ConfigurationError

_TICK_S = 0.1


def serve(app: Any, *, host: str, port: int, stop: threading.Event, on_ready: Callable[[int], None]) -> None:
    """Serve until `stop`; on_ready(port) once connections are accepted. Port 0 takes a free one.

    raises   ConfigurationError   the address cannot be listened on
    """
    asyncio.run(_serve(app, host, _try_to_bind(host, port), stop, on_ready))


def _try_to_bind(host: str, port: int) -> int:
    # the server below says nothing useful when it cannot bind: found out here first
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as exc:
            raise ConfigurationError(
                f"cannot listen on {host}:{port} ({exc.strerror}); choose another --web-port"
            ) from exc
        return int(sock.getsockname()[1])


async def _serve(app: Any, host: str, port: int, stop: threading.Event, on_ready: Callable[[int], None]) -> None:
    server = Server(app, address=host, port=port, interface=Interfaces.ASGINL, log_access=False, websockets=False)
    serving = asyncio.create_task(server.serve())
    told = False
    while not stop.is_set() and not serving.done():
        if not told and await _answers(host, port):
            told = True
            on_ready(port)
        await asyncio.sleep(_TICK_S)
    server.stop()
    await serving


async def _answers(host: str, port: int) -> bool:
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
