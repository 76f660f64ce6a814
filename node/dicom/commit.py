"""Storage commitment: the promise of a PACS that an object is safe with it. The node is SCU.

source  PS3.4 Annex J
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

from node.dicom import status
from node.dicom.streaming import Malformed

COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Well-known instance of the Storage Commitment Push Model, PS3.4 J.3.5."""
MOST_REPORT = 1 << 25
"""Longest report that is read, in bytes: some 200,000 instances."""


@dataclass(frozen=True)
class CommitmentReport:
    """What a PACS says of one request: which instances it answers for, and why it does not for the others."""

    transaction_uid: str
    committed: frozenset[str]
    failed: Mapping[str, str]


def read_report(encoded: bytes, transfer_syntax_uid: str) -> CommitmentReport:
    """The event information of an N-EVENT-REPORT. Raises Malformed. Source: PS3.4 Table J.3-2."""
    try:
        report = decode(encoded, transfer_syntax_uid)
        transaction_uid = str(report.TransactionUID)
        committed = [str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence", [])]
        failed = {
            str(item.ReferencedSOPInstanceUID): status.in_words(int(item.get("FailureReason", 0)))
            for item in report.get("FailedSOPSequence", [])
        }
    except Exception as exc:  # the library raises whatever its parser meets
        raise Malformed(f"storage commitment report cannot be read ({type(exc).__name__})") from exc
    return CommitmentReport(transaction_uid, frozenset(committed) - failed.keys(), failed)


def decode(encoded: bytes, transfer_syntax_uid: str) -> Dataset:
    """A data set without file meta, all of it read at once."""
    syntax = UID(transfer_syntax_uid)
    data_set = pydicom.filereader.read_dataset(
        BytesIO(encoded), syntax.is_implicit_VR, syntax.is_little_endian, bytelength=len(encoded)
    )
    data_set.decode()
    return data_set
