"""What was put into a series held against what the pipeline told of it: found by place, and told in a few numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from node.errors import ConfigurationError

if TYPE_CHECKING:
    from models.contract import Findings, FloatArray, Lesion, Volume
    from models.lefusion.insert import Inserted

State = Literal["found", "missed", "marked without it"]
"""The last: something is marked at this place in the series without lesions too, so that a mark says nothing."""

SIZES_MM = (6.0, 10.0)
CONTRASTS_HU = {"lungs": (200.0, 500.0), "liver": (25.0, 50.0)}
SAME_PLACE_MM = 0.05


@dataclass(frozen=True)
class Judged:
    """One lesion that was put in, and what became of it. `found_…`, `score` and `contrast_kept` None where unknown.

    place_mm            LPS                             contrast_hu     mean change that it made
    contrast_kept       share that is left of it in the denoised images
    """

    number: int
    kind: str
    place_mm: tuple[float, float, float]
    diameter_mm: float
    contrast_hu: float
    long_mm: float
    short_mm: float
    state: State
    score: float | None = None
    found_long_mm: float | None = None
    found_short_mm: float | None = None
    contrast_kept: float | None = None


@dataclass(frozen=True)
class Judgement:
    """A whole series. `false_…` count marks where no lesion was put in: before and after lesions were."""

    lesions: tuple[Judged, ...]
    false_before: int
    false_after: int

    @property
    def counted(self) -> list[Judged]:
        """Without those of which a mark says nothing."""
        return [lesion for lesion in self.lesions if lesion.state != "marked without it"]

    @property
    def found(self) -> list[Judged]:
        return [lesion for lesion in self.lesions if lesion.state == "found"]

    @property
    def share(self) -> float:
        """Found of counted; NaN of none."""
        return len(self.found) / len(self.counted) if self.counted else math.nan


def judge(
    truth: Sequence[Inserted],
    volume: Volume,
    findings: Findings,
    before: Findings,
    *,
    lesion_change: FloatArray | None = None,
) -> Judgement:
    """Each lesion with the surest mark on it; the detector's evaluation on scans has the same rule of what lies on it.

    findings, before    of the series with lesions, and without
    lesion_change       denoised less received images (Z, Y, X), of the series with lesions; None: none were returned
    """
    from models.deeplesion.evaluate import LEAST_REACH_MM

    centres = [_mm(volume, lesion.centre) for lesion in truth]
    reaches = [max(lesion.diameter_mm / 2, LEAST_REACH_MM) for lesion in truth]
    after, earlier = (_places(each.lesions, volume) for each in (findings, before))
    touched = [_near(centre, reach, after) for centre, reach in zip(centres, reaches, strict=True)]
    judged = []
    for number, (lesion, centre, reach, marks) in enumerate(
        zip(truth, centres, reaches, touched, strict=True), start=1
    ):
        state: State = "found" if marks else "missed"
        if _near(centre, reach, earlier):
            state = "marked without it"
        best = max((findings.lesions[mark] for mark in marks), key=lambda mark: mark.score, default=None)
        if state != "found":
            best = None
        kept = None
        if lesion_change is not None and lesion.contrast_hu:
            kept = 1 + float(lesion_change[lesion.box][lesion.mask].mean()) / lesion.contrast_hu
        judged.append(
            Judged(
                number=number,
                kind=lesion.kind,
                place_mm=(round(centre[0], 2), round(centre[1], 2), round(centre[2], 2)),
                diameter_mm=round(lesion.diameter_mm, 2),
                contrast_hu=round(lesion.contrast_hu, 1),
                long_mm=round(lesion.recist.long_mm, 2),
                short_mm=round(lesion.recist.short_mm, 2),
                state=state,
                score=None if best is None else round(best.score, 3),
                found_long_mm=None if best is None else round(best.long_axis_mm, 2),
                found_short_mm=None if best is None else round(best.short_axis_mm, 2),
                contrast_kept=None if kept is None else round(kept, 3),
            )
        )
    on_lesions = {mark for marks in touched for mark in marks}
    return Judgement(tuple(judged), len(earlier), len(after) - len(on_lesions))


def table_of(judgement: Judgement, organ: str) -> list[list[object]]:
    """(lesions, put in, found, missed, share with its interval, contrast kept), all, by size, by contrast."""
    sizes, contrasts = SIZES_MM, CONTRASTS_HU[organ]
    rows = [_row("all", judgement.lesions)]
    for words, within in _classes(sizes, "mm"):
        rows.append(_row(words, [one for one in judgement.lesions if within(one.long_mm)]))
    for words, within in _classes(contrasts, "HU"):
        rows.append(_row(words, [one for one in judgement.lesions if within(abs(one.contrast_hu))]))
    return rows


def axes_words(judgement: Judgement) -> str:
    """How far the axes of what was found are from the truth; "" where nothing was."""
    pairs = [
        (one.found_long_mm - one.long_mm, one.found_short_mm - one.short_mm)
        for one in judgement.found
        if one.found_long_mm is not None and one.found_short_mm is not None
    ]
    if not pairs:
        return ""
    long, short = zip(*pairs, strict=True)
    return (
        f"axes of what was found, less the truth: long {_spread(long)}, short {_spread(short)}"
        " (median, and the largest either way)"
    )


def wilson(found: int, of: int) -> tuple[float, float]:
    """95 % interval of a share, by Wilson's score; (0, 1) of none."""
    from scipy.stats import binomtest

    if not of:
        return 0.0, 1.0
    interval = binomtest(found, of).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def as_data(judgement: Judgement) -> dict[str, Any]:
    low, high = wilson(len(judgement.found), len(judgement.counted))
    return {
        "counted": len(judgement.counted),
        "found": len(judgement.found),
        "share": None if math.isnan(judgement.share) else round(judgement.share, 4),
        "interval": [round(low, 4), round(high, 4)],
        "false_marks_before": judgement.false_before,
        "false_marks_after": judgement.false_after,
        "lesions": [asdict(lesion) for lesion in judgement.lesions],
    }


@dataclass(frozen=True)
class Change:
    """Numbers of the lesions found then and not now, and now and not then."""

    lost: tuple[int, ...]
    gained: tuple[int, ...]

    @property
    def worse(self) -> bool:
        return len(self.lost) > len(self.gained)

    def words(self) -> str:
        said = [
            f"{name} {', '.join(map(str, numbers))}"
            for name, numbers in (("lost", self.lost), ("gained", self.gained))
            if numbers
        ]
        return "the same lesions are found as then" if not said else "of the lesions then: " + "; ".join(said)


def change_since(earlier: dict[str, Any], judgement: Judgement) -> Change:
    """raises ConfigurationError    the earlier one is no such document, or of other lesions"""
    try:
        then = [(tuple(map(float, one["place_mm"])), str(one["state"])) for one in earlier["lesions"]]
    except (KeyError, TypeError, ValueError) as exc:
        raise ConfigurationError("--against: a document that `accept` wrote is wanted") from exc
    now = judgement.lesions
    same = len(then) == len(now) and all(
        math.dist(place, lesion.place_mm) <= SAME_PLACE_MM for (place, _), lesion in zip(then, now, strict=True)
    )
    if not same:
        raise ConfigurationError("--against: it is of other lesions; give the same series, seed and options")
    pairs = [(lesion.number, was, lesion.state) for (_, was), lesion in zip(then, now, strict=True)]
    return Change(
        tuple(number for number, was, state in pairs if was == "found" and state == "missed"),
        tuple(number for number, was, state in pairs if was == "missed" and state == "found"),
    )


def _row(words: str, lesions: Sequence[Judged]) -> list[object]:
    part = Judgement(tuple(lesions), 0, 0)
    found, counted = len(part.found), len(part.counted)
    kept = [one.contrast_kept for one in lesions if one.contrast_kept is not None]
    low, high = wilson(found, counted)
    share = "" if not counted else f"{100 * part.share:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
    return [words, len(lesions), found, counted - found, share, f"{100 * median(kept):.0f} %" if kept else ""]


def _classes(limits: tuple[float, float], unit: str) -> list[tuple[str, Callable[[float], bool]]]:
    low, high = limits
    return [
        (f"below {low:g} {unit}", lambda value: value < low),
        (f"{low:g} to {high:g} {unit}", lambda value: low <= value < high),
        (f"from {high:g} {unit}", lambda value: value >= high),
    ]


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):+.1f} mm [{min(values):+.1f}, {max(values):+.1f}]"


def _places(lesions: Sequence[Lesion], volume: Volume) -> list[tuple[float, float, float]]:
    import numpy as np

    centres = (tuple(float(value) for value in np.argwhere(lesion.mask).mean(0)) for lesion in lesions)
    return [_mm(volume, centre) for centre in centres]


def _mm(volume: Volume, index_zyx: Iterable[float]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in (volume.affine @ (*index_zyx, 1.0))[:3])
    return x, y, z


def _near(centre: Sequence[float], reach_mm: float, places: Sequence[Sequence[float]]) -> list[int]:
    return [index for index, place in enumerate(places) if math.dist(centre, place) <= reach_mm]
