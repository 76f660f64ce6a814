from __future__ import annotations

import random
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from images import phantom, shared
from images.phantom import REMOVED
from models.contract import SourceRef, Volume
from node.dicom.read import read_volume
from node.errors import NotEligible

ORIENTATIONS = {
    "axial": phantom.AXIAL,
    "feet first": (-1, 0, 0, 0, 1, 0),
    "prone": (-1, 0, 0, 0, -1, 0),
    "decubitus": (0, 1, 0, -1, 0, 0),
    "negated columns": (1, 0, 0, 0, -1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": (0.8, 0.6, 0, -0.36, 0.48, 0.8),
}


def series(
    count: int = 5,
    *,
    orientation: tuple[float, ...] = phantom.AXIAL,
    step: tuple[float, ...] | None = None,
    start: tuple[float, ...] = (-10.5, 20.25, 30.0),
    **elements: object,
) -> list[Dataset]:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    way = 2.5 * np.cross(row, column) if step is None else np.array(step)
    return [
        phantom.ct(
            n,
            ImageOrientationPatient=list(orientation),
            ImagePositionPatient=[float(part) for part in np.round(np.array(start) + n * way, 6)],
            **elements,
        )
        for n in range(count)
    ]


def read(datasets: list[Dataset], folder: Path) -> Volume:
    return read_volume(phantom.save_series(datasets, folder))


def hu(n: int) -> NDArray[np.float32]:
    return phantom.stored_values(n).astype(np.float32) - 1024


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_every_voxel_is_where_its_header_says(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    datasets = series(orientation=orientation)
    volume = read(datasets, tmp_path)
    assert volume.voxels.dtype == np.float32
    for z, ds in enumerate(datasets):  # 0..4 goes up the normal
        np.testing.assert_array_equal(volume.voxels[z], hu(z))
        np.testing.assert_array_equal(volume.slice_origins_mm[z], [float(part) for part in ds.ImagePositionPatient])
        assert volume.sources[z] == SourceRef(f"{phantom.SERIES}.{z}")
        row, column = np.array(orientation[:3]), np.array(orientation[3:])
        expected = volume.slice_origins_mm[z] + 0.7 * 3 * column + 0.8 * 5 * row
        np.testing.assert_allclose((volume.affine @ [z, 3, 5, 1])[:3], expected, atol=1e-5)
    assert volume.spacing_zyx_mm == pytest.approx((2.5, 0.7, 0.8))
    assert volume.even_steps
    assert volume.gantry_tilt_deg == 0
    assert volume.notes == ()
    assert volume.padding is None


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_the_affine_is_that_of_highdicom(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    paths = phantom.save_series(series(orientation=orientation), tmp_path)
    ours = read_volume(paths)
    theirs = hd.get_volume_from_series([dcmread(path) for path in paths])
    if theirs.array[0, 0, 2] != ours.voxels[0, 0, 2]:
        theirs = theirs.flip_spatial(0)  # it counts slices from the other end
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-5)
    np.testing.assert_array_equal(ours.voxels, theirs.array)


def test_the_order_of_files_changes_nothing(tmp_path: Path) -> None:
    datasets = series(7, Exposure="100")
    datasets[2].Exposure = "250"
    paths = phantom.save_series(datasets, tmp_path)
    first = read_volume(paths)
    for seed in range(5):
        again = read_volume(random.Random(seed).sample(paths, len(paths)))
        assert again.voxels.tobytes() == first.voxels.tobytes()
        assert again.affine.tobytes() == first.affine.tobytes()
        assert again.slice_origins_mm.tobytes() == first.slice_origins_mm.tobytes()
        assert (again.sources, again.acquisition, again.notes) == (first.sources, first.acquisition, first.notes)


def test_gantry_tilt_shears_the_affine(tmp_path: Path) -> None:
    orientation = (1, 0, 0, 0, 0.9483237, -0.3173047)
    volume = read(series(orientation=orientation, step=(0, 0, 2.5)), tmp_path)
    assert volume.gantry_tilt_deg == pytest.approx(-18.5, abs=0.01)
    np.testing.assert_allclose(volume.affine[:3, 0], [0, 0, 2.5], atol=1e-9)
    np.testing.assert_allclose(volume.affine[:3, 1], 0.7 * np.array(orientation[3:]), atol=1e-6)
    assert volume.even_steps


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    datasets = series(3)
    datasets[1].RescaleSlope, datasets[1].RescaleIntercept = "0.5", "-1000.25"
    volume = read(datasets, tmp_path)
    np.testing.assert_array_equal(volume.voxels[0], hu(0))
    np.testing.assert_array_equal(volume.voxels[1], phantom.stored_values(1) * np.float32(0.5) - np.float32(1000.25))


def test_uneven_steps_stay_a_volume_with_exact_origins(tmp_path: Path) -> None:
    datasets = series(4)
    datasets[2].ImagePositionPatient[2] += 1.1
    volume = read(datasets, tmp_path)
    assert not volume.even_steps
    assert volume.slice_origins_mm[:, 2].tolist() == [30, 32.5, 36.1, 37.5]
    assert "unevenly spaced" in volume.notes[0]


def test_a_single_slice_is_a_volume(tmp_path: Path) -> None:
    volume = read(series(1), tmp_path)
    assert volume.voxels.shape == (1, *phantom.SHAPE)
    assert volume.spacing_zyx_mm == (2.5, 0.7, 0.8)


def test_reads_an_enhanced_image_frame_by_frame(tmp_path: Path) -> None:
    values = np.stack([phantom.stored_values(n) for n in (2, 0, 1)])
    ds = phantom.enhanced_ct([(0, 0, 5), (0, 0, 0), (0, 0, 2.5)], values, slopes=[1, 1, 2])
    volume = read([ds], tmp_path)
    np.testing.assert_array_equal(volume.voxels[0], hu(0))
    np.testing.assert_array_equal(volume.voxels[1], phantom.stored_values(1) * np.float32(2) - 1024)
    np.testing.assert_array_equal(volume.voxels[2], hu(2))
    assert [source.frame for source in volume.sources] == [2, 3, 1]
    assert volume.acquisition.kernel == "B30f"
    assert volume.spacing_zyx_mm == pytest.approx((2.5, 0.7, 0.8))


def test_an_enhanced_image_that_calls_itself_original_leaves_out_frames_that_say_otherwise(tmp_path: Path) -> None:
    values = np.stack([phantom.stored_values(index) for index in range(3)])
    ds = phantom.enhanced_ct([(0, 0, 2.5 * n) for n in range(3)], values)
    for frame, kind in zip(ds.PerFrameFunctionalGroupsSequence, ("NONE", "NONE", "MPR"), strict=True):
        frame.CTImageFrameTypeSequence = [Dataset()]
        frame.CTImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", kind]
    volume = read([ds], tmp_path)
    assert [source.frame for source in volume.sources] == [1, 2]
    assert volume.notes == ("Reformatted or computed frames left out, by their own type: 1.",)


@pytest.mark.parametrize("shift", [0.0, 1.25])
def test_reads_one_of_two_enhanced_images_of_the_same_region(tmp_path: Path, shift: float) -> None:
    images = []
    for number in (1, 2):
        values = np.stack([phantom.stored_values(10 * number + index) for index in range(4)])
        places = [(0, 0, 2.5 * n + shift * number) for n in range(4)]
        images.append(phantom.change(phantom.enhanced_ct(places, values), SOPInstanceUID=f"1.2.3.{number}"))
    volume = read(images, tmp_path)
    assert [(source.instance_uid, source.frame) for source in volume.sources] == [("1.2.3.1", n) for n in (1, 2, 3, 4)]
    assert "told apart by multi-frame image" in volume.notes[0]


def test_reads_one_of_two_labelled_phases_of_an_enhanced_image(tmp_path: Path) -> None:
    values = np.stack([phantom.stored_values(n) for n in range(6)])
    ds = phantom.enhanced_ct([(0, 0, 2.5 * (n % 3)) for n in range(6)], values)
    for n, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        frame.FrameContentSequence = [phantom.change(Dataset(), TemporalPositionIndex=1 + n // 3)]
    volume = read([ds], tmp_path)
    assert [source.frame for source in volume.sources] == [1, 2, 3]
    assert "told apart by temporal position" in volume.notes[0]


def test_reads_one_of_two_scans_whose_slices_lie_between_each_other(tmp_path: Path) -> None:
    first, second = series(5, AcquisitionNumber="1"), series(5, AcquisitionNumber="2")
    for n, ds in enumerate(second):
        ds.SOPInstanceUID = f"{phantom.SERIES}.9{n}"
        ds.ImagePositionPatient[2] += 0.4
    volume = read([*first, *second], tmp_path)
    assert [source.instance_uid for source in volume.sources] == [f"{phantom.SERIES}.{n}" for n in range(5)]
    assert volume.even_steps
    assert "told apart by acquisition number" in volume.notes[0]


def test_leaves_out_copies_with_equal_pixels(tmp_path: Path) -> None:
    datasets = series(3)
    copy = phantom.ct(1, SOPInstanceUID="1.2.9", ImagePositionPatient=datasets[1].ImagePositionPatient)
    volume = read([*datasets, copy], tmp_path)
    assert len(volume.sources) == 3
    assert "Exact copies" in volume.notes[0]


def test_takes_one_phase_where_two_share_positions(tmp_path: Path) -> None:
    first, second = series(4, AcquisitionNumber=1), series(4, AcquisitionNumber=2)
    for n, ds in enumerate(second):
        phantom.change(phantom.pixels(ds, phantom.stored_values(50 + n)), SOPInstanceUID=f"1.2.8.{n}")
    volume = read(second + first, tmp_path)
    np.testing.assert_array_equal(volume.voxels[3], hu(3))
    assert "2 phases" in volume.notes[0]


def test_refuses_two_images_at_one_position(tmp_path: Path) -> None:
    datasets = series(3)
    other = phantom.ct(7, ImagePositionPatient=datasets[1].ImagePositionPatient)
    with pytest.raises(NotEligible, match="same position"):
        read([*datasets, other], tmp_path)


@pytest.mark.parametrize("fill", [-2000, -2048, -3024, -1999, -32768])
def test_masks_what_lies_outside_the_circle_and_keeps_its_value(tmp_path: Path, fill: int) -> None:
    datasets = series(2, RescaleIntercept=0)
    circle = np.zeros(phantom.SHAPE, dtype=bool)
    circle[2:-2, 2:-2] = True
    for n, ds in enumerate(datasets):
        phantom.pixels(ds, np.where(circle, hu(n), fill).astype(np.int16))
    volume = read(datasets, tmp_path)
    assert volume.padding is not None
    np.testing.assert_array_equal(volume.padding, [~circle, ~circle])
    assert set(volume.voxels[volume.padding]) == {fill}


@pytest.mark.parametrize("elements", [{"PixelPaddingValue": 63536}, {}])
def test_masks_fill_values_that_unsigned_pixels_hold_far_above_metal(
    tmp_path: Path, elements: dict[str, object]
) -> None:
    values = phantom.stored_values(0)
    values[:2] = 63536
    values[5, 5:] = 31_000
    volume = read([phantom.ct(1, values, **elements)], tmp_path)
    assert volume.padding is not None
    np.testing.assert_array_equal(volume.padding[0], values == 63536)
    assert volume.notes == ()


@pytest.mark.parametrize("value", [-100_000, 40_000, 100_000])
def test_refuses_values_that_no_ct_image_can_store(tmp_path: Path, value: int) -> None:
    values = phantom.stored_values(0).astype(np.int32)
    values[3, 3] = value
    values[3, 4] = min(value, -30_000)
    with pytest.raises(NotEligible, match="more than 16 bits"):
        read([phantom.ct(1, values, RescaleSlope=0.01)], tmp_path)


def test_reads_pixels_of_32_bits_that_hold_16(tmp_path: Path) -> None:
    values = phantom.stored_values(0).astype(np.int32)
    assert read([phantom.ct(1, values)], tmp_path).voxels[0, 0, 0] == -1024


def test_takes_the_original_of_two_images_at_one_place(tmp_path: Path) -> None:
    originals, derived = series(3), series(3)
    for n, ds in enumerate(derived):
        phantom.change(ds, SOPInstanceUID=f"1.0.{n}", ImageType=["DERIVED", "PRIMARY", "AXIAL"], RescaleIntercept=-1000)
    volume = read([*derived, *originals], tmp_path)
    assert {source.instance_uid for source in volume.sources} == {ds.SOPInstanceUID for ds in originals}
    assert "told apart by image type" in volume.notes[0]


def test_every_second_slice_called_derived_makes_no_second_scan(tmp_path: Path) -> None:
    datasets = series(6)
    for ds in datasets[1::2]:
        ds.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    assert len(read(datasets, tmp_path).sources) == 6


def test_masks_declared_padding(tmp_path: Path) -> None:
    values = (phantom.stored_values(0) + 100).astype(np.uint16)
    values[:2] = 0
    volume = read([phantom.ct(1, values, PixelPaddingValue=0)], tmp_path)
    assert volume.padding is not None
    np.testing.assert_array_equal(volume.padding[0], values == 0)
    assert volume.voxels[0, 0, 0] == -1024


def test_does_not_believe_padding_that_is_tissue(tmp_path: Path) -> None:
    values = phantom.stored_values(0)
    volume = read([phantom.ct(1, values, PixelPaddingValue=int(values[0, 1]))], tmp_path)
    assert volume.padding is None
    assert "not taken as padding" in volume.notes[0]


def test_a_few_slices_may_have_padding_and_others_none(tmp_path: Path) -> None:
    datasets = series(3, RescaleIntercept=0)
    for n, ds in enumerate(datasets):
        phantom.pixels(ds, hu(n).astype(np.int16))
    filled = hu(1).astype(np.int16)
    filled[0] = -2000
    phantom.pixels(datasets[1], filled)
    volume = read(datasets, tmp_path)
    assert volume.padding is not None
    assert volume.padding.any(axis=(1, 2)).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full(phantom.SHAPE, 1024), "no more than two"),
        (np.arange(192).reshape(phantom.SHAPE) % 2 + 1024, "no more than two"),
        (np.arange(192).reshape(phantom.SHAPE) + 1024, "below that of water"),
    ],
)
def test_refuses_values_that_cannot_be_hounsfield_units(tmp_path: Path, values: NDArray[np.int64], words: str) -> None:
    with pytest.raises(NotEligible, match=words):
        read([phantom.ct(n, values.astype(np.uint16)) for n in range(3)], tmp_path)


def test_refuses_values_far_outside(tmp_path: Path) -> None:
    with pytest.raises(NotEligible, match="far outside"):
        read([phantom.ct(RescaleSlope=100)], tmp_path)


def test_refuses_a_series_with_one_truncated_file(tmp_path: Path) -> None:
    paths = phantom.save_series(series(3), tmp_path)
    paths[1].write_bytes(paths[1].read_bytes()[:-50])
    with pytest.raises(NotEligible, match="truncated"):
        read_volume(paths)


def test_refuses_colour(tmp_path: Path) -> None:
    with pytest.raises(NotEligible, match="colour"):
        read(series(2, SamplesPerPixel=3, PhotometricInterpretation="RGB"), tmp_path)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"])
def test_refuses_images_without(tmp_path: Path, keyword: str) -> None:
    with pytest.raises(NotEligible):
        read([phantom.ct(**{keyword: REMOVED})], tmp_path)


def test_refuses_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotEligible, match="no images"):
        read_volume([])


def test_tells_of_lossy_compression(tmp_path: Path) -> None:
    assert "with loss" in read(series(2, LossyImageCompression="01"), tmp_path).notes[0]


def test_reports_progress_slice_by_slice(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    paths = phantom.save_series(series(3), tmp_path)
    read_volume(paths, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_no_reason_names_the_patient(tmp_path: Path) -> None:
    with pytest.raises(NotEligible) as refused:
        read(series(2, Modality="MR"), tmp_path)
    assert "PHANTOM" not in refused.value.reason


@pytest.fixture
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


class TestWithRealFiles:
    pytestmark = shared.needs_shared_data

    def test_reads_a_whole_chest(self, unpacked: Path) -> None:
        paths = [path for path in shared.unpack("ct-cptac-c3n-00249", unpacked) if path.suffix == ".dcm"]
        volume = read_volume(paths)
        assert volume.voxels.shape == (102, 512, 512)
        assert volume.spacing_zyx_mm == pytest.approx((3, 0.8828125, 0.8828125), abs=1e-4)
        assert volume.even_steps
        assert (volume.voxels.min(), volume.padding, volume.notes) == (-1024, None, ())
        assert volume.acquisition.kernel == "B40f"

    def test_masks_the_corners_of_a_toshiba_series(self, unpacked: Path) -> None:
        paths = [path for path in shared.unpack("ct-tcga-ov-09-2043", unpacked) if path.suffix == ".dcm"]
        volume = read_volume(paths[:20])
        assert volume.padding is not None
        np.testing.assert_array_equal(volume.padding, volume.voxels == -2048)
        assert 0.2 < volume.padding.mean() < 0.4

    def test_reads_uneven_steps_and_odd_numbers(self, unpacked: Path) -> None:
        volume = read_volume(shared.unpack("ct-tcga-lihc-a10x", unpacked))
        steps = np.diff(volume.slice_origins_mm[:, 2])
        assert (len(volume.sources), steps.min(), steps.max()) == (34, 6, 16)
        assert not volume.even_steps
        assert volume.spacing_zyx_mm == pytest.approx((8, 0.6757812, 0.6757812))
        assert volume.voxels.min() == -1024

    def test_reads_a_tilted_gantry_with_a_gap(self, unpacked: Path) -> None:
        volume = read_volume(shared.unpack("ct-phantom-philips", unpacked))
        assert volume.gantry_tilt_deg == pytest.approx(-18.5, abs=0.01)
        assert "Slices missing: 25, in gaps: 1" in volume.notes[0]
        np.testing.assert_allclose(np.diff(volume.slice_origins_mm[1:], axis=0), [[0, 0, 2.5]] * 10, atol=1e-6)

    def test_a_tilted_stack_lies_where_highdicom_puts_each_slice(self, unpacked: Path) -> None:
        paths = shared.unpack("ct-phantom-philips", unpacked)
        volume = read_volume([path for path in paths if path.name != "I30.dcm"])
        for z, source in enumerate(volume.sources):
            ds = next(ds for ds in map(dcmread, paths) if ds.SOPInstanceUID == source.instance_uid)
            transform = hd.spatial.PixelToReferenceTransformer(
                image_position=ds.ImagePositionPatient,
                image_orientation=ds.ImageOrientationPatient,
                pixel_spacing=ds.PixelSpacing,
            )
            corner = transform(np.array([[511, 300]]))[0]  # column, row
            np.testing.assert_allclose((volume.affine @ [z, 300, 511, 1])[:3], corner, atol=1e-4)

    def test_refuses_a_segmentation_stored_as_ct(self, unpacked: Path) -> None:
        with pytest.raises(NotEligible, match="modality says SEG"):
            read_volume(shared.unpack("ct-lungfcp-0001-seg", unpacked))

    @pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
    def test_every_odd_file_is_read_or_refused_in_words(self, unpacked: Path) -> None:
        fates = {"read": 0, "refused": 0}
        reasons: list[str] = []
        for path in shared.unpack("odd-dicom", unpacked):
            try:
                volume = read_volume([path])
            except NotEligible as exc:
                reasons.append(exc.reason)
                fates["refused"] += 1
            else:
                assert np.isfinite(volume.voxels).all()
                fates["read"] += 1
        assert all(len(reason) > 20 for reason in reasons)
        assert fates == {"read": 30, "refused": 322}


@pytest.mark.parametrize("step", [0.625, 1.25, 2.5])
def test_positions_rounded_to_whole_millimetres_give_the_even_grid_and_keep_what_files_say(
    tmp_path: Path, step: float
) -> None:
    datasets = series(20, step=(0.0, 0.0, step), start=(-250.0, -231.5, -63.2), SliceThickness=step)
    for ds in datasets:
        ds.ImagePositionPatient = [-250, -231.5, round(ds.ImagePositionPatient[2])]
    volume = read(datasets, tmp_path)
    assert [source.instance_uid for source in volume.sources] == [f"{phantom.SERIES}.{n}" for n in range(20)]
    assert volume.even_steps
    assert volume.spacing_zyx_mm[0] == step
    assert volume.affine[2, 0] == step
    np.testing.assert_array_equal(volume.slice_origins_mm[:, 2], [ds.ImagePositionPatient[2] for ds in datasets])
    assert volume.notes == (
        f"Slice positions are written in whole millimetres. They are those of an even step of {step} mm, rounded; the "
        "even step was used.",
    )


def test_frames_of_a_dynamic_multi_frame_image_are_not_analysed(tmp_path: Path) -> None:
    positions = [(0.0, 0.0, 5.0 * place) for _ in range(12) for place in range(4)]
    ds = phantom.enhanced_ct(positions, np.stack([phantom.stored_values(n) for n in range(48)]))
    for index, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        content = Dataset()
        content.TemporalPositionIndex = index // 4 + 1
        frame.FrameContentSequence = [content]
    with pytest.raises(NotEligible, match=r"dynamic series.*: about 4 places, each imaged about 12 times"):
        read([ds], tmp_path)
