"""The rows. Times are UTC; ids are ours, UIDs are DICOM's. The same on SQLite and PostgreSQL."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from node.db.lifecycle import DeliveryState, JobState, RevisionState


class Utc(TypeDecorator[dt.datetime]):
    """Aware UTC times on every database (SQLite keeps none)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Any) -> dt.datetime | None:  # noqa: ARG002
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without time zone cannot be stored")
        return value.astimezone(dt.UTC) if value is not None else None

    def process_result_value(self, value: dt.datetime | None, dialect: Any) -> dt.datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


BigId = BigInteger().with_variant(Integer, "sqlite")
Uid = String(64)
OPEN = "open"
"""The outcome of an association that has not ended."""


class Row(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class PeerRow(Row):
    """A known DICOM application, as applied from site.toml (schema: node.settings.Peer)."""

    __tablename__ = "peer"
    aet: Mapped[str] = mapped_column(String(16), primary_key=True)
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    applied_at: Mapped[dt.datetime] = mapped_column(Utc)
    failures: Mapped[int] = mapped_column(default=0)
    """Consecutive failed associations to it: the breaker."""
    open_until: Mapped[dt.datetime | None] = mapped_column(Utc)
    """While the breaker is open nothing is sent to it."""


class RouteRow(Row):
    """Results of what `source` sends go to `destinations`."""

    __tablename__ = "route"
    source: Mapped[str] = mapped_column(String(16), primary_key=True)
    config: Mapped[dict[str, Any]] = mapped_column(JSON)


class SwitchRow(Row):
    """An analysis that is not in service, as applied from site.toml (schema: node.settings.Switch)."""

    __tablename__ = "switch"
    analysis: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    """shadow or off."""
    reason: Mapped[str] = mapped_column(Text)
    since: Mapped[dt.datetime] = mapped_column(Utc)
    """When it came into this state."""


class AssociationRow(Row):
    """One association that somebody opened to us, admitted or not."""

    __tablename__ = "association"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    calling_aet: Mapped[str] = mapped_column(String(64), index=True)
    called_aet: Mapped[str] = mapped_column(String(64))
    host: Mapped[str] = mapped_column(String(64))
    port: Mapped[int]
    tls_subject: Mapped[str | None] = mapped_column(Text)
    receiver: Mapped[str] = mapped_column(Text)
    """Host and port of the receiver that holds it, to close what a killed receiver left open."""
    opened_at: Mapped[dt.datetime] = mapped_column(Utc, index=True)
    closed_at: Mapped[dt.datetime | None] = mapped_column(Utc)
    outcome: Mapped[str] = mapped_column(String(32), default=OPEN)
    stored: Mapped[int] = mapped_column(default=0)
    refused: Mapped[int] = mapped_column(default=0)


class StudyRow(Row):
    __tablename__ = "study"
    __table_args__ = (Index("ix_study_purged_at_study_instance_uid", "purged_at", "study_instance_uid"),)
    study_instance_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    patient_id: Mapped[str] = mapped_column(Text, index=True)
    patient_name: Mapped[str] = mapped_column(Text)
    accession_number: Mapped[str] = mapped_column(Text, index=True)
    study_date: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    first_received_at: Mapped[dt.datetime] = mapped_column(Utc, index=True)
    touched_at: Mapped[dt.datetime | None] = mapped_column(Utc)
    """Something of it came that was here before. The days of retention count from then, at the earliest."""
    purged_at: Mapped[dt.datetime | None] = mapped_column(Utc)
    """No file of it has been held since then; None where one is. What was deleted when: PurgeRow."""
    legal_hold: Mapped[str] = mapped_column(Text, default="", server_default="")
    """Why nothing of it may be deleted; empty where that is left to the retention."""
    legal_hold_at: Mapped[dt.datetime | None] = mapped_column(Utc)

    revisions: Mapped[list[RevisionRow]] = relationship(back_populates="study", order_by="RevisionRow.number")


class RevisionRow(Row):
    """One closed set of images of a study. Late images make the next one, which replaces this."""

    __tablename__ = "revision"
    __table_args__ = (
        UniqueConstraint("study_instance_uid", "number"),
        Index("ix_revision_state_last_image_at", "state", "last_image_at"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(ForeignKey("study.study_instance_uid"), index=True)
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), default=RevisionState.RECEIVING)
    source_aet: Mapped[str] = mapped_column(String(16))
    """The peer whose completion rule and route apply: who sent the first image of this revision."""
    urgent: Mapped[bool] = mapped_column(default=False)
    images: Mapped[int] = mapped_column(default=0)
    """Images that came with this revision; the revision's set holds those of earlier ones too."""
    first_image_at: Mapped[dt.datetime] = mapped_column(Utc)
    last_image_at: Mapped[dt.datetime] = mapped_column(Utc)
    completed_at: Mapped[dt.datetime | None] = mapped_column(Utc)
    completed_because: Mapped[str] = mapped_column(Text, default="")
    planned_at: Mapped[dt.datetime | None] = mapped_column(Utc)
    reported_at: Mapped[dt.datetime | None] = mapped_column(Utc)
    delivered_at: Mapped[dt.datetime | None] = mapped_column(Utc)
    selection: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """One entry per series: role, decision and the rule behind it, in words."""

    study: Mapped[StudyRow] = relationship(back_populates="revisions")
    jobs: Mapped[list[JobRow]] = relationship(back_populates="revision", order_by="JobRow.id")


class SeriesRow(Row):
    __tablename__ = "series"
    series_instance_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(ForeignKey("study.study_instance_uid"), primary_key=True)
    modality: Mapped[str] = mapped_column(Text)
    number: Mapped[int | None] = mapped_column(BigInteger)
    description: Mapped[str] = mapped_column(Text)


class InstanceRow(Row):
    """One received object. Its bytes never change; a second one with other bytes is a ConflictRow."""

    __tablename__ = "instance"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(Uid, unique=True)
    series_instance_uid: Mapped[str] = mapped_column(Uid, index=True)
    study_instance_uid: Mapped[str] = mapped_column(ForeignKey("study.study_instance_uid"), index=True)
    revision_id: Mapped[int | None] = mapped_column(ForeignKey("revision.id"), index=True)
    """None for our own results that were routed back: kept, recorded, never processed."""
    sop_class_uid: Mapped[str] = mapped_column(Uid)
    transfer_syntax_uid: Mapped[str] = mapped_column(Uid)
    association_id: Mapped[str] = mapped_column(ForeignKey("association.id"))
    path: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    received_at: Mapped[dt.datetime] = mapped_column(Utc)
    header: Mapped[dict[str, Any]] = mapped_column(JSON)
    purged_at: Mapped[dt.datetime | None] = mapped_column(Utc)
    """Since then its file is not to be used; None where it is held. So too of results and conflicts."""


class ConflictRow(Row):
    """Same SOP Instance UID, other bytes: kept aside for a person to look at."""

    __tablename__ = "conflict"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instance.id"), index=True)
    association_id: Mapped[str] = mapped_column(ForeignKey("association.id"))
    path: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    received_at: Mapped[dt.datetime] = mapped_column(Utc)
    purged_at: Mapped[dt.datetime | None] = mapped_column(Utc)


class PurgeRow(Row):
    """The files of one study that were given up together. Rows of what they held live on."""

    __tablename__ = "purge"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(ForeignKey("study.study_instance_uid"), index=True)
    purged_at: Mapped[dt.datetime] = mapped_column(Utc)
    because: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(Text)
    files: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    ended_at: Mapped[dt.datetime | None] = mapped_column(Utc, index=True)
    """When the last of them was gone from disk; until then the next round goes on."""


class JobRow(Row):
    """One piece of work: a pipeline on one series, or the report of a revision."""

    __tablename__ = "job"
    __table_args__ = (
        UniqueConstraint("revision_id", "pipeline", "series_instance_uid"),
        Index("ix_job_state_lease_until", "state", "lease_until"),
        CheckConstraint("attempt >= 0", name="attempt"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("revision.id"), index=True)
    pipeline: Mapped[str] = mapped_column(String(64))
    """low_dose_ct, chest_xray, or report."""
    series_instance_uid: Mapped[str] = mapped_column(String(64), default="")
    state: Mapped[str] = mapped_column(String(16), default=JobState.QUEUED)
    urgent: Mapped[bool] = mapped_column(default=False)
    attempt: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str] = mapped_column(Text, default="")
    lease_until: Mapped[dt.datetime | None] = mapped_column(Utc)
    not_before: Mapped[dt.datetime | None] = mapped_column(Utc)
    woken_at: Mapped[dt.datetime | None] = mapped_column(Utc)
    """When the broker was last told of it."""
    queued_at: Mapped[dt.datetime] = mapped_column(Utc)
    started_at: Mapped[dt.datetime | None] = mapped_column(Utc)
    ended_at: Mapped[dt.datetime | None] = mapped_column(Utc)
    progress: Mapped[float] = mapped_column(default=0.0)
    step: Mapped[str] = mapped_column(Text, default="")
    steps: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """[{name, started_at, seconds}] of the attempt that succeeded."""
    outcome: Mapped[str] = mapped_column(String(32), default="")
    """processed, not eligible, failed, failed in part; on trial, switched off: its results are for nobody."""
    reason: Mapped[str] = mapped_column(Text, default="")

    revision: Mapped[RevisionRow] = relationship(back_populates="jobs")


class FindingRow(Row):
    """What a pipeline said about a series: scalars only, arrays live in result objects."""

    __tablename__ = "finding"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"), unique=True)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)


class QualityRow(Row):
    """What the quality network said of one series, slice by slice; or why it said nothing."""

    __tablename__ = "quality"
    __table_args__ = (Index("ix_quality_scanner_acquired_on", "scanner", "acquired_on"),)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"), primary_key=True, autoincrement=False)
    series_instance_uid: Mapped[str] = mapped_column(Uid, index=True)
    scanner: Mapped[str] = mapped_column(Text)
    """Manufacturer, model and station, as the headers name them; "unnamed scanner" where they do not."""
    protocol: Mapped[str] = mapped_column(Text)
    """Protocol Name and kernel."""
    acquired_on: Mapped[dt.date] = mapped_column(Date)
    """Study Date; the day of receipt where the headers have none, or one that is still to come."""
    model: Mapped[str] = mapped_column(Text)
    """Name and version: scores of different weights are not compared."""
    slices: Mapped[int]
    """Scored; 0 where the series is not for this network."""
    median: Mapped[float | None]
    low: Mapped[float | None]
    """10th percentile over the slices."""
    poor: Mapped[int]
    """Slices that a reader would call poor."""
    reason: Mapped[str] = mapped_column(Text, default="")
    """Why nothing was scored, in words."""
    levels: Mapped[list[float]] = mapped_column(JSON, default=list)
    """The scores that the probabilities of `detail` are of."""
    detail: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """[{sop_instance_uid, frame, score, spread, probabilities}] of each slice."""


class ResultRow(Row):
    """One DICOM object that we made."""

    __tablename__ = "result"
    __table_args__ = (Index("ix_result_revision_id_group", "revision_id", "alternatives"),)
    sop_instance_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    series_instance_uid: Mapped[str] = mapped_column(Uid)
    sop_class_uid: Mapped[str] = mapped_column(Uid)
    transfer_syntax_uid: Mapped[str] = mapped_column(Uid)
    revision_id: Mapped[int] = mapped_column(ForeignKey("revision.id"))
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    label: Mapped[str] = mapped_column(Text)
    alternatives: Mapped[str] = mapped_column(Text)
    """Results of one name are alternatives of each other; fallback 0 is preferred."""
    fallback: Mapped[int] = mapped_column(default=0)
    path: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    made_at: Mapped[dt.datetime] = mapped_column(Utc)
    purged_at: Mapped[dt.datetime | None] = mapped_column(Utc)


class DeliveryRow(Row):
    """One result on its way to one peer."""

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("sop_instance_uid", "peer_aet"),
        Index("ix_delivery_state_not_before", "state", "not_before"),
        Index("ix_delivery_peer_aet_state", "peer_aet", "state"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(ForeignKey("result.sop_instance_uid"))
    peer_aet: Mapped[str] = mapped_column(String(16))
    revision_id: Mapped[int] = mapped_column(ForeignKey("revision.id"), index=True)
    state: Mapped[str] = mapped_column(String(16), default=DeliveryState.WAITING)
    urgent: Mapped[bool] = mapped_column(default=False)
    attempt: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[dt.datetime | None] = mapped_column(Utc)
    not_before: Mapped[dt.datetime] = mapped_column(Utc)
    status: Mapped[int | None]
    """Last C-STORE status."""
    reason: Mapped[str] = mapped_column(Text, default="")
    transaction_uid: Mapped[str | None] = mapped_column(String(64), index=True)
    proof: Mapped[str] = mapped_column(String(32), default="")
    """storage commitment, query, or none asked (peer config)."""
    created_at: Mapped[dt.datetime] = mapped_column(Utc)
    sent_at: Mapped[dt.datetime | None] = mapped_column(Utc)
    committed_at: Mapped[dt.datetime | None] = mapped_column(Utc)


class AuditEventRow(Row):
    """One line of the trail. digest = sha256 over the previous digest and this line (node.audit.chain)."""

    __tablename__ = "audit_event"
    number: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    at: Mapped[str] = mapped_column(String(32), index=True)
    """ISO 8601 UTC with microseconds, as hashed."""
    action: Mapped[str] = mapped_column(String(48), index=True)
    outcome: Mapped[str] = mapped_column(String(16))
    peer: Mapped[str] = mapped_column(String(64), default="", index=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), default="", index=True)
    patient_id: Mapped[str] = mapped_column(Text, default="", index=True)
    actor: Mapped[str] = mapped_column(Text, default="")
    detail: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    previous: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))


class AuditHeadRow(Row):
    """The end of the chain; locked by whoever appends, so the chain has one order."""

    __tablename__ = "audit_head"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(64))


class AuditFeedRow(Row):
    """How far the audit repository has been told what the trail says. One row."""

    __tablename__ = "audit_feed"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)
    """Every message that is complete with this event, or before, has been taken."""
    told_at: Mapped[dt.datetime | None] = mapped_column(Utc)
    holder: Mapped[str] = mapped_column(Text)
    """The process that tells it, until its lease ends."""
    lease_until: Mapped[dt.datetime | None] = mapped_column(Utc)
    trouble: Mapped[str] = mapped_column(Text)
    """Why the last try failed; empty where it did not."""
    trouble_since: Mapped[dt.datetime | None] = mapped_column(Utc)


class ModelVersionRow(Row):
    """A network that has run here."""

    __tablename__ = "model_version"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(32), primary_key=True)
    weights_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    first_used_at: Mapped[dt.datetime] = mapped_column(Utc)
