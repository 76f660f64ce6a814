from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import phantom
from models.contract import SourceRef
from node.dicom.read.frames import MULTI_FRAME, Frame
from node.dicom.read.stack import one_stack
from node.errors import NotEligible

CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def at(z: float, name: str = "", *, phase: str = "", **values: object) -> Frame:
    frame = Frame(
        path=Path(name or f"{z}"),
        index=0,
        source=SourceRef(name or f"1.{int(z * 10) + 1000}"),
        series_instance_uid="1",
        frame_of_reference_uid="2",
        modality="CT",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        rows=4,
        columns=4,
        position=(0.0, 0.0, z),
        orientation=phantom.AXIAL,
        spacing=(1.0, 1.0),
        slope=1.0,
        intercept=-1024.0,
        rescale_type="HU",
        slice_thickness_mm=1.0,
        spacing_between_slices_mm=None,
        exposure_mas=None,
        phases=(("acquisition number", phase), ("content time", name)),
    )
    return replace(frame, **values)  # type: ignore[arg-type]


def different(frame: Frame) -> bytes:
    """Every image shows something else."""
    return frame.source.instance_uid.encode()


def same(_: Frame) -> bytes:
    return b"same"


def order(frames: list[Frame]) -> list[float]:
    return [frame.position[2] for frame in frames]


@given(st.permutations([at(z) for z in (-3, -1, 0, 2, 7)]))
def test_sorts_by_position_whatever_the_order_of_files(frames: list[Frame]) -> None:
    assert order(one_stack(frames, different)[0]) == [-3, -1, 0, 2, 7]


def test_sorts_along_the_normal_of_a_coronal_stack() -> None:
    frames = [at(0, f"1.{y}", position=(0.0, float(y), 0.0), orientation=CORONAL) for y in (5, 1, 3)]
    kept, plane, _ = one_stack(frames, different)
    np.testing.assert_array_equal(plane.normal, [0, 1, 0])
    assert [frame.position[1] for frame in kept] == [1, 3, 5]


def test_leaves_out_a_localiser_and_says_so() -> None:
    scout = at(9, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), orientation=CORONAL)
    kept, _, notes = one_stack([scout, at(0), at(1)], different)
    assert order(kept) == [0, 1]
    assert notes == ["Localiser images left out: 1."]


def test_refuses_localisers_alone() -> None:
    with pytest.raises(NotEligible, match="Only localisers"):
        one_stack([at(0, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))], different)


RESAMPLED = ("DERIVED", "PRIMARY", "VOLUME", "RESAMPLED")


def frame_of_several(z: float, *kind: str) -> Frame:
    return at(z, image_type=kind, phases=((MULTI_FRAME, "1.2.3"),))


def test_frames_that_say_they_were_computed_are_left_out_whatever_the_image_says() -> None:
    original = ("ORIGINAL", "PRIMARY", "VOLUME", "NONE")
    frames = [frame_of_several(9, *RESAMPLED), frame_of_several(0, *original), frame_of_several(1, *original)]
    kept, _, notes = one_stack(frames, different)
    assert order(kept) == [0, 1]
    assert notes == ["Reformatted or computed frames left out, by their own type: 1."]


def test_a_page_in_colour_among_slices_is_left_out() -> None:
    kept, _, notes = one_stack([at(9, samples=3, position=()), at(0), at(1)], different)
    assert order(kept) == [0, 1]
    assert notes == ["Images in colour left out: 1."]
    with pytest.raises(NotEligible, match="in colour"):
        one_stack([at(9, samples=3)], different)


def test_refuses_computed_frames_alone() -> None:
    with pytest.raises(NotEligible, match="A reformatted, projected or computed image"):
        one_stack([frame_of_several(z, *RESAMPLED) for z in range(3)], different)


def test_of_images_of_one_frame_the_plan_is_to_judge_since_our_own_results_are_read_too() -> None:
    ours = ("DERIVED", "SECONDARY", "AXIAL", "AI_DENOISED")
    kept, _, notes = one_stack([at(z, image_type=ours) for z in range(3)], different)
    assert (order(kept), notes) == ([0, 1, 2], [])


@pytest.mark.parametrize("odd", [{"orientation": CORONAL}, {"rows": 8}, {"spacing": (2.0, 2.0)}])
def test_leaves_out_a_single_odd_image_beside_several(odd: dict[str, object]) -> None:
    kept, _, notes = one_stack([at(9, **odd), at(0), at(1), at(2)], different)
    assert order(kept) == [0, 1, 2]
    assert "left out" in notes[0]


def test_leaves_out_two_odd_images_that_differ_as_two_localisers_do() -> None:
    sagittal = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    scouts = [at(9, orientation=CORONAL), at(8, orientation=sagittal)]
    kept, _, notes = one_stack([*scouts, *(at(z) for z in range(6))], different)
    assert order(kept) == list(range(6))
    assert notes == ["Images of another size or angle left out, probably localisers: 2."]
    with pytest.raises(NotEligible, match="two or more angles"):
        one_stack([*scouts, *(at(z) for z in range(5))], different)


def test_refuses_two_orientations() -> None:
    tilted = (1.0, 0.0, 0.0, 0.0, 0.99, -0.14)
    frames = [at(z) for z in range(5)] + [at(z, f"1.9{z}", orientation=tilted) for z in (6, 7)]
    with pytest.raises(NotEligible, match="two or more angles"):
        one_stack(frames, different)


def test_refuses_two_sizes() -> None:
    with pytest.raises(NotEligible, match="different sizes"):
        one_stack([at(0), at(1), at(2, rows=8), at(3, rows=8)], different)


def test_refuses_two_pixel_spacings() -> None:
    with pytest.raises(NotEligible, match="different pixel spacings"):
        one_stack([at(0), at(1), at(2, spacing=(2.0, 2.0)), at(3, spacing=(2.0, 2.0))], different)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"modality": "SEG"}, "modality says SEG"),
        ({"modality": ""}, "modality says nothing"),
        ({"position": ()}, "where in space"),
        ({"orientation": ()}, "where in space"),
        ({"spacing": ()}, "how large a pixel"),
        ({"spacing": (0.0, 1.0)}, "how large a pixel"),
        ({"slope": None}, "No usable rescale"),
        ({"intercept": None}, "No usable rescale"),
        ({"slope": 0.0}, "zero or negative"),
        ({"slope": -1.0}, "zero or negative"),
        ({"rescale_type": "OD"}, "not Hounsfield units"),
        ({"rescale_type": "HU_MOD"}, "not Hounsfield units"),
        ({"series_instance_uid": "7"}, "more than one series"),
        ({"frame_of_reference_uid": "7"}, "frame of reference"),
    ],
)
def test_refuses_a_series_in_which_one_image(values: dict[str, object], words: str) -> None:
    with pytest.raises(NotEligible, match=words):
        one_stack([at(0), at(1), at(2, **values)], different)


def test_takes_an_unspecified_unit_for_hu_and_says_so() -> None:
    assert "Rescale Type US" in one_stack([at(0, rescale_type="US")], different)[2][0]


def test_a_missing_frame_of_reference_is_no_other_one() -> None:
    assert len(one_stack([at(0), at(1, frame_of_reference_uid="")], different)[0]) == 2


def test_refuses_images_of_two_patients() -> None:
    with pytest.raises(NotEligible, match="more than one patient"):
        one_stack([at(0, patient_id="A"), at(1, patient_id="B")], different)
    assert len(one_stack([at(0, patient_id="A"), at(1)], different)[0]) == 2, "no patient ID is no other one"


def test_leaves_out_exact_copies_and_says_so() -> None:
    kept, _, notes = one_stack([at(0, "1.1"), at(0, "1.2"), at(1)], same)
    assert [frame.source.instance_uid for frame in kept] == ["1.1", "1.1010"]
    assert notes == ["Exact copies of images at the same position left out: 1."]


def two_phases(first: int, second: int) -> list[Frame]:
    return [at(z, f"1.1.{z}", phase="1") for z in range(first)] + [at(z, f"1.2.{z}", phase="2") for z in range(second)]


@given(seed=st.integers(0, 1000))
def test_takes_the_more_complete_of_two_phases(seed: int) -> None:
    frames = two_phases(4, 6)
    random.Random(seed).shuffle(frames)
    kept, _, notes = one_stack(frames, different)
    assert [frame.source.instance_uid for frame in kept] == [f"1.2.{z}" for z in range(6)]
    assert "2 phases" in notes[0]
    assert "acquisition number" in notes[0]
    assert "6 of 10 images" in notes[0]


def test_takes_the_earlier_of_two_equally_complete_phases() -> None:
    frames = [at(z, f"1.{p}.{z}", phase=p) for z in range(3) for p in ("10", "9")]
    assert {frame.source.instance_uid[:4] for frame in one_stack(frames, different)[0]} == {"1.9."}


@pytest.mark.parametrize(("chest", "abdomen"), [("1", "2"), ("2", "1"), ("", "")])
def test_parts_of_one_scan_that_overlap_are_joined(chest: str, abdomen: str) -> None:
    frames = [at(z, f"1.8.{z}", phase=chest, instance_number=z) for z in range(8)]
    frames += [at(z, f"1.9.{z}", phase=abdomen, instance_number=10 + z) for z in range(6, 12)]
    random.Random(4).shuffle(frames)
    kept, _, notes = one_stack(frames, different)
    expected = [f"1.8.{z}" for z in range(8)] + [f"1.9.{z}" for z in range(8, 12)]
    assert [frame.source.instance_uid for frame in kept] == expected
    assert "2 parts of one scan overlap" in notes[0]
    assert "(12 of 14 images)" in notes[0]


def test_phases_of_which_one_reaches_farther_are_no_parts() -> None:
    frames = [at(z, f"1.1.{z}", phase="1") for z in range(8)] + [at(z, f"1.2.{z}", phase="2") for z in range(2, 9)]
    kept, _, notes = one_stack(frames, different)
    assert [frame.source.instance_uid for frame in kept] == [f"1.1.{z}" for z in range(8)]
    assert "2 phases of the same region" in notes[0]


def unlabelled(order: Sequence[tuple[int, str]], by: str) -> list[Frame]:
    """Images of two phases at the same places, which only the order in which they came tells apart."""
    return [
        at(z, f"1.{phase}.{z}", instance_number=n, phases=((by, f"1012{n:02}.5" if by else ""),))
        for n, (z, phase) in enumerate(order)
    ]


PLACE_BY_PLACE = [(z, phase) for z in range(5) for phase in "89"]


@pytest.mark.parametrize(
    ("order", "by"),
    [
        *(
            ([(z, "8") for z in range(5)] + [(z, "9") for z in way], by)
            for way in (range(5), range(4, 1, -1))
            for by in ("acquisition time", "content time", "")
        ),
        (PLACE_BY_PLACE, "acquisition time"),
    ],
)
def test_takes_one_of_two_phases_at_the_same_places_by_the_order_of_images(
    order: Sequence[tuple[int, str]], by: str
) -> None:
    kept, _, notes = one_stack(unlabelled(order, by), different)
    assert [frame.source.instance_uid for frame in kept] == [f"1.8.{z}" for z in range(5)]
    assert f"told apart by {by or 'the order of instance numbers'}" in notes[0]


@pytest.mark.parametrize(
    "order",
    [
        [(0, "8"), (1, "8"), (2, "8"), (2, "9"), (3, "8")],
        [(0, "8"), (1, "8"), (0, "9"), (2, "8"), (1, "9"), (2, "9"), (3, "8"), (3, "9")],
        PLACE_BY_PLACE,
    ],
    ids=["one slice repeated on the way", "mixed", "numbered place by place"],
)
def test_refuses_images_at_the_same_place_whose_order_tells_nothing(order: Sequence[tuple[int, str]]) -> None:
    with pytest.raises(NotEligible, match="nothing in the headers says"):
        one_stack(unlabelled(order, "content time"), different)


@pytest.mark.parametrize("key", ["acquisition number", "temporal position"])
def test_takes_one_of_two_phases_whose_slices_lie_between_each_other(key: str) -> None:
    frames = [
        at(2.5 * n + shift, f"1.{phase}.{n}", phases=(("kernel", ""), (key, phase)))
        for phase, shift, count in (("1", 0.0, 5), ("2", 0.4, 6))
        for n in range(count)
    ]
    kept, _, notes = one_stack(frames, different)
    assert [frame.source.instance_uid for frame in kept] == [f"1.2.{n}" for n in range(6)]
    assert "2 phases of the same region" in notes[0]
    assert key in notes[0]
    assert "6 of 11 images" in notes[0]


HALF_A_STEP = [("1", 0.0), ("2", 1.25)]


def half_a_step_apart(count: int, **values: Any) -> list[Frame]:
    """Two scans of 2.5 mm slices; `values` are functions of (phase, number of the slice)."""
    return [
        at(2.5 * n + shift, f"1.{phase}.{n}", **{name: value(phase, n) for name, value in values.items()})
        for phase, shift in HALF_A_STEP
        for n in range(count)
    ]


def thick(_phase: str, _n: int) -> float:
    return 2.5


@pytest.mark.parametrize(
    "key",
    [
        *("acquisition number", "temporal position", "cardiac phase", "trigger time", "respiratory phase"),
        *("series description", "image comments", "kernel", "acquisition time"),
    ],
)
def test_two_phases_half_a_step_apart_are_no_even_grid(key: str) -> None:
    frames = half_a_step_apart(
        5, phases=lambda phase, _: (("contrast agent", ""), (key, phase)), slice_thickness_mm=thick
    )
    kept, _, notes = one_stack(frames, different)
    assert [frame.source.instance_uid for frame in kept] == [f"1.1.{n}" for n in range(5)]
    assert f"told apart by {key}" in notes[0]
    assert "5 of 10 images" in notes[0]


@pytest.mark.parametrize("key", ["acquisition time", "content time"])
def test_scans_that_were_made_one_after_the_other_are_told_apart_by_time(key: str) -> None:
    frames = half_a_step_apart(
        5, phases=lambda phase, n: ((key, f"1{3 - int(phase)}00{n:02}.5"),), slice_thickness_mm=thick
    )
    kept, _, notes = one_stack(frames, different)
    assert [frame.source.instance_uid[:4] for frame in kept] == ["1.2."] * 5, "the earlier one"
    assert f"told apart by {key}" in notes[0]


def test_scans_that_were_numbered_one_after_the_other_are_told_apart_where_slices_overlap() -> None:
    def number(phase: str, n: int) -> int:
        return n if phase == "1" else 10 - n  # there and back

    frames = half_a_step_apart(5, instance_number=number, slice_thickness_mm=thick)
    kept, _, notes = one_stack(frames, different)
    assert order(kept) == [0, 2.5, 5, 7.5, 10]
    assert "told apart by the order of instance numbers" in notes[0]
    thin = [replace(frame, slice_thickness_mm=1.25) for frame in frames]
    assert len(one_stack(thin, different)[0]) == 10, "slices that only touch each other are one stack"
    unknown = [replace(frame, slice_thickness_mm=None) for frame in frames]
    assert len(one_stack(unknown, different)[0]) == 5, "nothing says that they only touch"


@pytest.mark.parametrize("back", [False, True], ids=["from the start again", "there and back"])
@pytest.mark.parametrize("key", ["acquisition time", "instance number"])
def test_two_scans_of_which_one_reaches_farther_are_told_apart(key: str, back: bool) -> None:
    counts = {"1": 6, "2": 9}
    frames = []
    for phase, shift in HALF_A_STEP:
        for n in range(counts[phase]):
            place = 20 * int(phase) + (counts[phase] - n if back and phase == "2" else n)
            values = {"phases": ((key, str(place)),)} if key == "acquisition time" else {"instance_number": place}
            frames.append(at(2.5 * n + shift, f"1.{phase}.{n}", slice_thickness_mm=2.5, **values))
    kept, _, notes = one_stack(frames, different)
    assert [frame.source.instance_uid for frame in kept] == [f"1.2.{n}" for n in range(9)]
    assert "9 of 15 images" in notes[0]


def test_numbers_that_go_round_within_a_rotation_make_no_scans_where_slices_are_missing() -> None:
    frames = [at(n, phase=f"{n % 4}") for n in range(40) if n != 17]
    assert len(one_stack(frames, different)[0]) == 39
    thick = [replace(frame, slice_thickness_mm=2.0) for frame in frames]
    assert len(one_stack(thick, different)[0]) == 39, "four scans of such slices would have gaps"


@pytest.mark.parametrize("second", [59.5, 61.5, 300.0], ids=["overlapping", "behind it", "far behind it"])
def test_numbers_of_rotations_that_begin_anew_with_the_next_range_make_no_scans(second: float) -> None:
    """Chest, then abdomen: rotations are numbered from 1 in both."""
    frames = [at(start + n, f"1.{start}.{n}", phase=f"{n // 4}") for start in (0, second) for n in range(61)]
    kept, _, notes = one_stack(frames, different)
    assert (len(kept), notes) == (122, [])


def test_a_scan_beside_two_of_one_number_is_not_left_out() -> None:
    """Acquisition 2 is no phase of acquisition 1, which was taken up again behind it."""
    places = [*range(10), *range(40, 50)]
    frames = [at(z, phase="1") for z in places] + [at(z + 0.3, phase="2") for z in range(12, 30)]
    assert len(one_stack(frames, different)[0]) == 38


def test_missing_slices_make_no_second_scan() -> None:
    frames = [at(n, instance_number=n, slice_thickness_mm=None) for n in range(20) if n not in (7, 8, 13)]
    kept, _, notes = one_stack(frames, different)
    assert (len(kept), notes) == (17, [])


def test_overlapping_slices_of_one_scan_stay_together() -> None:
    frames = [
        at(
            1.25 * n,
            instance_number=n,
            slice_thickness_mm=2.5,
            phases=(
                ("acquisition number", "1"),
                ("trigger time", f"{700 + n * n % 7}"),
                ("acquisition time", f"{n // 4}"),
            ),
        )
        for n in range(20)
    ]
    kept, _, notes = one_stack(frames, different)
    assert (len(kept), notes) == (20, [])


def test_trigger_times_that_come_again_by_chance_tell_nothing_apart() -> None:
    times = ["450"] * 4 + ["463"] * 4 + ["455"] * 4 + ["450"] * 4
    frames = [at(n, phases=(("trigger time", time),)) for n, time in enumerate(times)]
    assert len(one_stack(frames, different)[0]) == 16


def test_takes_the_earliest_of_three_interleaved_phases() -> None:
    frames = [at(5 * n + 0.7 * p, f"1.{p}.{n}", phase=f"{p}") for n in range(4) for p in (1, 2, 3)]
    assert order(one_stack(frames, different)[0]) == pytest.approx([0.7, 5.7, 10.7, 15.7])


@pytest.mark.parametrize(
    "frames",
    [
        [at(z, phase="1" if z < 6 else "2") for z in (0, 2.5, 5, 6.1, 8.6, 11.1)],
        [at(z, phase="1") for z in range(0, 20, 2)] + [at(z + 0.7, phase="2") for z in range(17, 40, 2)],
        [at(z, phase=f"{z}") for z in (0, 2, 3, 7, 8)],
        [at(z, phase="1") for z in (0, 0.4, 2.5, 2.9, 5, 5.4)],
        [at(z, phase=f"{z % 2}") for z in range(8)],
    ],
    ids=["one behind the other", "small overlap", "one number per slice", "no labels", "even steps"],
)
def test_leaves_scans_whole_that_are_no_interleaved_phases(frames: list[Frame]) -> None:
    kept, _, notes = one_stack(frames, different)
    assert (len(kept), notes) == (len(frames), [])


def test_refuses_two_images_at_one_position_that_nothing_tells_apart() -> None:
    frames = [at(z, f"1.{n}.{z}", phase="1") for z in range(5) for n in (1, 2)]
    with pytest.raises(NotEligible, match="Different images at the same position"):
        one_stack(frames, different)


def thin(count: int, *, step: float = 0.625, **values: object) -> list[Frame]:
    """Slices of one scan, whose positions were rounded to whole millimetres."""
    return [
        at(float(round(step * n)), f"1.{n:03}", instance_number=n + 1, slice_thickness_mm=step, **values)
        for n in range(count)
    ]


@pytest.mark.parametrize("upwards", [True, False], ids=["feet first numbered", "head first numbered"])
def test_slices_that_rounding_put_at_one_place_are_told_apart_by_their_numbers(upwards: bool) -> None:
    frames = thin(60)
    if not upwards:
        frames = [replace(frame, instance_number=61 - (frame.instance_number or 0)) for frame in frames]
    random.Random(4).shuffle(frames)
    kept, _, notes = one_stack(frames, different)
    assert [frame.source.instance_uid for frame in kept] == [f"1.{n:03}" for n in range(60)]
    assert notes == []


def test_slice_locations_tell_them_apart_where_numbers_are_in_no_order() -> None:
    frames = [replace(frame, slice_location_mm=-0.625 * n) for n, frame in enumerate(thin(40))]
    shuffled = random.Random(2).sample(range(40), 40)
    frames = [replace(frame, instance_number=number) for frame, number in zip(frames, shuffled, strict=True)]
    kept, _, _ = one_stack(frames, different)
    assert [frame.source.instance_uid for frame in kept] == [f"1.{n:03}" for n in range(40)]


def test_two_images_at_every_whole_place_are_one_scan_only_where_a_header_states_half_the_step() -> None:
    pairs = [at(float(n // 2), f"1.{n:03}", instance_number=n + 1, slice_thickness_mm=1.0) for n in range(40)]
    with pytest.raises(NotEligible, match="Different images at the same position"):
        one_stack(pairs, different)
    stated = [replace(frame, slice_thickness_mm=0.5) for frame in pairs]
    assert len(one_stack(stated, different)[0]) == 40


def dynamic(places: int, times: int, by: str, value: Callable[[int, int], str], jitter_mm: float = 0.0) -> list[Frame]:
    """Some places imaged so often, one time after the other; `value` is a function of (time, place)."""
    off = np.random.default_rng(6).uniform(-jitter_mm, jitter_mm, (times, places))
    return [
        at(5.0 * n + float(off[t, n]), f"1.{t}.{n}", instance_number=t * places + n + 1, phases=((by, value(t, n)),))
        for t in range(times)
        for n in range(places)
    ]


SECONDS = {
    "temporal position": lambda t, _n: str(t + 1),
    "acquisition number": lambda t, _n: str(t + 1),
    "acquisition time": lambda t, n: f"1012{t + 10}.{n:02}",
    "trigger time": lambda t, _n: str(1500 * t),
    "": lambda _t, _n: "",
}


@pytest.mark.parametrize("by", SECONDS)
@pytest.mark.parametrize(("places", "times"), [(8, 30), (1, 12), (3, 7)])
def test_a_dynamic_series_is_recognised_whatever_tells_its_times_apart(by: str, places: int, times: int) -> None:
    frames = dynamic(places, times, by, SECONDS[by])
    random.Random(1).shuffle(frames)
    with pytest.raises(NotEligible, match=f"dynamic series.*: about {places} places, each imaged about {times} times"):
        one_stack(frames, different)


def test_a_dynamic_series_of_which_some_images_are_missing_is_one_still() -> None:
    frames = random.Random(5).sample(dynamic(8, 30, "temporal position", SECONDS["temporal position"]), 200)
    with pytest.raises(NotEligible, match="dynamic series"):
        one_stack(frames, different)


@pytest.mark.parametrize("by", ["temporal position", "acquisition number"])
def test_a_dynamic_series_whose_table_came_back_a_little_off_is_one_still(by: str) -> None:
    frames = [
        replace(frame, phases=(*frame.phases, ("acquisition time", f"1012{n % 30 + 10}")))
        for n, frame in enumerate(dynamic(8, 30, by, SECONDS[by], jitter_mm=0.3))
    ]
    with pytest.raises(NotEligible, match="dynamic series"):
        one_stack(frames, different)


@pytest.mark.parametrize(
    ("by", "value"),
    [
        ("cardiac phase", lambda t: f"P{t}"),
        ("respiratory phase", lambda t: f"R{t}"),
        ("trigger time", lambda t: str(80 * t)),
        ("image comments", lambda t: f"{10 * t} %"),
    ],
)
def test_many_phases_of_a_heartbeat_or_a_breath_are_no_dynamic_series(by: str, value: Callable[[int], str]) -> None:
    frames = dynamic(8, 10, by, lambda t, _n: value(t))
    kept, _, notes = one_stack(frames, different)
    assert [frame.source.instance_uid for frame in kept] == [f"1.0.{n}" for n in range(8)]
    assert f"10 phases of the same region are in this series, told apart by {by}" in notes[0]


def test_six_contrast_phases_are_no_dynamic_series() -> None:
    kept, _, _ = one_stack(dynamic(8, 6, "acquisition number", SECONDS["acquisition number"]), different)
    assert [frame.source.instance_uid for frame in kept] == [f"1.0.{n}" for n in range(8)]


def test_a_series_that_was_sent_many_times_under_new_names_is_no_dynamic_series() -> None:
    copies = [at(z, f"1.{copy}.{z}") for copy in range(9) for z in range(4)]
    kept, _, notes = one_stack(copies, lambda frame: str(frame.position).encode())
    assert order(kept) == [0, 1, 2, 3]
    assert "Exact copies of images at the same position left out: 32." in notes


def test_a_scan_of_many_rotations_is_no_dynamic_series() -> None:
    frames = [at(2.5 * n, f"1.{n}", phase=str(n // 4)) for n in range(80)]
    assert len(one_stack(frames, different)[0]) == 80


@pytest.mark.parametrize("missing", ["position", "orientation"])
def test_a_page_without_a_place_among_slices_is_left_out(missing: str) -> None:
    page = at(99, "1.99", **{missing: ()})
    kept, _, notes = one_stack([page, *(at(z) for z in range(5))], different)
    assert order(kept) == [0, 1, 2, 3, 4]
    assert notes == ["Images that do not say where in space they are, left out: 1."]
    for others in ([at(0), at(1)], []):
        with pytest.raises(NotEligible, match="where in space"):
            one_stack([page, *others], different)


def test_images_that_all_have_one_position_and_other_slice_locations_are_no_dynamic_series() -> None:
    once = (("acquisition number", "2"), ("acquisition time", "101100"))
    frames = [at(0, f"1.{n}", slice_location_mm=2.5 * n, phases=once) for n in range(20)]
    with pytest.raises(NotEligible, match="one position, but several slice locations"):
        one_stack(frames, different)


@pytest.mark.parametrize(("seconds_apart", "is_dynamic"), [(0.1, False), (0.0, False), (1.0, True)])
def test_images_of_one_place_that_were_made_within_a_heartbeat_are_phases_of_it(
    seconds_apart: float, is_dynamic: bool
) -> None:
    """Ten reconstructions of a gated scan, numbered by temporal position alone, over the change of a minute."""
    frames = [
        replace(
            at(5.0 * n, f"1.{t}.{n}", instance_number=10 * t + n),
            phases=(
                ("acquisition number", "2"),
                ("temporal position", str(t)),
                (
                    "acquisition time",
                    f"1011{59.5 + seconds_apart * t:05.2f}"
                    if seconds_apart * t < 0.5
                    else f"1012{seconds_apart * t - 0.5:05.2f}",
                ),
            ),
        )
        for t in range(10)
        for n in range(8)
    ]
    if is_dynamic:
        with pytest.raises(NotEligible, match="dynamic series"):
            one_stack(frames, different)
    else:
        assert len(one_stack(frames, different)[0]) == 8
