"""What a revision gives to the objects made for it: nothing in here changes between two attempts."""

from __future__ import annotations

from node.db.tables import RevisionRow
from node.dicom.write import Stamp
from node.settings import Settings


def stamp(settings: Settings, revision: RevisionRow) -> Stamp:
    """raises   ValueError   the revision is not complete: it has no time yet."""
    if revision.completed_at is None:
        raise ValueError(f"revision {revision.id} is not complete")
    return Stamp(
        study_instance_uid=revision.study_instance_uid,
        revision=revision.number,
        replaces=revision.number - 1 if revision.number > 1 else None,
        made_at=revision.completed_at.astimezone(),
        station_name=settings.aet,
        aet=settings.aet,
        note=settings.institution_note,
        series_number_base=settings.series_number_base,
        new_images=revision.images if revision.number > 1 else 0,
    )
