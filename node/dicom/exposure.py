"""Which radiographs are of one exposure, by what their headers say, never by what they look like.

source   PS3.3 C.8.11.1 (Presentation Intent Type)
"""

from __future__ import annotations

from node.dicom.header import InstanceHeader
from node.dicom.view import view_in

_DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
_DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"


def is_for_processing(intent: str, sop_class_uid: str) -> bool:
    """By its intent, or by its class where the intent is left out or says otherwise."""
    return intent.upper() == "FOR PROCESSING" or sop_class_uid == _DX_FOR_PROCESSING


def is_raw(header: InstanceHeader) -> bool:
    """For processing."""
    return is_for_processing(header.presentation_intent, header.sop_class_uid)


def is_shown(header: InstanceHeader) -> bool:
    """Stated to be for presentation: of a CR image that says nothing this is not known."""
    stated = header.presentation_intent == "FOR PRESENTATION" or header.sop_class_uid == _DX_FOR_PRESENTATION
    return stated and not is_raw(header)


def same_exposure(raw: InstanceHeader, shown: InstanceHeader) -> str:
    """What says that these two are of one exposure, in words; "" where nothing does.

    raw, shown      for processing, and for presentation, of one study
    """
    if raw.irradiation_events and shown.irradiation_events:
        return "same irradiation event" if set(raw.irradiation_events) & set(shown.irradiation_events) else ""
    if raw.sop_instance_uid in shown.source_images:
        return "named as its source"
    is_precise = "." in raw.acquired_at  # a repeat may follow within a second or two
    if is_precise and raw.acquired_at == shown.acquired_at and _looks_of(raw) == _looks_of(shown):
        return "same time of acquisition"
    return ""


def _looks_of(header: InstanceHeader) -> tuple[int | None, int | None, str]:
    return header.rows, header.columns, view_in(header.view_position).frontal
