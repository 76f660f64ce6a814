"""The child of codec.py: compressed frames in on stdin, stored values out on stdout, until stdin ends.

In:  4 bytes length, JSON {plugin, options, length}, then `length` bytes of one compressed frame.
Out: 8 bytes length (0: cannot be decoded), then the frame's values, little endian, `bits_allocated` bits each.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from node.dicom.elements import UNREADABLE

MEMORY_BYTES = 2 << 30
"""On top of what the libraries take when loaded; a radiograph of 4096 × 4096 needs a tenth."""


def main() -> None:
    warnings.simplefilter("ignore")  # nobody reads them here, and a frame that decodes is good
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not get among the answers
    _limit_memory()
    while header := sys.stdin.buffer.read(4):
        request = json.loads(sys.stdin.buffer.read(int.from_bytes(header, "big")))
        answer(request, sys.stdin.buffer.read(request["length"]), answers)


def answer(request: dict[str, Any], encoded: bytes, answers: IO[bytes]) -> None:
    options = dict(request["options"])
    uid = UID(options.pop("transfer_syntax_uid"))
    try:
        found, _ = get_decoder(uid).as_array(
            encapsulate([encoded]),
            index=0,
            raw=True,
            validate=False,
            decoding_plugin=request["plugin"],
            **options,
        )
    except (*UNREADABLE, RuntimeError, OSError):
        found = np.empty(0, np.uint8)  # the answer "cannot be decoded"
    values = np.ascontiguousarray(found).view(f"u{found.dtype.itemsize}")
    container = values.astype(f"<u{options['bits_allocated'] // 8}", copy=False).tobytes()
    answers.write(len(container).to_bytes(8, "big") + container)
    answers.flush()


def _limit_memory() -> None:
    used = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
    )
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
