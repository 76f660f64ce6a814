from __future__ import annotations

import queue
import socket
import threading

import httpx
import pytest
from fastapi import FastAPI

from node.errors import ConfigurationError
from node.web.serve import serve


def test_serves_on_a_free_port_until_it_is_stopped() -> None:
    app = FastAPI()

    @app.get("/")
    def here() -> str:
        return "here"

    stop, ports = threading.Event(), queue.Queue[int]()
    options = {"host": "127.0.0.1", "port": 0, "stop": stop, "on_ready": ports.put}
    server = threading.Thread(target=serve, args=(app,), kwargs=options)
    server.start()
    try:
        port = ports.get(timeout=30)
        with httpx.Client(trust_env=False) as client:
            assert client.get(f"http://127.0.0.1:{port}/").json() == "here"
    finally:
        stop.set()
        server.join(timeout=30)
    assert not server.is_alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_taken_port_is_said_with_its_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="--web-port"):
        serve(FastAPI(), host="127.0.0.1", port=taken.getsockname()[1], stop=threading.Event(), on_ready=print)
