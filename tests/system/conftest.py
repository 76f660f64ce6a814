"""Fixtures of the system tests: real Orthanc, DCMTK, Redis and PostgreSQL, and the node as a process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from system import studies
from system.stores import Postgres, Redis

DEAD_END = "Exception ignored in. <socket"
"""pynetdicom leaves the socket of an association whose peer is killed to the garbage collector: the stand-in PACS and
the senders run in the test's process, the node never does."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="system tests take whole studies, not a part of each")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("system")
            item.add_marker(pytest.mark.filterwarnings(f"ignore:{DEAD_END}:pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(autouse=True)
def _dead_ends_end_here() -> Iterator[None]:
    """What a killed node left open in the test's own process is collected now, not in a test that has no part in it."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--full", default=False))


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where real studies are unpacked; tests that need them skip where ../shared/data does not exist."""
    if not studies.SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server
