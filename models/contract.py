"""What the service and the networks say to each other: arrays in stated units, and findings.

numpy only: imports neither torch nor anything of DICOM, so every room may read these types.
A *finding* is what a pipeline returns; node/dicom/write makes DICOM objects of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Code = tuple[str, str, str]
"""(value, coding scheme designator, meaning), e.g. ("39607008", "SCT", "Lung")."""


class ModelError(Exception):
    """A network cannot do what was asked (weights missing or wrong, array of the wrong shape, result not finite)."""


@dataclass(frozen=True)
class SourceRef:
    """One received image, or one frame of it."""

    instance_uid: str
    frame: int | None = None
    """1-based frame number of a multi-frame image; None for a single-frame image."""


@dataclass(frozen=True)
class Acquisition:
    """How the images were made, as far as their headers say. None means the header does not say."""

    modality: str = ""
    manufacturer: str = ""
    scanner: str = ""
    kernel: str = ""
    kvp: float | None = None
    exposure_mas: float | None = None
    slice_thickness_mm: float | None = None
    body_part: str = ""
    contrast_agent: str = ""
    image_type: tuple[str, ...] = ()
    patient_age_years: float | None = None
    descriptions: tuple[str, ...] = ()
    """Series Description, Protocol Name, Study Description, as far as given: nearest to the images first."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A stack of axial-like CT slices, ordered along the slice normal.

    voxels              float32 (Z, Y, X), HU
    affine              float64 (4, 4): (z, y, x, 1) index → (L, P, S, 1) mm; carries gantry tilt as shear
    spacing_zyx_mm      (step between slices along the normal, row spacing, column spacing)
    slice_origins_mm    float64 (Z, 3): ImagePositionPatient of each slice, exact also where steps are uneven
    sources             one per slice
    padding             bool (Z, Y, X): outside the reconstruction circle; None where there is none
    even_steps          False where the affine is only the best fit of uneven slice positions
    notes               what the reader should know (duplicate positions dropped, slices missing…)
    """

    voxels: FloatArray
    affine: NDArray[np.float64]
    spacing_zyx_mm: tuple[float, float, float]
    slice_origins_mm: NDArray[np.float64]
    sources: tuple[SourceRef, ...]
    acquisition: Acquisition = field(default_factory=Acquisition)
    padding: BoolArray | None = None
    even_steps: bool = True
    gantry_tilt_deg: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One projection image, bright = dense, whatever the photometric interpretation of the file.

    pixels              float32 (Y, X), in stored units after the modality LUT, MONOCHROME1 turned round
    value_range         (lowest, highest) value that the stored bits allow, in the same units
    value_step          between neighbouring values
    spacing_yx_mm       at the patient where the header gives it, else at the detector; None where neither is there
    inverted            True where the file was MONOCHROME1: write turns the result back
    window              (centre, width) after inversion, None where the header has none
    view                "PA", "AP", "FRONTAL" (either of them), "LL"… or ""
    for_presentation    False for FOR PROCESSING images
    intensity           how values follow exposure: "LIN", "LOG", "DISP", or "" where the header does not say
    """

    pixels: FloatArray
    value_range: tuple[float, float]
    source: SourceRef
    value_step: float = 1.0
    spacing_yx_mm: tuple[float, float] | None = None
    acquisition: Acquisition = field(default_factory=Acquisition)
    padding: BoolArray | None = None
    inverted: bool = False
    window: tuple[float, float] | None = None
    view: str = ""
    for_presentation: bool = True
    intensity: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelIdentity:
    """Which network, which weights: enough to find them again in ten years."""

    name: str
    version: str
    weights_sha256: str
    training: str = ""
    """One sentence for the reader: on what it was trained ("simulated low-dose CT …")."""


@dataclass(frozen=True)
class Analysis:
    """One line of "what was done and what was not", said in the SR for every study."""

    name: str
    outcome: Literal["done", "not done", "withheld", "failed"]
    reason: str = ""
    """In plain words, without patient data. Empty only where the outcome is "done"."""
    model: ModelIdentity | None = None
    duration_s: float | None = None
    """For the timeline; never written into a DICOM object (a re-run must make the same bytes)."""
    looks_for: str = ""
    """Kinds of finding that it would report ("lung nodules from 4 mm on"); empty where it makes images or numbers."""


@dataclass(frozen=True)
class Measurement:
    """A number with its unit, about the whole series ("noise before", "noise after")."""

    name: Code
    value: float
    unit: Code
    method: str = ""
    """How it was measured, one phrase."""
    group: str = ""
    """"input", "denoised"…: to which image it applies."""


@dataclass(frozen=True)
class Score:
    """A graded quality, with its scale.

    per_slice       of every slice of the Volume, where the value is of the whole series
    poor_below      where a slice is called poor; None where the scale knows no such limit
    slice_index     the slice (0-based) that the value is of; None for the whole series
    """

    name: Code
    value: float
    scale: tuple[float, float]
    model: ModelIdentity
    per_slice: tuple[float, ...] = ()
    poor_below: float | None = None
    slice_index: int | None = None
    applies_to: str = "input"
    note: str = ""

    @property
    def poor(self) -> tuple[int, ...]:
        """Slices (0-based) that a reader would call poor."""
        limit = self.poor_below
        return () if limit is None else tuple(k for k, score in enumerate(self.per_slice) if score < limit)


@dataclass(frozen=True, eq=False)
class Quality:
    """What a network says of the quality of each slice of a series; `Score` is what a reader is told of it.

    levels              float32 (K,): the scores that the probabilities are of, worst first
    probabilities       float32 (S, K), rows sum to 1; S slices, all of the Volume, in its order
    scores, spreads     float32 (S,): their mean and standard deviation
    median, low         of the scores; `low` is their 10th percentile
    poor                slices (0-based) that a reader would call poor
    not_applicable      why nothing was scored, in plain words; "" where something was, and only there S > 0
    """

    levels: FloatArray
    probabilities: FloatArray
    scores: FloatArray
    spreads: FloatArray
    median: float
    low: float
    poor: tuple[int, ...]
    not_applicable: str = ""


@dataclass(frozen=True, eq=False)
class Lesion:
    """A finding at a place.

    mask                bool (Z, Y, X) of the source grid, True inside; never empty
    slice_index         slice (0-based, of the Volume) on which the axes are measured
    long_axis_px        ((x, y), (x, y)) end points, pixel centres at whole numbers, column first
    short_axis_px       likewise
    tracking_id         stable over revisions of the same study
    """

    tracking_id: str
    category: Code
    site: Code
    laterality: Code | None
    mask: BoolArray
    slice_index: int
    long_axis_px: tuple[tuple[float, float], tuple[float, float]]
    short_axis_px: tuple[tuple[float, float], tuple[float, float]]
    long_axis_mm: float
    short_axis_mm: float
    volume_mm3: float
    score: float
    operating_point: float
    model: ModelIdentity
    seen_in: tuple[str, ...] = ("input",)


@dataclass(frozen=True, eq=False)
class Image:
    """A derived image on the grid of its source.

    array               float32, shape and unit of the source (HU for CT)
    kind                short and fixed, part of the UIDs: "denoised", "restored"
    description         for the reader: what was done, and by which model
    derivation          code of DCM context group 7203, e.g. ("113087", "DCM", "Smoothing")
    checks              what was measured before it was let out: name → words ("HU shift in lung" → "0.3 HU (limit 5)")
    """

    kind: str
    array: FloatArray
    description: str
    derivation: Code
    model: ModelIdentity
    checks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Map:
    """A number per pixel of the source, to be looked at beside it, never measured on.

    array               float32 (Y, X), unit of the source
    kind                short and fixed, part of the UIDs: "change", "uncertainty"
    title               for the reader, a phrase ("Restored minus received")
    limits              (value at the bottom of the colour bar, at its top); symmetrical about 0 where signs count
    unit                for the colour bar, in words
    explanation         what it shows and what it does not, in sentences
    """

    kind: str
    array: FloatArray
    title: str
    limits: tuple[float, float]
    unit: str
    explanation: str
    model: ModelIdentity


@dataclass(frozen=True, eq=False)
class Findings:
    """All that a pipeline says about one series. An empty one is a statement too: its analyses say what was done."""

    pipeline: str
    version: str
    analyses: tuple[Analysis, ...]
    images: tuple[Image, ...] = ()
    maps: tuple[Map, ...] = ()
    lesions: tuple[Lesion, ...] = ()
    scores: tuple[Score, ...] = ()
    quality: Quality | None = None
    """What `scores` sum up, slice by slice; for the database."""
    measurements: tuple[Measurement, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def weights_digest(self) -> str:
        """All weights that had a part in it, for the deterministic UIDs."""
        return "+".join(sorted({a.model.weights_sha256 for a in self.analyses if a.model is not None}))
