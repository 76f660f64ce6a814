"""Decompression in a process of its own.

The decoders are C and C++ libraries fed with bytes from a network. On damaged streams one of them ends its process
(GDCM, lossless JPEG), another takes all memory that a forged size asks for (OpenJPEG). A study like that must fail
alone: the child has a memory limit and a deadline, and whatever becomes of it, the worker only learns "not decodable".
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from node.errors import NotEligible

FRAME_DEADLINE_S = 60.0
_PACKAGE_ROOT = Path(__file__).resolve().parents[3]


class Codec:
    """Decoders behind a pipe; the child starts with the first compressed frame and ends with the `with` block."""

    def __init__(self, *, deadline_s: float = FRAME_DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Codec:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def decode(self, encoded: bytes, *, plugin: str, options: dict[str, Any]) -> NDArray[np.unsignedinteger]:
        """One frame uint (Y, X) in the container that its `bits_allocated` asks for.

        encoded   the frame's compressed stream
        options   transfer_syntax_uid, rows, columns and the rest of the Image Pixel Module by pydicom's names
        raises    NotEligible   damaged, or not what it claims
        """
        size = options["bits_allocated"] // 8
        request = json.dumps({"plugin": plugin, "options": options, "length": len(encoded)}).encode()
        child = self._child or self._start()
        pipe_in, pipe_out = _pipes(child)
        try:
            _write(pipe_in, len(request).to_bytes(4, "big") + request + encoded)
            until = time.monotonic() + self._deadline_s
            length = int.from_bytes(_read(pipe_out, 8, until), "big")
            expected = options["rows"] * options["columns"] * size
            if length == expected:
                decoded = _read(pipe_out, length, until)
                return np.frombuffer(decoded, f"<u{size}").reshape(options["rows"], options["columns"])
        except (BrokenPipeError, EOFError, TimeoutError) as exc:
            self._end()
            raise NotEligible("The compressed pixel data cannot be decoded: the decoder broke on them.") from exc
        raise NotEligible("The compressed pixel data cannot be decoded: damaged, or not what they claim.")

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]))
        self._child = subprocess.Popen(
            [sys.executable, "-m", "node.dicom.read.decompress"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        )
        return self._child

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()  # it holds nothing that a gentler end would save
        child.wait()
        for pipe in _pipes(child):
            pipe.close()


def _pipes(child: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    if child.stdin is None or child.stdout is None:
        raise EOFError("the decoder has no pipes")
    return child.stdin, child.stdout


def _write(pipe: IO[bytes], content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(pipe.fileno(), left) :]


def _read(pipe: IO[bytes], length: int, until: float) -> bytes:
    """Exactly so many bytes. raises EOFError, TimeoutError."""
    parts = bytearray()
    with selectors.DefaultSelector() as ready:
        ready.register(pipe, selectors.EVENT_READ)
        while len(parts) < length:
            if not ready.select(max(0.0, until - time.monotonic())):
                raise TimeoutError
            part = os.read(pipe.fileno(), min(length - len(parts), 1 << 20))
            if not part:
                raise EOFError
            parts += part
    return bytes(parts)
