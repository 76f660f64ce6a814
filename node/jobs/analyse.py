"""An analysis job: the images of one series in, result objects and a finding row out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.contract import Findings, Radiograph, SourceRef, Volume
from node.archive import Archive
from node.db import receiving, work
from node.db.session import Database
from node.db.tables import InstanceRow, QualityRow
from node.dicom.read import read_radiograph, read_volume
from node.dicom.write import SeriesSource, noted, write_images
from node.errors import NotEligible
from node.jobs.body import sources_to_body, to_body
from node.jobs.quality import quality_row
from node.jobs.record import now
from node.jobs.run import Attempt, Outcome, keep_produced
from node.jobs.sources import demand_all
from node.jobs.stamp import stamp
from node.pipelines.low_dose_ct import SCORING
from node.pipelines.models import Models
from node.settings import Settings

Progress = Callable[[int, int], None]
Grid = Volume | Radiograph
Pipeline = Callable[[Any, Models, Progress], Findings]
"""(Volume or Radiograph, networks, progress callback) → Findings."""


@dataclass(frozen=True)
class Analyst:
    """Reads, runs the pipeline, writes. `models` are loaded at the first job that needs them."""

    settings: Settings
    database: Database
    archive: Archive
    models: Callable[[], Models]
    pipelines: Mapping[str, tuple[Callable[[list[Path], Progress], Grid], Pipeline]]
    """name → (reader, pipeline)."""

    def analyse(self, attempt: Attempt) -> Outcome:
        """raises NotEligible with the reason for the reader; anything else is a failure."""
        read, pipeline = self.pipelines[attempt.job.pipeline]
        rows = self._instances(attempt)
        paths = [self.archive.path(row.path) for row in rows]
        with attempt.step("load models"):
            models = self.models()
        with attempt.step("read") as progress:
            demand_all(self.database, self.archive, rows)
            grid = read(paths, progress)
            source = SeriesSource.load(paths)
        with attempt.step("analyse") as progress:
            findings = pipeline(grid, models, progress)
        with attempt.step("write"):
            produced = write_images(findings, grid, source, stamp(self.settings, attempt.revision))
            results = tuple(keep_produced(self.archive, attempt, item) for item in produced)
        self._note_models(findings)
        sources = grid.sources if isinstance(grid, Volume) else (grid.source,)
        told = noted(findings, {row.kind for row in results})
        said = to_body(replace(told, quality=None))  # it has a row of its own
        body = {"findings": said, "sources": sources_to_body(sources), "notes": list(grid.notes)}
        return Outcome("processed", "", results, body, _quality(attempt, findings, sources, rows[0]))

    def _instances(self, attempt: Attempt) -> list[InstanceRow]:
        """The images of the series that the plan chose: not the localiser or the lateral view beside them."""
        [entry] = [entry for entry in attempt.revision.selection if entry["job_id"] == attempt.job.id]
        chosen = set(entry["sop_instance_uids"])
        with self.database.read() as session:
            rows = receiving.instances_up_to(session, receiving.revision(session, attempt.revision.id))
        return [row for row in rows if row.sop_instance_uid in chosen]

    def _note_models(self, findings: Findings) -> None:
        used = {analysis.model for analysis in findings.analyses if analysis.model is not None}
        if not used:
            return
        with self.database.write() as session:
            for model in used:
                work.note_model(
                    session, name=model.name, version=model.version, weights_sha256=model.weights_sha256, at=now()
                )


def _quality(
    attempt: Attempt, findings: Findings, sources: tuple[SourceRef, ...], first: InstanceRow
) -> QualityRow | None:
    if findings.quality is None:
        return None
    [model] = {analysis.model for analysis in findings.analyses if analysis.name == SCORING and analysis.model}
    return quality_row(attempt.job, findings.quality, model, sources, first)


def read_one_volume(paths: list[Path], progress: Progress) -> Volume:
    return read_volume(paths, on_progress=progress)


def read_one_radiograph(paths: list[Path], progress: Progress) -> Radiograph:
    """A radiograph series holds one image; with several, each would need its own reading."""
    if len(paths) != 1:
        raise NotEligible(f"The series holds {len(paths)} radiographs; only series of one image are analysed.")
    image = read_radiograph(paths[0])
    progress(1, 1)
    return image
