"""UIDs of what we make: pure functions of what it was made from, so a second attempt makes the same objects.

When the revision was complete is one of the things: a study that is sent again to a node whose database was lost, or
put back from a copy, gets the old revision number, and must not get the UIDs of results that are out.

A UID is a UUIDv5 under 2.25 (PS3.5 B.2): no registered root is needed and none is borrowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid5

from node.settings import UID_ROOT

_NAMESPACE = UUID("6f0d5b5e-2a57-5c43-9a55-0f6a3c1d7e21")

IMPLEMENTATION_VERSION_NAME = "PACSNODE_0_1"


@dataclass(frozen=True)
class Origin:
    """What one run of one pipeline started from. Everything here decides the UIDs of its results."""

    study_instance_uid: str
    series_instance_uid: str
    revision: int
    pipeline: str
    version: str
    weights_digest: str
    completed: str = ""
    """When the revision was complete, UTC; empty where nothing was received."""


def instance_uid(origin: Origin, kind: str, index: int | str = 0) -> str:
    """SOP Instance UID of one object; `index` tells the objects of one kind apart."""
    return _uid("instance", *_parts(origin), kind, index)


def series_uid(origin: Origin, kind: str) -> str:
    """Series Instance UID of all objects of one kind."""
    return _uid("series", *_parts(origin), kind)


def dimension_uid(origin: Origin, kind: str) -> str:
    """Dimension Organization UID of a multi-frame object."""
    return _uid("dimension", *_parts(origin), kind)


def tracking_uid(study_instance_uid: str, series_instance_uid: str, tracking_id: str) -> str:
    """Tracking UID of one finding. No revision in it: the same finding keeps it when images come late."""
    return _uid("tracking", study_instance_uid, series_instance_uid, tracking_id)


def frame_of_reference_uid(series_instance_uid: str) -> str:
    """For images derived from a series whose headers name no frame of reference."""
    return _uid("frame of reference", series_instance_uid)


def device_uid(station_name: str) -> str:
    """This node as an observer."""
    return _uid("device", station_name)


def _parts(origin: Origin) -> tuple[str | int, ...]:
    """Without a time they are those of older releases, and stay so: results are known by them."""
    at = (origin.completed,) if origin.completed else ()
    return (
        origin.study_instance_uid,
        origin.series_instance_uid,
        origin.revision,
        origin.pipeline,
        origin.version,
        origin.weights_digest,
        *at,
    )


def _uid(*parts: str | int) -> str:
    # The length before each part: ("1", "23") and ("12", "3") must differ.
    name = "".join(f"{len(str(part))}:{part};" for part in parts)
    return f"{UID_ROOT}.{uuid5(_NAMESPACE, name).int}"


IMPLEMENTATION_CLASS_UID = _uid("implementation", "pacsnode")
