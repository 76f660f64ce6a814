from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.encaps import get_frame
from pydicom.uid import JPEGLSLossless

from images import phantom
from node.dicom.read.decompress import answer

SHAPE = (64, 72)
ROOT = Path(__file__).resolve().parents[4]


def request(**changed: Any) -> dict[str, Any]:
    options = {
        "transfer_syntax_uid": str(JPEGLSLossless),
        "rows": SHAPE[0],
        "columns": SHAPE[1],
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "pixel_representation": 0,
        "bits_allocated": 16,
        "bits_stored": 16,
        "pixel_keyword": "PixelData",
    }
    return {"plugin": "pyjpegls", "options": {**options, **changed}}


def compressed(values: np.ndarray[Any, Any]) -> bytes:
    ds = phantom.ct(values=values)
    ds.file_meta = phantom.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = phantom.ExplicitVRLittleEndian
    ds.compress(JPEGLSLossless, generate_instance_uid=False)
    return bytes(get_frame(ds.PixelData, 0, number_of_frames=1))


def answered(asked: dict[str, Any], stream: bytes) -> bytes:
    answers = io.BytesIO()
    answer(asked, stream, answers)
    content = answers.getvalue()
    assert int.from_bytes(content[:8], "big") == len(content) - 8
    return content[8:]


def test_answers_with_values_in_their_container() -> None:
    values = phantom.stored_values(1, SHAPE)
    assert answered(request(), compressed(values)) == values.astype("<u2").tobytes()


def test_widens_values_that_were_compressed_narrower() -> None:
    values = (phantom.stored_values(1, SHAPE) // 8).astype(np.uint8)
    assert answered(request(bits_stored=8), compressed(values)) == values.astype("<u2").tobytes()


@pytest.mark.parametrize("stream", [b"", b"\xff\xd8\xff", b"words"])
def test_answers_nothing_to_a_damaged_stream(stream: bytes) -> None:
    assert answered(request(), stream) == b""


def test_ends_when_nobody_asks_any_more() -> None:
    asked = json.dumps({**request(), "length": 5}).encode()
    done = subprocess.run(
        [sys.executable, "-m", "node.dicom.read.decompress"],
        input=len(asked).to_bytes(4, "big") + asked + b"words",
        capture_output=True,
        cwd=ROOT,
        timeout=60,
        check=True,
    )
    assert done.stdout == bytes(8)
