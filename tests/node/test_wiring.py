"""What is put together, as processes run it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node import wiring
from node.db.session import Database
from node.errors import ConfigurationError
from node.settings import Settings
from system.processes import free_port


@contextmanager
def receiver(settings: Settings) -> Iterator[None]:
    """One that takes, until the end."""
    stop, ready = threading.Event(), threading.Event()
    node = wiring.build(settings)
    thread = threading.Thread(target=wiring.receive, args=(node, stop, lambda _port: ready.set()))
    thread.start()
    try:
        assert ready.wait(30)
        yield
    finally:
        stop.set()
        thread.join()
        node.database.close()


def test_a_folder_that_cannot_be_made_is_an_error_in_words() -> None:
    settings = Settings.load(home=Path("/proc/home"), database_url="sqlite://")
    with pytest.raises(ConfigurationError, match="/proc/home: cannot be the home"):
        wiring.build(settings)


def test_a_receiver_clears_its_own_spool_and_nobody_elses(tmp_path: Path, database: Database) -> None:
    url = database.engine.url.render_as_string(hide_password=False)
    first, second = (
        Settings.load(home=tmp_path / "home", host="127.0.0.1", port=free_port(), database_url=url) for _ in range(2)
    )
    with receiver(first):
        [folder] = first.archive_dir.joinpath("spool").iterdir()
        coming_in = folder / "1.part"
        coming_in.write_bytes(b"half an image")
        with receiver(second):
            assert coming_in.exists()
    assert coming_in.exists()
    with receiver(first):
        assert not coming_in.exists()
