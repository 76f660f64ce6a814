"""The web app over a seeded node, with a receiver's port and a broker that can be switched off."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from redis.exceptions import ConnectionError as RedisAway

from node.archive import Archive
from node.db.session import Database
from node.jobs.telling import Trail
from node.settings import Settings
from node.web.app import make_app
from seeded.rows import seed

TOKEN = "a token that is long enough".replace(" ", "-")


class Client:
    """GET, in this process."""

    def __init__(self, app: FastAPI) -> None:
        self._transport = httpx.ASGITransport(app)

    def get(self, path: str, **headers: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://node") as client:
                return await client.get(path, headers=headers)

        return asyncio.run(ask())


@dataclass
class Site:
    """A served app and what it stands on."""

    client: Client
    database: Database
    archive: Archive
    receiver: socket.socket
    broker_is_away: list[bool] = field(default_factory=list)


@pytest.fixture
def site(database: Database, archive: Archive, tmp_path: Path) -> Iterator[Site]:
    seed(database)
    broker_is_away: list[bool] = []

    def ping() -> None:
        if broker_is_away:
            raise RedisAway("no broker")

    with socket.create_server(("127.0.0.1", 0)) as receiver:
        settings = Settings.load(home=tmp_path, aet="<CHEST>", audit_token=TOKEN, port=receiver.getsockname()[1])
        ask = Trail(settings, database).ask
        app = make_app(settings, database=database, archive=archive, ping_broker=ping, ask=ask)
        yield Site(Client(app), database, archive, receiver, broker_is_away)
