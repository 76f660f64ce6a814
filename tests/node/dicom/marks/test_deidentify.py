from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from node.dicom.marks.deidentify import Mapping
from node.errors import ConfigurationError


def test_numbers_last_and_are_counted_within_their_parent(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    mapping = Mapping.open(path)
    assert [mapping.patient(name) for name in ("A", "B", "A")] == [1, 2, 1]
    assert [mapping.study("A", "1.1"), mapping.study("A", "1.2"), mapping.study("B", "1.3")] == [1, 2, 1]
    assert [mapping.series_number("1.1", uid) for uid in ("5", "6", "5")] == [1, 2, 1]
    assert [mapping.institution(name) for name in ("General", "", " general ", "Other")] == [
        *("site 1", "", "site 1", "site 2")
    ]
    share = mapping.share("A")
    mapping.save()
    again = Mapping.open(path)
    assert (again.patient("B"), again.patient("C"), again.study("A", "1.2"), again.share("A")) == (2, 3, 2, share)


def test_the_file_is_its_owners_and_holds_no_identity(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    mapping = Mapping.open(path)
    mapping.study("P-17", "1.2.840.77")
    mapping.institution("General Hospital")
    mapping.save()
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert not any(identity in text for identity in ("P-17", "1.2.840.77", "General"))


def test_another_key_gives_other_digests(tmp_path: Path) -> None:
    one, other = (Mapping.open(tmp_path / name) for name in ("a", "b"))
    assert one.digest("patient", "P-17") != other.digest("patient", "P-17")
    assert one.digest("patient", "P-17") != one.digest("study", "P-17")


def test_patients_are_shared_out_70_15_15(tmp_path: Path) -> None:
    """4000 drawn by digest: five standard deviations of a binomial are 3.6 % of the 70, 2.8 % of the 15."""
    mapping = Mapping.open(tmp_path / "map.json")
    counts = Counter(mapping.share(f"P-{number}") for number in range(4000))
    for share, expected, within in ((1, 0.70, 0.037), (2, 0.15, 0.029), (3, 0.15, 0.029)):
        assert counts[share] / 4000 == pytest.approx(expected, abs=within)


def test_a_mapping_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    Mapping.open(path).save()
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="owner alone"):
        Mapping.open(path)


@pytest.mark.parametrize("text", ["", "[]", json.dumps({"version": 1}), json.dumps({"version": 2, "key": ""})])
def test_what_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError):
        Mapping.open(path)
