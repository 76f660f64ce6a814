from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.encaps import get_frame
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from images import phantom
from node.dicom.read.codec import Codec
from node.dicom.read.decompress import MEMORY_BYTES
from node.errors import NotEligible

SHAPE = (64, 72)
VALUES = phantom.stored_values(1, SHAPE)


def options(syntax: str) -> dict[str, Any]:
    return {
        "transfer_syntax_uid": syntax,
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


def compressed(syntax: str) -> bytes:
    ds = phantom.ct(values=VALUES)
    ds.file_meta = phantom.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = phantom.ExplicitVRLittleEndian
    ds.compress(syntax, generate_instance_uid=False)
    return bytes(get_frame(ds.PixelData, 0, number_of_frames=1))


def segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + (len(content) + 2).to_bytes(2, "big") + content


BREAKS_GDCM = b"".join(
    [
        b"\xff\xd8",
        segment(
            0xC3, bytes([20]) + bytes([0, SHAPE[0], 0, SHAPE[1], 1, 1, 0x11, 0])
        ),  # 20 bits: more than it has room for
        segment(0xC4, bytes([0, 0, 1, *[0] * 14, 0])),
        segment(0xDA, bytes([1, 1, 0, 1, 0, 0])),
        bytes(600),
        b"\xff\xd9",
    ]
)


@pytest.fixture
def codec() -> Iterator[Codec]:
    with Codec() as codec:
        yield codec


def works(codec: Codec) -> bool:
    found = codec.decode(compressed(JPEGLSLossless), plugin="pyjpegls", options=options(JPEGLSLossless))
    return bool(np.array_equal(found, VALUES))


def test_decodes_frame_after_frame(codec: Codec) -> None:
    assert works(codec)
    assert works(codec)


def test_a_stream_that_kills_the_decoder_kills_nobody_else(codec: Codec) -> None:
    with pytest.raises(NotEligible, match="the decoder broke"):
        codec.decode(BREAKS_GDCM, plugin="gdcm", options=options(JPEGLosslessSV1))
    assert works(codec), "the next study has a decoder again"


def test_a_forged_size_is_refused(codec: Codec) -> None:
    stream = bytearray(compressed(JPEG2000Lossless))
    at = stream.index(b"\xff\x51") + 6  # Xsiz and Ysiz of the SIZ segment
    stream[at : at + 8] = b"\x00\x03\xff\xff" * 2  # 262143 by 262143
    with pytest.raises(NotEligible, match="cannot be decoded"):
        codec.decode(bytes(stream), plugin="pylibjpeg", options=options(JPEG2000Lossless))
    assert works(codec)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own word on it is read from /proc")
def test_the_child_may_not_take_all_memory(codec: Codec) -> None:
    assert works(codec)
    child = codec._child
    assert child is not None
    limits = Path(f"/proc/{child.pid}/limits").read_text()
    (allowed,) = re.findall(r"Max address space\s+(\d+)", limits)
    assert MEMORY_BYTES < int(allowed) < MEMORY_BYTES + (8 << 30)


@pytest.mark.parametrize("stream", [b"", b"\xff", b"no stream at all"])
def test_refuses_what_is_no_stream(codec: Codec, stream: bytes) -> None:
    with pytest.raises(NotEligible, match="cannot be decoded"):
        codec.decode(stream, plugin="pyjpegls", options=options(JPEGLSLossless))
    assert works(codec)


def test_refuses_a_frame_of_another_size_than_the_header_says(codec: Codec) -> None:
    with pytest.raises(NotEligible, match="not what they claim"):
        codec.decode(
            compressed(JPEGLSLossless), plugin="pyjpegls", options={**options(JPEGLSLossless), "rows": SHAPE[0] - 1}
        )


def test_does_not_wait_for_ever() -> None:
    with Codec(deadline_s=0.0) as codec, pytest.raises(NotEligible, match="the decoder broke"):
        works(codec)


def test_leaves_no_process_behind() -> None:
    with Codec() as codec:
        assert works(codec)
        child = codec._child
    assert child is not None
    assert child.poll() is not None
