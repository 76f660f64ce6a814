"""Real studies from ../shared/data, unpacked once for a test session."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"

needs_shared_data = [
    pytest.mark.data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="no ../shared/data beside the repository"),
]


def unpack(name: str, target: Path) -> list[Path]:
    """All files of one archive, by name; unpacked below `target` once."""
    if not (target / name).is_dir():
        with tarfile.open(FOLDER / f"{name}.tar.xz") as archive:
            archive.extractall(target / name, filter="data")
    return sorted(path for path in (target / name).rglob("*") if path.is_file())
