"""Arrays on disk as .npz: written whole or not at all, and what is no such file is said by name."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.contract import ModelError

Made = TypeVar("Made")


def write_arrays(path: Path, *, compressed: bool = True, **arrays: Any) -> None:
    """An interrupted writing leaves nothing under this name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    try:
        with partial.open("wb") as stream:
            (np.savez_compressed if compressed else np.savez)(stream, **arrays)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_arrays(path: Path, make: Callable[[Mapping[str, NDArray[Any]]], Made], *, what: str) -> Made:
    """What `make` makes of the arrays.

    what     the file should be, for the error
    raises   ModelError     it is something else, or damaged
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            return make(content)
    except (KeyError, ValueError, TypeError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(f"{path} is not {what}, or damaged: take it away, and it is made again") from error
