from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from node.dicom import uids

ORIGIN = uids.Origin("1.2.3", "1.2.3.4", 1, "low_dose_ct", "0.1.0", "ab")


def test_the_same_origin_always_gives_the_same_uid() -> None:
    again = uids.Origin("1.2.3", "1.2.3.4", 1, "low_dose_ct", "0.1.0", "ab")
    assert uids.instance_uid(ORIGIN, "denoised", 7) == uids.instance_uid(again, "denoised", 7)
    # Kept for ever: results of an older release must be recognised by a newer one.
    assert uids.instance_uid(ORIGIN, "denoised", 7) == EXPECTED


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(uids.Origin)])
def test_each_part_of_the_origin_decides(field: str) -> None:
    changed = dataclasses.replace(ORIGIN, **{field: 2 if field == "revision" else "9"})
    assert uids.instance_uid(changed, "denoised") != uids.instance_uid(ORIGIN, "denoised")
    assert uids.series_uid(changed, "denoised") != uids.series_uid(ORIGIN, "denoised")


def test_kinds_indices_and_levels_do_not_meet() -> None:
    made = [
        uids.instance_uid(ORIGIN, "denoised", 0),
        uids.instance_uid(ORIGIN, "denoised", 1),
        uids.instance_uid(ORIGIN, "summary", 0),
        uids.series_uid(ORIGIN, "denoised"),
        uids.dimension_uid(ORIGIN, "denoised"),
    ]
    assert len(set(made)) == len(made)


def test_a_finding_keeps_its_tracking_uid_over_revisions() -> None:
    assert "revision" not in uids.tracking_uid.__annotations__
    assert uids.tracking_uid("1.2", "1.2.1", "a") != uids.tracking_uid("1.2", "1.2.1", "b")
    assert uids.tracking_uid("1.2", "1.2.1", "a") != uids.tracking_uid("1.2", "1.2.2", "a")


@given(st.text(max_size=40), st.text(max_size=40), st.integers(0, 10_000))
def test_every_uid_is_valid_and_under_2_25(one: str, other: str, index: int) -> None:
    for uid in (uids.instance_uid(ORIGIN, one, index), uids.tracking_uid(one, other, one), uids.device_uid(other)):
        assert UID(uid).is_valid
        assert uid.startswith("2.25.")
        assert len(uid) <= 64


@given(st.text(max_size=10), st.text(max_size=10), st.text(max_size=10), st.text(max_size=10))
def test_parts_do_not_run_into_each_other(a: str, b: str, c: str, d: str) -> None:
    if (a, b) != (c, d):
        assert uids.tracking_uid(a, b, "x") != uids.tracking_uid(c, d, "x")


EXPECTED = "2.25.35463866794157691245697998157000794987"
