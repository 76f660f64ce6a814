"""Numbers instead of identities. What ties them together is a keyed digest, in one file kept apart.

Without the file nothing leads from a number to a patient; with it, whoever knows a Patient ID can find its number, and
nobody can read an ID out of it. No date, no UID, no name and no free text is in either.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.errors import ConfigurationError

_VERSION = 1
_KEY_BYTES = 32
_ABOVE_TRAIN, _ABOVE_VALIDATION = 70, 85


@dataclass(eq=False)
class Mapping:
    """The numbers given so far, and the key of the digests by which they are found again.

    A patient keeps number and split when a later harvest brings more of them.
    """

    path: Path
    key: bytes
    patients: dict[str, int] = field(default_factory=dict)
    studies: dict[str, int] = field(default_factory=dict)
    series: dict[str, int] = field(default_factory=dict)
    institutions: dict[str, int] = field(default_factory=dict)
    done: dict[str, Any] = field(default_factory=dict)
    """Studies that need not be harvested again → what came of them."""

    @classmethod
    def open(cls, path: Path) -> Mapping:
        """The file as it stands, or a new one with a new key. raises ConfigurationError"""
        try:
            if not path.exists():
                return cls(path, secrets.token_bytes(_KEY_BYTES))
            if path.stat().st_mode & 0o077:
                raise ConfigurationError(f"{path}: others may read it; it must be for its owner alone (chmod 600)")
            found = json.loads(path.read_text(encoding="utf8"))
            if found["version"] != _VERSION:
                raise ConfigurationError(f"{path}: made by another version of this program")
            tables = {name: found[name] for name in ("patients", "studies", "series", "institutions", "done")}
            return cls(path, bytes.fromhex(found["key"]), **tables)
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise ConfigurationError(f"{path}: is not a mapping file of a harvest ({type(exc).__name__})") from exc

    def save(self) -> None:
        """For its owner alone, all or nothing. raises ConfigurationError"""
        tables = {name: getattr(self, name) for name in ("patients", "studies", "series", "institutions", "done")}
        text = json.dumps({"version": _VERSION, "key": self.key.hex(), **tables}, indent=1)
        unfinished = self.path.with_name(self.path.name + ".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.unlink(missing_ok=True)
            with os.fdopen(
                os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf8"
            ) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self.path)
        except OSError as exc:
            raise ConfigurationError(f"{self.path}: cannot be written ({exc.strerror})") from exc

    def digest(self, kind: str, identity: str) -> str:
        """HMAC-SHA-256 of an identity under this file's key."""
        return hmac.new(self.key, f"{kind}:{identity}".encode(), "sha256").hexdigest()

    def patient(self, patient_id: str) -> int:
        return _number(self.patients, self.digest("patient", patient_id), self.patients)

    def study(self, patient_id: str, study_uid: str) -> int:
        """Numbered within the patient."""
        of_patient = f"{self.digest('patient', patient_id)}/"
        siblings = {name: number for name, number in self.studies.items() if name.startswith(of_patient)}
        return _number(self.studies, of_patient + self.digest("study", study_uid), siblings)

    def places(self, study_uid: str) -> set[tuple[int, int]]:
        """Numbers of patient and study that a study has ever had: it may have been given to another patient."""
        digest = self.digest("study", study_uid)
        found = ((name.partition("/"), number) for name, number in self.studies.items())
        return {(self.patients[patient], number) for (patient, _, study), number in found if study == digest}

    def series_number(self, study_uid: str, series_uid: str) -> int:
        """Numbered within the study."""
        of_study = f"{self.digest('study', study_uid)}/"
        siblings = {name: number for name, number in self.series.items() if name.startswith(of_study)}
        return _number(self.series, of_study + self.digest("series", series_uid), siblings)

    def institution(self, name: str) -> str:
        """ "site 1"…; "" where none is named."""
        if not name.strip():
            return ""
        return f"site {_number(self.institutions, self.digest('institution', name.strip().lower()), self.institutions)}"

    def share(self, patient_id: str) -> int:
        """1 training (70 %), 2 validation (15 %), 3 test (15 %): drawn by the digest, so for good and by patient."""
        drawn = int(self.digest("split", patient_id), 16) % 100
        return 1 if drawn < _ABOVE_TRAIN else 2 if drawn < _ABOVE_VALIDATION else 3


def _number(table: dict[str, int], digest: str, siblings: dict[str, int]) -> int:
    """The number of a digest: the one it has, else the next among its siblings."""
    if digest not in table:
        table[digest] = 1 + max(siblings.values(), default=0)
    return table[digest]
