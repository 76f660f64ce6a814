"""What the headers say of each slice: where it is, how its numbers become HU, which scan it belongs to.

One slice is one single-frame CT image, or one frame of an enhanced multi-frame CT (PS3.3 C.7.6.16): attributes are
looked for in the frame's own functional groups, then in the shared ones, then at the top.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from pydicom.dataset import Dataset

from models.contract import Acquisition, SourceRef
from node.dicom.elements import integer, item, items, number, numbers, parse, text, texts
from node.dicom.header import FRAME_ANATOMY, SHARED_FUNCTIONAL_GROUPS, body_part, kernel
from node.errors import NotEligible, NotUnderstood

_PIXEL_DATA = 0x7FE00008
"""Float Pixel Data: the lowest of the three pixel data tags."""
_MOST_FRAMES = 20_000
_LOCATION_TOLERANCE = 0.1
"""Share of a step by which steps between slice locations may differ."""
_DESCRIPTIONS = (0x0008103E, 0x00181030, 0x00081030)
"""Series Description, Protocol Name, Study Description."""

Vector = tuple[float, ...]


def _label(dataset: Dataset, tag: int) -> str:
    """A number, from text or binary representation, as text; else the text itself; "" where absent."""
    found = number(dataset, tag)
    return text(dataset, tag) if found is None else f"{found:.10g}"


def _derived(dataset: Dataset, tag: int) -> str:
    """ "1" of a derived image, "0" of any other: the original comes first; "" where no type is stated."""
    stated = texts(dataset, tag)[:1]
    return str(int(stated[0].upper() == "DERIVED")) if stated else ""


ACQUISITION_NUMBER, TEMPORAL_POSITION = "acquisition number", "temporal position"
CARDIAC_PHASE, RESPIRATORY_PHASE, DESCRIPTION = "cardiac phase", "respiratory phase", "series description"
ACQUISITION_TIME, CONTENT_TIME, IMAGE_TYPE = "acquisition time", "content time", "image type"
TRIGGER_TIME, IMAGE_COMMENTS = "trigger time", "image comments"
MULTI_FRAME = "multi-frame image"
"""Which of several a frame is of: frames of one belong together."""
_PHASE_KEYS: tuple[tuple[str, int, int, Callable[[Dataset, int], str]], ...] = (
    (ACQUISITION_NUMBER, 0x00200012, 0x00209156, _label),
    (TEMPORAL_POSITION, 0x00200100, 0x00209128, _label),
    (CARDIAC_PHASE, 0x00209241, 0x00209241, _label),
    (TRIGGER_TIME, 0x00181060, 0x00209153, _label),
    (RESPIRATORY_PHASE, 0x00209245, 0x00209245, _label),
    (IMAGE_TYPE, 0x00080008, 0x00080008, _derived),
    (DESCRIPTION, 0x0008103E, 0x0008103E, text),
    (IMAGE_COMMENTS, 0x00204000, 0x00209158, text),
    ("stack", 0x00209056, 0x00209056, text),
    ("contrast agent", 0x00180010, 0x00180010, text),
    ("kernel", 0x00181210, 0x00181210, text),
    ("tube voltage", 0x00180060, 0x00180060, text),
    (ACQUISITION_TIME, 0x00080032, 0x00189074, text),
    (CONTENT_TIME, 0x00080033, 0x00189151, text),
)
"""What may tell two phases in one series apart: (words, attribute of the image, of the frame, how it is read)."""
_PHASE_GROUPS = (0x00209111, 0x00189118, 0x00209253)
"""Frame Content, Cardiac Synchronization, Respiratory Synchronization."""


@dataclass(frozen=True)
class Frame:
    """One slice as its header describes it; `index` counts frames of the file from 0."""

    path: Path
    index: int
    source: SourceRef
    series_instance_uid: str
    frame_of_reference_uid: str
    modality: str
    image_type: tuple[str, ...]
    rows: int
    columns: int
    position: Vector
    orientation: Vector
    spacing: Vector
    slope: float | None
    intercept: float | None
    rescale_type: str
    slice_thickness_mm: float | None
    spacing_between_slices_mm: float | None
    exposure_mas: float | None
    phases: tuple[tuple[str, str], ...]
    instance_number: int | None = None
    """Of a frame: its place in the file."""
    patient_id: str = ""
    samples: int = 1
    """Values of a pixel: a page in colour has three."""
    slice_location_mm: float | None = None

    @property
    def is_of_several(self) -> bool:
        """Whether it is a frame of a multi-frame image, which tells of each frame by itself."""
        return bool(dict(self.phases).get(MULTI_FRAME))

    @property
    def is_localiser(self) -> bool:
        return "LOCALIZER" in self.image_type

    @property
    def order(self) -> tuple[str, int]:
        """A total order that does not depend on the order of files."""
        return self.source.instance_uid, self.index


@dataclass(frozen=True)
class _Groups:
    """Where to look for a frame's attributes, nearest first."""

    own: Dataset
    shared: Dataset
    top: Dataset

    def within(self, sequence: int) -> tuple[Dataset, ...]:
        return item(self.own, sequence), item(self.shared, sequence), self.top

    def numbers(self, sequence: int, tag: int) -> Vector:
        return next((found for place in self.within(sequence) if (found := numbers(place, tag))), ())

    def number(self, sequence: int, tag: int) -> float | None:
        found = self.numbers(sequence, tag)
        return found[0] if found else None

    def texts(self, sequence: int, tag: int) -> tuple[str, ...]:
        return next((found for place in self.within(sequence) if (found := texts(place, tag))), ())


def frames_of(path: Path) -> tuple[list[Frame], Acquisition]:
    """All slices of one file, and how it was made.

    raises   NotEligible   unreadable, or not a CT image with everything that places it in space
    """
    try:
        dataset = parse(path, stop_at=_PIXEL_DATA)
    except NotUnderstood as exc:
        raise NotEligible(exc.reason) from exc
    count = integer(dataset, 0x00280008) or 1
    shared = item(dataset, SHARED_FUNCTIONAL_GROUPS)
    own = items(dataset, 0x52009230)
    if not own and len(shared) == 0 and count > 1:
        raise NotEligible("Several frames in one image, without saying where each is.")
    if own and (len(own) != count or count > _MOST_FRAMES):
        raise NotEligible("The number of frames and the descriptions of frames disagree.")
    groups = [_Groups(frame, shared, dataset) for frame in own] or [_Groups(Dataset(), shared, dataset)]
    multi_frame = bool(own) or len(shared) > 0
    found = [_frame(path, index, one, multi_frame=multi_frame) for index, one in enumerate(groups)]
    return found, _acquisition(groups[0])


def stated_steps_mm(frames: Sequence[Frame]) -> tuple[float, ...]:
    """What may be the step from slice to slice: as stated, between slice locations, and how thick slices are."""
    spacings = [abs(frame.spacing_between_slices_mm) for frame in frames if frame.spacing_between_slices_mm]
    locations = sorted(frame.slice_location_mm for frame in frames if frame.slice_location_mm is not None)
    apart = [after - before for before, after in pairwise(locations)] if len(locations) == len(frames) else []
    is_even = bool(apart) and max(apart) - min(apart) <= _LOCATION_TOLERANCE * max(apart)
    thicknesses = [frame.slice_thickness_mm for frame in frames if frame.slice_thickness_mm]
    return tuple(median(given) for given in (spacings, apart if is_even else [], thicknesses) if given)


def described(acquisition: Acquisition, frames: Iterable[Frame]) -> Acquisition:
    """With the median exposure of all slices: the tube current follows the patient."""
    exposures = [frame.exposure_mas for frame in frames if frame.exposure_mas is not None]
    return replace(acquisition, exposure_mas=float(median(exposures)) if exposures else None)


def _frame(path: Path, index: int, groups: _Groups, *, multi_frame: bool) -> Frame:
    top = groups.top
    position = groups.numbers(0x00209113, 0x00200032)
    orientation = groups.numbers(0x00209116, 0x00200037)
    spacing = groups.numbers(0x00289110, 0x00280030)
    image_type = groups.texts(0x00189329, 0x00089007) or texts(top, 0x00080008)
    return Frame(
        path=path,
        index=index,
        source=SourceRef(text(top, 0x00080018), index + 1 if multi_frame else None),
        series_instance_uid=text(top, 0x0020000E),
        frame_of_reference_uid=text(top, 0x00200052),
        modality=text(top, 0x00080060).upper(),
        image_type=tuple(part.upper() for part in image_type),
        rows=integer(top, 0x00280010) or 0,
        columns=integer(top, 0x00280011) or 0,
        position=position,
        orientation=orientation,
        spacing=spacing,
        slope=groups.number(0x00289145, 0x00281053),
        intercept=groups.number(0x00289145, 0x00281052),
        rescale_type=" ".join(dict.fromkeys(filter(None, groups.texts(0x00289145, 0x00281054)))).upper(),
        slice_thickness_mm=groups.number(0x00289110, 0x00180050),
        spacing_between_slices_mm=number(top, 0x00180088),
        exposure_mas=_exposure_mas(groups),
        phases=(*_phases(groups), (MULTI_FRAME, text(top, 0x00080018) if multi_frame else "")),
        instance_number=index + 1 if multi_frame else integer(top, 0x00200013),
        patient_id=text(top, 0x00100020),
        samples=integer(top, 0x00280002) or 1,
        slice_location_mm=number(top, 0x00201041),
    )


def _phases(groups: _Groups) -> tuple[tuple[str, str], ...]:
    places = [item(groups.own, sequence) for sequence in _PHASE_GROUPS]
    return tuple(
        (words, next(filter(None, (read(place, of_frame) for place in places)), "") or read(groups.top, of_image))
        for words, of_image, of_frame, read in _PHASE_KEYS
    )


def _exposure_mas(groups: _Groups) -> float | None:
    """Exposure in mAs: as stated, in µAs, of the frame, or tube current (mA) times exposure time (ms)."""
    stated = groups.number(0x00189321, 0x00189332)
    if stated is None:
        stated = number(groups.top, 0x00181152)
    if stated is None and (micro := number(groups.top, 0x00181153)) is not None:
        stated = micro / 1000
    current, time = number(groups.top, 0x00181151), number(groups.top, 0x00181150)
    if stated is None and current is not None and time is not None:
        stated = current * time / 1000
    return stated if stated is not None and stated > 0 else None


def _acquisition(groups: _Groups) -> Acquisition:
    top = groups.top
    contrast = item(top, 0x00180012)
    return Acquisition(
        modality=text(top, 0x00080060).upper(),
        manufacturer=text(top, 0x00080070),
        scanner=text(top, 0x00081090),
        kernel=kernel(top) or " ".join(groups.texts(0x00189314, 0x00181210)),
        kvp=groups.number(0x00189325, 0x00180060),
        slice_thickness_mm=groups.number(0x00289110, 0x00180050),
        body_part=body_part(top, item(groups.own, FRAME_ANATOMY), item(groups.shared, FRAME_ANATOMY)),
        contrast_agent=text(top, 0x00180010) or text(contrast, 0x00080104),
        image_type=tuple(part.upper() for part in texts(top, 0x00080008)),
        descriptions=tuple(filter(None, (text(top, tag) for tag in _DESCRIPTIONS))),
    )
