"""Files of arrays: all of one or none, and another file is told by its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.contract import ModelError
from models.diffusionxray.stored import read_arrays, write_arrays


def total(path: Path) -> float:
    return read_arrays(path, lambda told: float(told["a"].sum()), what="a sum")


@pytest.mark.parametrize("compressed", [False, True])
def test_what_was_written_is_read(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "deep" / "x.npz"
    write_arrays(path, compressed=compressed, a=np.arange(5))
    assert total(path) == 10
    assert [one.name for one in path.parent.iterdir()] == ["x.npz"]


def test_a_writing_that_fails_leaves_what_was_there_and_nothing_half(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    write_arrays(path, a=np.arange(5))

    class Full:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_arrays(path, a=np.zeros(100_000), b=Full())
    assert total(path) == 10
    assert [one.name for one in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize("damage", ["empty", "half", "flipped", "text", "other", "missing"])
def test_what_is_no_such_file_is_said_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.npz"
    write_arrays(path, a=np.random.default_rng(1).standard_normal(3000))
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    content = {"empty": b"", "half": whole[:middle], "flipped": flipped, "text": b"hello"}
    if damage == "other":
        write_arrays(path, b=np.zeros(3))
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[damage])
    with pytest.raises(ModelError, match=r"x\.npz is not a sum, or damaged"):
        total(path)
