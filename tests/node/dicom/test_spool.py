"""Files on their way in."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from node.dicom.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "deep" / "spool")
    made.sweep()
    return made


def views(*pieces: bytes) -> list[memoryview]:
    return [memoryview(piece) for piece in pieces]


def test_head_and_pieces_make_the_file(spool: Spool) -> None:
    file = spool.file(b"head")
    pieces = [os.urandom(size) for size in (0, 1, 5000)] * 400  # more than one writev takes
    file.write(views(*pieces))
    file.write(views(b"end"))
    file.sync()
    whole = b"".join(pieces) + b"end"
    assert file.path.read_bytes() == b"head" + whole
    assert file.size == len(whole)
    assert file.sha256 == hashlib.sha256(whole).hexdigest()
    file.discard()
    assert not file.path.exists()


def test_names_differ_between_objects_and_runs(spool: Spool) -> None:
    again = Spool(spool.folder)
    files = [spool.file(b""), spool.file(b""), again.file(b""), again.file(b"")]
    assert len({file.path for file in files}) == 4
    for file in files:
        file.discard()


def test_discarding_a_moved_file_leaves_it(spool: Spool, tmp_path: Path) -> None:
    file = spool.file(b"head")
    file.write(views(b"data"))
    file.sync()
    file.path.rename(tmp_path / "kept")
    file.discard()
    assert (tmp_path / "kept").read_bytes() == b"headdata"


def test_sweeping_removes_only_what_a_spool_makes(spool: Spool) -> None:
    left = spool.file(b"head")
    (spool.folder / "note.txt").write_text("not ours")
    assert Spool(spool.folder).sweep() == 1
    assert [path.name for path in spool.folder.iterdir()] == ["note.txt"]
    left.discard()


def test_a_folder_that_is_gone_shows_as_failure(spool: Spool) -> None:
    spool.folder.rmdir()
    file = spool.file(b"head")
    file.write(views(b"data"))
    file.sync()
    assert file.failure is not None
    assert "No such file" in file.failure
    file.discard()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_shows_as_failure_and_leaves_nothing(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, flags, mode=0o777: (real(path, flags, mode), real("/dev/full", os.O_WRONLY))[1]
    )
    file = spool.file(b"head")
    monkeypatch.undo()
    file.write(views(b"data"))
    assert file.failure == "the object could not be written (No space left on device)"
    file.write(views(b"more"))
    file.sync()
    assert not list(spool.folder.iterdir())
