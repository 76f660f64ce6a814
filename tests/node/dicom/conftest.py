"""Fixtures of the DICOM network tests: an SCP on a free port with a desk that writes everything down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from network.certificates import Authority
from network.desk import RecordingDesk
from node.dicom.receive import StorageScp
from node.settings import Settings

StartScp = Callable[..., StorageScp]


@pytest.fixture
def desk() -> RecordingDesk:
    return RecordingDesk()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def start_scp(desk: RecordingDesk, spool: Path) -> Iterator[StartScp]:
    """Starts an SCP with these settings; stopped at the end, when nothing may be left in the spool."""
    started: list[StorageScp] = []

    def start(**settings: object) -> StorageScp:
        scp = StorageScp(Settings(host="127.0.0.1", port=0, **settings), desk, spool)
        started.append(scp)
        scp.start()
        return scp

    yield start
    for scp in started:
        scp.stop(grace_s=2.0)
    assert not list(spool.glob("*")), "something was left in the spool"


@pytest.fixture
def scp(start_scp: StartScp) -> StorageScp:
    return start_scp()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "Hospital")


@pytest.fixture(scope="session")
def rogue_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("rogue"), "Somebody")
