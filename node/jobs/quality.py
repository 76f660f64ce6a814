"""What the quality network said of a series, as its row: for the watch, slice by slice."""

from __future__ import annotations

import datetime as dt

from models.contract import ModelIdentity, Quality, SourceRef
from node.db.tables import InstanceRow, JobRow, QualityRow
from node.dicom.header import InstanceHeader

UNNAMED = "unnamed scanner"
_DIGITS = 4


def quality_row(
    job: JobRow, quality: Quality, model: ModelIdentity, sources: tuple[SourceRef, ...], first: InstanceRow
) -> QualityRow:
    """The row of one analysis job.

    sources     of the slices, in their order
    first       one image of the series: its header names scanner and protocol
    """
    header = InstanceHeader.from_json(first.header)
    scored = len(quality.scores)
    slices = zip(
        sources, quality.scores.tolist(), quality.spreads.tolist(), quality.probabilities.tolist(), strict=scored > 0
    )
    return QualityRow(
        job_id=job.id,
        series_instance_uid=first.series_instance_uid,
        scanner=scanner_of(header),
        protocol=protocol_of(header),
        acquired_on=acquired_on(header, first.received_at),
        model=f"{model.name} {model.version}",
        slices=scored,
        median=round(quality.median, _DIGITS) if scored else None,
        low=round(quality.low, _DIGITS) if scored else None,
        poor=len(quality.poor),
        reason=quality.not_applicable,
        levels=[round(level, _DIGITS) for level in quality.levels.tolist()] if scored else [],
        detail=[
            {
                "sop_instance_uid": source.instance_uid,
                "frame": source.frame,
                "score": round(score, _DIGITS),
                "spread": round(spread, _DIGITS),
                "probabilities": [round(p, _DIGITS) for p in probabilities],
            }
            for source, score, spread, probabilities in slices
        ],
    )


def scanner_of(header: InstanceHeader) -> str:
    """ "SIEMENS Sensation 64 (CT01)": which machine, as its images name it."""
    maker = header.manufacturer
    model = header.manufacturer_model_name
    named = model if maker and model.upper().startswith(maker.upper()) else f"{maker} {model}".strip()
    station = f" ({header.station_name})" if header.station_name else ""
    return f"{named}{station}".strip() or UNNAMED


def protocol_of(header: InstanceHeader) -> str:
    """ "Thorax low dose, B40f": what was scanned how; scores of different kernels are not alike."""
    return ", ".join(part for part in (header.protocol_name, header.kernel) if part) or "unnamed protocol"


def acquired_on(header: InstanceHeader, received_at: dt.datetime) -> dt.date:
    """Study Date where it is one and not still to come, else the day of receipt."""
    received = received_at.date()
    try:
        stated = dt.datetime.strptime(header.study_date, "%Y%m%d").date()
    except ValueError:
        return received
    return stated if stated <= received else received
