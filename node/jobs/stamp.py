"""What a revision and the job that is begun for it give to the objects made."""

from __future__ import annotations

from node.db.tables import JobRow, RevisionRow
from node.dicom.write import Stamp
from node.settings import Settings


def stamp(settings: Settings, revision: RevisionRow, job: JobRow) -> Stamp:
    """All times are the revision's; the attempt decides the UIDs.

    raises   ValueError   the revision is not complete, or the job not begun: it has no time yet
    """
    if revision.completed_at is None or job.started_at is None:
        raise ValueError(f"revision {revision.id} is not complete, or job {job.id} not begun")
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
        run=job.started_at.isoformat(timespec="microseconds"),
    )
