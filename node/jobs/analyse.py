"""An analysis job: the images of one series in, result objects and a finding row out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.contract import Findings, ModelError, Radiograph, SourceRef, Volume
from node.archive import Archive
from node.db import receiving, work
from node.db.session import Database
from node.db.tables import InstanceRow, QualityRow, ResultRow
from node.dicom.read import read_radiograph, read_volume
from node.dicom.select import CHEST_XRAY
from node.dicom.write import SeriesSource, noted, write_images
from node.errors import AnalysisFailed, NotEligible
from node.jobs.body import sources_from_body, sources_to_body, to_body
from node.jobs.quality import quality_row
from node.jobs.record import now
from node.jobs.run import Attempt, Outcome, keep_produced, may_be_tried_again, passes, what_broke
from node.jobs.sources import demand_all
from node.jobs.stamp import stamp
from node.pipelines.low_dose_ct import SCORING
from node.pipelines.models import Models
from node.settings import Settings

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
Grid = Volume | Radiograph
Pipeline = Callable[[Any, Models, Progress], Findings]
"""(Volume or Radiograph, networks, progress callback) → Findings."""


_BROKE = (ModelError, AnalysisFailed, RuntimeError, MemoryError)
"""What an analysis raises on an image that it cannot cope with; RuntimeError is torch's."""


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
        rows = self._instances(attempt)
        with attempt.step("load models"):
            models = self.models()
        if attempt.job.pipeline == CHEST_XRAY and len(rows) > 1:
            return self._one_by_one(attempt, rows, models)
        results, body, findings = self._analysed(attempt, rows, models)
        sources = sources_from_body(body["sources"])
        return Outcome("processed", "", results, body, _quality(attempt, findings, sources, rows[0]))

    def _analysed(
        self, attempt: Attempt, rows: list[InstanceRow], models: Models, source: SeriesSource | None = None
    ) -> tuple[tuple[ResultRow, ...], dict[str, Any], Findings]:
        """(results, what the report is to know, findings) of what one reading takes in.

        source      headers, where they are read already
        """
        read, pipeline = self.pipelines[attempt.job.pipeline]
        paths = [self.archive.path(row.path) for row in rows]
        with attempt.step("read") as progress:
            demand_all(self.database, self.archive, rows)
            grid = read(paths, progress)
            source = source or SeriesSource.load(paths)
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
        return results, body, findings

    def _one_by_one(self, attempt: Attempt, rows: list[InstanceRow], models: Models) -> Outcome:
        """Of several images of a series each by itself; one that cannot be read keeps none of the others back.

        Nor does one that the analysis breaks on, once the job will not be tried again. Where the job is to make good
        what an earlier one broke on, what that one said of the others stands, and they are not analysed again.
        """
        with attempt.step("read"):
            demand_all(self.database, self.archive, rows)
            images = SeriesSource.load([self.archive.path(row.path) for row in rows]).one_by_one()
        results: list[ResultRow] = []
        told: list[dict[str, Any]] = []
        broken: Exception | None = None
        before = self._told_before(attempt)
        for row, image in zip(rows, images, strict=True):
            name = {"image": image.part.name if image.part else ""}
            if name["image"] in before:
                told.append(before[name["image"]])
                continue
            try:
                own, body, _ = self._analysed(attempt, [row], models, image)
            except NotEligible as exc:
                told.append({**name, "reason": exc.reason})
                continue
            except _BROKE as exc:
                if may_be_tried_again(self.settings, attempt.job) or passes(exc, attempt.job):
                    raise
                broken = exc
                log.error("job %d: one of %d images broke", attempt.job.id, len(rows), exc_info=exc)
                told.append({**name, "reason": what_broke(exc, attempt.doing), "failed": True})
                continue
            results += own
            told.append({**name, **body, "results": [one.sop_instance_uid for one in own]})
        if broken is not None and not any(one.get("results") for one in told):
            raise broken
        return Outcome(*_of_all(told), tuple(results), {"one_by_one": told})

    def _told_before(self, attempt: Attempt) -> dict[str, dict[str, Any]]:
        """What earlier jobs said of images that they did not break on, by name, and since when it stands."""
        rests_on = work.rests_on(attempt.revision, attempt.job.id)
        if not rests_on:
            return {}
        with self.database.read() as session:
            body, number = work.finding(session, rests_on[-1]), work.job(session, rests_on[-1]).revision.number
        stands = {"since": f"Image unchanged since revision {number}"}
        return {part["image"]: {**stands, **part} for part in (body or {})["one_by_one"] if not part.get("failed")}

    def _instances(self, attempt: Attempt) -> list[InstanceRow]:
        """The images of the series that the plan chose: not the localiser or the lateral view beside them."""
        [entry] = [entry for entry in attempt.revision.selection if entry["job_id"] == attempt.job.id]
        chosen = {uid: place for place, uid in enumerate(entry["sop_instance_uids"])}
        with self.database.read() as session:
            rows = receiving.instances_up_to(session, receiving.revision(session, attempt.revision.id))
        of_choice = [row for row in rows if row.sop_instance_uid in chosen]
        if attempt.job.pipeline == CHEST_XRAY:
            of_choice.sort(key=lambda row: chosen[row.sop_instance_uid])  # as they are told
        return of_choice

    def _note_models(self, findings: Findings) -> None:
        used = {analysis.model for analysis in findings.analyses if analysis.model is not None}
        if not used:
            return
        with self.database.write() as session:
            for model in used:
                work.note_model(
                    session, name=model.name, version=model.version, weights_sha256=model.weights_sha256, at=now()
                )


def _of_all(told: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """(outcome, reason) of a job by what came of its images, some of them processed or none of them broken."""
    broken = [f"{one['image']}: {one['reason']}" for one in told if one.get("failed")]
    if broken:
        return work.FAILED_IN_PART, "; ".join(broken)
    if any(one.get("results") for one in told):
        return "processed", ""
    return "not eligible", " ".join(dict.fromkeys(one["reason"] for one in told))


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
    [path] = paths
    image = read_radiograph(path)
    progress(1, 1)
    return image
