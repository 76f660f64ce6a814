import os
from pathlib import Path

import pytest

from node.archive import Archive
from node.errors import OutOfResources, ResultLost

SHA = "ab" * 32


def spooled(archive: Archive, data: bytes) -> Path:
    path = archive.spool / "1.part"
    path.write_bytes(data)
    return path


def test_keeps_the_bytes_under_study_and_series(archive: Archive) -> None:
    relative = archive.keep(spooled(archive, b"image"), study="1.2", series="1.2.3", instance="1.2.3.4", sha256=SHA)
    assert relative.startswith("received/1.2/1.2.3/1.2.3.4-")
    assert archive.path(relative).read_bytes() == b"image"
    assert not list(archive.spool.iterdir())


def test_two_objects_of_one_uid_never_meet(archive: Archive) -> None:
    first = archive.keep(spooled(archive, b"one"), study="1", series="2", instance="3", sha256="a" * 64)
    second = archive.keep(spooled(archive, b"two"), study="1", series="2", instance="3", sha256="b" * 64)
    assert archive.path(first).read_bytes() == b"one"
    assert archive.path(second).read_bytes() == b"two"


@pytest.mark.parametrize("uid", ["", "../../etc", "1/2", "..", "1" * 65, "1.2\n"])
def test_what_is_no_uid_names_no_file(archive: Archive, uid: str) -> None:
    with pytest.raises(OutOfResources):
        archive.keep(spooled(archive, b"x"), study=uid, series="1", instance="1", sha256=SHA)


def test_writing_a_result_twice_changes_nothing(archive: Archive) -> None:
    path, digest = archive.write(b"result", study="1", revision=1, instance="2")
    before = archive.path(path).stat().st_mtime_ns
    assert archive.write(b"result", study="1", revision=1, instance="2") == (path, digest)
    assert archive.path(path).stat().st_mtime_ns == before


def test_a_changed_or_lost_result_does_not_pass(archive: Archive) -> None:
    path, digest = archive.write(b"result", study="1", revision=1, instance="2")
    archive.verify(path, digest)
    archive.path(path).write_bytes(b"resulT")
    with pytest.raises(ResultLost):
        archive.verify(path, digest)
    archive.path(path).unlink()
    with pytest.raises(ResultLost):
        archive.verify(path, digest)


def test_says_when_the_disk_is_above_the_watermark(tmp_path: Path) -> None:
    archive = Archive(tmp_path, watermark_percent=0.0001)
    assert "watermark" in (archive.room() or "")
    assert Archive(tmp_path, watermark_percent=100).room() is None
    assert "reserve" in (Archive(tmp_path, reserve_mb=1 << 40).room() or "")


def test_a_write_that_fails_leaves_nothing_behind(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    before, _ = archive.write(b"before", study="1", revision=1, instance="1")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfResources):
        archive.write(b"result", study="1", revision=1, instance="2")
    assert [path for path in archive.path("results").rglob("*") if path.is_file()] == [archive.path(before)]


def test_what_is_deleted_goes_with_its_empty_folders_and_nothing_else(archive: Archive) -> None:
    gone = archive.keep(spooled(archive, b"one"), study="1", series="2", instance="3", sha256="a" * 64)
    kept = archive.keep(spooled(archive, b"two"), study="1", series="4", instance="5", sha256="b" * 64)
    assert archive.delete([gone], study="1", keep=[kept]) == 1
    assert not archive.path(gone).parent.exists()
    assert archive.holds(kept)
    assert archive.delete([gone], study="1", keep=[kept]) == 0, "once more does no harm"
    assert archive.delete([kept], study="1", keep=[]) == 1
    assert [path.name for path in sorted(archive.root.iterdir())] == ["received", "results", "spool"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "received/../../outside", ""])
def test_nothing_outside_of_the_archive_is_deleted(archive: Archive, path: str) -> None:
    outside = archive.root.parent / "outside"
    outside.write_bytes(b"x")
    with pytest.raises(OSError, match="not a file of the archive"):
        archive.delete([path], study="1", keep=[])
    assert outside.exists()


def test_an_object_finds_its_place_though_its_folder_is_taken_away_meanwhile(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, taken = os.replace, []

    def replace(source: Path, target: Path) -> None:
        if not taken:
            taken.append(target)
            target.parent.rmdir()
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    kept = archive.keep(spooled(archive, b"image"), study="1", series="2", instance="3", sha256=SHA)
    assert taken
    assert archive.path(kept).read_bytes() == b"image"


def test_a_folder_that_lies_elsewhere_loses_its_files_and_stays(archive: Archive, tmp_path: Path) -> None:
    elsewhere = tmp_path / "slower disk"
    elsewhere.mkdir()
    (archive.root / "received" / "1").symlink_to(elsewhere)
    gone = archive.keep(spooled(archive, b"x"), study="1", series="2", instance="3", sha256=SHA)
    assert archive.delete([gone], study="1", keep=[]) == 1
    assert list(elsewhere.rglob("*")) == []
