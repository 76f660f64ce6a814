"""What a harvest keeps: rows and images as DeepLesion has them, and beside them, apart, what leads back to patients.

OUT/DL_info.csv             one row per mark              OUT/harvest.json   counts, refusals, where it comes from
OUT/Images_png/P_S_R/N.png  the key slice and its neighbours, HU + 32768
OUT/lesions.csv             line by line with DL_info.csv: the same lesion over time, finding and site by code
OUT.mapping.json            numbers ↔ digests (0600)      OUT.refused.csv    refused marks by UID, for the PACS (0600)
OUT.fetched/                the study under way, as it came (0700); gone at the end
"""

from __future__ import annotations

import csv
import datetime as dt
import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from collections.abc import Mapping as AnyMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.contract import ModelError
from models.deeplesion.table import (
    FIRST_PIXEL,
    LesionRow,
    Split,
    image_path,
    read_image,
    read_table,
    write_image,
    write_table,
)
from node.cli.harvested_rows import REACH_MM, code_text, is_odd, is_same, once, row_of
from node.dicom.marks.deidentify import Mapping
from node.dicom.marks.mark import Refusal
from node.dicom.marks.resolve import Mark
from node.dicom.marks.study import StudyMarks
from node.dicom.read.codec import Codec
from node.errors import ConfigurationError, NotEligible
from node.settings import VERSION

NOTE = (
    "Made from clinical images and the marks of those who read them. This program grants no licence for them: whether"
    " they may be used, shared or published is for the institution that holds them to say. Numbers stand for"
    " identities; no date, no UID, no name and no free text was kept. Pixels were not searched for burnt-in text or"
    " for faces."
)
_IMAGES = "Images_png"
_LESION_COLUMNS = ("File_name", "Lesion", "Observer", "Finding", "Site")
_REFUSED_COLUMNS = ("document", "image", "reason", "detail")
_LESION_DIGITS = 16
_UNFINISHED = ".new"


class TrainingSet:
    """A folder that grows study by study; what was finished stays finished. raises ConfigurationError"""

    def __init__(self, out: Path, mapping: Mapping) -> None:
        self.out = out
        self.mapping = mapping
        self._rows: dict[tuple[int, int], list[LesionRow]] = {}
        self._lesions: dict[tuple[int, int], list[dict[str, str]]] = {}
        self._finished: dict[str, dict[str, Any]] = {}
        self._refused: list[Refusal] = []
        self._read_again: set[str] = set()
        self.new = self.dropped = 0
        """Rows since this was opened; one whose points have moved is both."""
        self._end_save()
        try:
            for row in read_table(self.table) if self.table.exists() else []:
                self._rows.setdefault((row.patient, row.study), []).append(row)
            self._read_lesions()
        except ModelError as exc:
            raise ConfigurationError(f"{self.table}: {exc}") from exc
        if mapping.done and not self.table.exists():
            raise ConfigurationError(
                f"{mapping.path} is of a harvest whose table is not in {out}: give the --out of then"
            )
        if not self.table.exists() and not mapping.path.exists() and (self.out / _IMAGES).exists():
            raise ConfigurationError(f"{out} holds images of something else: give a folder of its own")
        if self._rows and not mapping.patients:
            raise ConfigurationError(f"{out} holds a harvest, and {mapping.path} is not its mapping: give --mapping")

    @property
    def table(self) -> Path:
        return self.out / "DL_info.csv"

    @property
    def lesions(self) -> Path:
        return self.out / "lesions.csv"

    @property
    def rows(self) -> list[LesionRow]:
        return [row for study in sorted(self._rows) for row in self._rows[study]]

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows.values())

    def _done(self, study_uid: str) -> dict[str, Any] | None:
        digest = self.mapping.digest("study", study_uid)
        return self._finished.get(digest) or self.mapping.done.get(digest)

    def knows(self, study_uid: str) -> bool:
        """Whether a study was harvested before, all of it or in part."""
        return self._done(study_uid) is not None

    def has(self, study_uid: str) -> bool:
        """Whether all of a study was harvested: one of which the peer could not send all gives more the next time."""
        done = self._done(study_uid)
        return done is not None and not done["not_sent"]

    def is_current(self, study_uid: str, holdings: Collection[str]) -> bool:
        """Whether all was harvested of what a study holds now (`Shelf.holdings`)."""
        done = self._done(study_uid)
        return self.has(study_uid) and done is not None and done.get("holdings") == self._digest_of(holdings)

    def _digest_of(self, holdings: Collection[str]) -> str:
        return self.mapping.digest("holdings", "\n".join(sorted(holdings)))

    def add(self, study: StudyMarks, codec: Codec, *, holdings: Collection[str] = (), not_sent: int = 0) -> bool:
        """Rows and images of one study instead of those that it had; `save` makes them last.

        returns  False where the earlier rows stay: the study was whole and now came in part, and nothing in it is
                 rejected
        raises   ConfigurationError   where the disk fails
        """
        if not_sent and self.has(study.study_uid) and not study.rejections:
            return False
        patient_id = study.patient_id or study.study_uid
        patient = self.mapping.patient(patient_id)
        number = self.mapping.study(patient_id, study.study_uid)
        refusals = list(study.refusals)
        rows, lesions = [], []
        images: dict[Path, bool] = {}
        try:
            earlier = self._withdraw(study.study_uid)
            for mark in once(study.marks, refusals):
                try:
                    row = row_of(
                        mark, self.mapping, patient, number, study.study_uid, Split(self.mapping.share(patient_id))
                    )
                    self._write_images(mark, row, codec, images)
                    row = replace(row, noisy=is_odd(row, read_image(self.out / _IMAGES / image_path(row.file_name))))
                except NotEligible as exc:
                    reason = f"the image is not usable: {exc.reason}"
                    refusals.append(Refusal(mark.about.document_uid, reason, "", mark.image.instance_uid))
                    continue
                rows.append(row)
                lesions.append(self._lesion(mark, row))
        except OSError as exc:
            raise ConfigurationError(f"{self.out}: cannot be written ({exc.strerror})") from exc
        self._rows[patient, number], self._lesions[patient, number] = rows, lesions
        self.new += sum(not any(is_same(row, other) for other in earlier) for row in rows)
        self.dropped += sum(not any(is_same(row, other) for other in rows) for row in earlier)
        self._refused += refusals
        self._read_again.update(study.documents)
        self._finished[self.mapping.digest("study", study.study_uid)] = {
            "holdings": self._digest_of(holdings),
            "documents": len(study.documents),
            "rejections": study.rejections,
            "rows": len(rows),
            "images": sum(images.values()),
            "neighbours_left_out": len(images) - sum(images.values()),
            "not_sent": not_sent,
            "origins": dict(Counter(row.origin for row in rows)),
            "refused": dict(Counter(refusal.reason for refusal in refusals)),
        }
        return True

    def save(self, source: AnyMapping[str, Any]) -> dict[str, Any]:
        """Make all that was added last; returns what harvest.json says. raises ConfigurationError

        The numbers first: rows whose numbers are lost would be taken for another patient's.
        """
        self.mapping.save()
        try:
            self._write_rows()
            self._note_refusals()
            self.mapping.done.update(self._finished)
            self._finished.clear()
            said = self.summary(source)
            report = json.dumps(said, indent=1, ensure_ascii=False) + "\n"
            (self.out / "harvest.json").write_text(report, encoding="utf8")
        except OSError as exc:
            raise ConfigurationError(f"{self.out}: cannot be written ({exc.strerror})") from exc
        self.mapping.save()
        return said

    def _write_rows(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        lesions, table = (path.with_suffix(_UNFINISHED) for path in (self.lesions, self.table))
        self._write_lesions(lesions)
        write_table(table, self.rows)
        for path in (lesions, table):
            _sync(path)
        lesions.replace(self.lesions)
        table.replace(self.table)

    def summary(self, source: AnyMapping[str, Any]) -> dict[str, Any]:
        """Counts over everything harvested so far."""
        studies = list(self.mapping.done.values())
        origins: Counter[str] = Counter()
        refused: Counter[str] = Counter()
        for study in studies:
            origins.update(study["origins"])
            refused.update(study["refused"])
        return {
            "made_with": f"pacsnode {VERSION}",
            "made_at": dt.datetime.now(dt.UTC).date().isoformat(),
            "source": dict(source),
            "patients": len({row.patient for row in self.rows}),
            "studies": len(studies),
            "documents": sum(study["documents"] for study in studies),
            "rows": len(self),
            "images": sum(study["images"] for study in studies),
            "neighbours_left_out": sum(study.get("neighbours_left_out", 0) for study in studies),
            "objects_rejected": sum(study.get("rejections", 0) for study in studies),
            "objects_not_sent": sum(study["not_sent"] for study in studies),
            "origins": dict(origins.most_common()),
            "possibly_noisy": sum(row.noisy for row in self.rows),
            "splits": {split.name.lower(): sum(row.split == split for row in self.rows) for split in Split},
            "refused": dict(refused.most_common()),
            "note": NOTE,
        }

    def _withdraw(self, study_uid: str) -> list[LesionRow]:
        """Takes away what there is of a study; whoever is cut off behind it has a study less, and no row without its
        images."""
        places = sorted(self.mapping.places(study_uid))
        earlier = [row for place in places for row in self._rows.pop(place, [])]
        for place in places:
            self._lesions.pop(place, None)
        if earlier:
            digest = self.mapping.digest("study", study_uid)
            self._finished.pop(digest, None)
            self.mapping.done.pop(digest, None)
            self.mapping.save()
            self._write_rows()
        for place in places:
            self._clear(*place)
        return earlier

    def _clear(self, patient: int, study: int) -> None:
        """Images under these numbers: of an unfinished harvest, which may have given the numbers to somebody else."""
        for folder in (self.out / _IMAGES).glob(f"{patient:06d}_{study:02d}_*"):
            shutil.rmtree(folder)

    def _write_images(self, mark: Mark, row: LesionRow, codec: Codec, done: dict[Path, bool]) -> None:
        """The key slice and its neighbours; of these, what cannot be used is left out, as DeepLesion leaves it out.

        done     images that were tried → whether they were written
        raises   NotEligible where it is the key slice
        """
        first, last, _ = mark.series.neighbours(mark.index, REACH_MM)
        folder = (self.out / _IMAGES / image_path(row.file_name)).parent
        for index in (mark.index, *range(first, last + 1)):
            path = folder / f"{FIRST_PIXEL + index:03d}.png"
            if done.get(path) or (path in done and index != mark.index):
                continue
            try:
                write_image(path, mark.series.hounsfield(index, codec))
                done[path] = True
            except NotEligible:
                done[path] = False
                if index == mark.index:
                    raise

    def _lesion(self, mark: Mark, row: LesionRow) -> dict[str, str]:
        about = mark.about
        tracked = self.mapping.digest("lesion", about.tracking_uid)[:_LESION_DIGITS] if about.tracking_uid else ""
        values = (row.file_name, tracked, about.observer, code_text(about.finding), code_text(about.site))
        return dict(zip(_LESION_COLUMNS, values, strict=True))

    def _read_lesions(self) -> None:
        """The lines that belong to the rows read. raises ModelError where they do not"""
        if not self._rows:
            return
        try:
            with self.lesions.open(newline="", encoding="utf8") as file:
                lines = list(csv.DictReader(file))
        except OSError as exc:
            raise ModelError(f"{self.lesions.name}: cannot be read") from exc
        if [line.get("File_name") for line in lines] != [row.file_name for row in self.rows]:
            raise ModelError(f"{self.lesions.name} is not of the same rows")
        for row, line in zip(self.rows, lines, strict=True):
            self._lesions.setdefault((row.patient, row.study), []).append(line)

    def _write_lesions(self, path: Path) -> None:
        with path.open("w", newline="", encoding="utf8") as file:
            writer = csv.DictWriter(file, _LESION_COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(line for study in sorted(self._lesions) for line in self._lesions[study])

    def _end_save(self) -> None:
        """Ends a save that was cut off between the moves of its two files."""
        table = self.table.with_suffix(_UNFINISHED)
        if table.exists() and not self.lesions.with_suffix(_UNFINISHED).exists():
            table.replace(self.table)

    def _note_refusals(self) -> None:
        """What was refused of documents that were read now, instead of what was refused of them before."""
        path = self.mapping.path.with_name(f"{self.out.name}.refused.csv")
        unfinished = path.with_name(path.name + _UNFINISHED)
        lines: list[Sequence[str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf8") as file:
                lines = [line for line in list(csv.reader(file))[1:] if line and line[0] not in self._read_again]
        lines += [(it.document_uid, it.image_uid, it.reason, it.detail) for it in self._refused]
        unfinished.unlink(missing_ok=True)
        with os.fdopen(
            os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", newline="", encoding="utf8"
        ) as file:
            csv.writer(file).writerows((_REFUSED_COLUMNS, *lines))
        unfinished.replace(path)
        self._refused.clear()
        self._read_again.clear()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
