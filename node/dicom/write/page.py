"""The summary page and the text page, drawn: no patient's name on them, the same pixels on every run.

Pillow, and the DejaVu font that matplotlib carries (Latin, Greek, Cyrillic letters and the signs we use).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from models.contract import FloatArray

WIDTH: Final = 1200
HEIGHT: Final = 900
_MOST_TEXT_HEIGHT: Final = 4000
_MARGIN: Final = 30
_PANEL: Final = 360
_LARGE_PANEL: Final = 520
_PANEL_TOP: Final = 112
_ROW: Final = _PANEL + 66
_IN_A_ROW: Final = 3
MOST_SMALL_PANELS: Final = 6
_BAR_WIDTH: Final = 14
_POINTER: Final = 14
_WHOLE_FROM: Final = 10.0
_STRIP: Final = 150
_STRIP_PLOT: Final = 84
_UNKNOWN: Final = "\0"
_RUN_OF_UNKNOWN: Final = re.compile(r"\0(\s*\0)*")
_LEFTWARDS: Final = frozenset({"R", "AL"})
"""Bidirectional classes of letters that this layout would draw in the wrong order."""
_BACKGROUND: Final = (16, 18, 22)
_INK: Final = (236, 238, 242)
_QUIET: Final = (160, 168, 180)
_WARNING: Final = (255, 196, 80)
_GRID: Final = (52, 57, 66)


Colour = tuple[int, int, int]
Axis = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Panel:
    """One small picture with its scale.

    pixels          float32 (Y, X)
    aspect          height of a pixel over its width
    window          (value drawn in the first colour, value drawn in the last)
    colours         at even steps between; grey levels where none are given
    axes            whose ends are pointed at from outside, ((x, y), (x, y)) with pixel centres at whole numbers
    edges           what of the patient the left and the top edge are ("R", "A"), written beside the picture
    """

    title: str
    pixels: FloatArray
    aspect: float
    window: tuple[float, float]
    unit: str
    colours: tuple[Colour, ...] = ((0, 0, 0), (255, 255, 255))
    axes: tuple[Axis, ...] = ()
    edges: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Line:
    """One paragraph; `warning` in amber, `quiet` in grey."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class Strip:
    """Values along the slices of a series.

    scale           lowest and highest value that there can be
    limit           drawn across, values below it in amber; None for none
    ends            image numbers of the first and the last slice
    """

    title: str
    values: tuple[float, ...]
    scale: tuple[float, float]
    limit: float | None
    ends: tuple[int, int]


def summary(
    title: str, subtitle: str, panels: Sequence[Panel], lines: Sequence[Line], strip: Strip | None = None
) -> NDArray[np.uint8]:
    """uint8 (900, 1200, 3), taller by a strip: title, up to three panels in a row, the strip, the words that fit."""
    height = HEIGHT if strip is None else HEIGHT + _STRIP
    picture = Picture.new("RGB", (WIDTH, height), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    _head(draw, title, subtitle)
    top = _PANEL_TOP
    for number, panel in enumerate(panels[:3]):
        _draw_panel(picture, draw, panel, _MARGIN + number * (_PANEL + 30))
    if panels:
        top += _ROW
    if strip is not None:
        _draw_strip(draw, strip, top)
        top += _STRIP
    _draw_lines(draw, lines, top, height - _MARGIN)
    return np.asarray(picture, dtype=np.uint8)


def map_page(title: str, subtitle: str, panels: Sequence[Panel], lines: Sequence[Line]) -> NDArray[np.uint8]:
    """uint8 (900, 1200, 3): title, two large panels side by side, the words that fit."""
    picture = Picture.new("RGB", (WIDTH, HEIGHT), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    _head(draw, title, subtitle)
    for number, panel in enumerate(panels[:2]):
        _draw_panel(picture, draw, panel, _MARGIN + number * (WIDTH - _MARGIN) // 2, _LARGE_PANEL)
    _draw_lines(draw, lines, _PANEL_TOP + _LARGE_PANEL + 66, HEIGHT - _MARGIN)
    return np.asarray(picture, dtype=np.uint8)


def small_panels(title: str, subtitle: str, panels: Sequence[Panel], lines: Sequence[Line]) -> NDArray[np.uint8]:
    """uint8 (900 or more, 1200, 3): title, up to six panels in rows of three, the words that fit."""
    rows = max(1, -(-len(panels) // _IN_A_ROW))
    height = HEIGHT + (rows - 1) * _ROW
    picture = Picture.new("RGB", (WIDTH, height), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    _head(draw, title, subtitle)
    for number, panel in enumerate(panels[:MOST_SMALL_PANELS]):
        row, column = divmod(number, _IN_A_ROW)
        _draw_panel(picture, draw, panel, _MARGIN + column * (_PANEL + 30), top=_PANEL_TOP + row * _ROW)
    _draw_lines(draw, lines, _PANEL_TOP + rows * _ROW, height - _MARGIN)
    return np.asarray(picture, dtype=np.uint8)


def text_page(title: str, subtitle: str, lines: Sequence[Line]) -> NDArray[np.uint8]:
    """uint8 (900 or more, 1200, 3): words only, as tall as they need up to a limit."""
    scratch = ImageDraw.Draw(Picture.new("RGB", (8, 8)))
    needed = _PANEL_TOP + _MARGIN + sum(_height(scratch, line) for line in lines)
    height = min(max(needed, HEIGHT), _MOST_TEXT_HEIGHT)
    picture = Picture.new("RGB", (WIDTH, height), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    _head(draw, title, subtitle)
    _draw_lines(draw, lines, _PANEL_TOP, height - _MARGIN, where="are left: they do not fit on this page")
    return np.asarray(picture, dtype=np.uint8)


def _head(draw: ImageDraw.ImageDraw, title: str, subtitle: str) -> None:
    draw.text((_MARGIN, 22), title, font=_font(30, bold=True), fill=_INK)
    draw.text((_MARGIN, 66), _fit(draw, subtitle, _font(19), WIDTH - 2 * _MARGIN), font=_font(19), fill=_QUIET)


def _draw_panel(
    picture: Picture.Image,
    draw: ImageDraw.ImageDraw,
    panel: Panel,
    left: int,
    side: int = _PANEL,
    *,
    top: int = _PANEL_TOP,
) -> None:
    low, high = panel.window
    grey = np.clip((panel.pixels - low) / (high - low), 0.0, 1.0) * 255.0
    small = Picture.fromarray(np.rint(grey).astype(np.uint8))
    rows, columns = panel.pixels.shape
    room = side - _BAR_WIDTH - 8
    scale = min(room / columns, side / (rows * panel.aspect))
    size = max(1, round(columns * scale)), max(1, round(rows * panel.aspect * scale))
    small = small.resize(size, Picture.Resampling.BOX if scale < 1 else Picture.Resampling.BICUBIC)
    coloured = _coloured(small, panel.colours)
    for axis in panel.axes:
        _point_at_ends(coloured, np.array([axis[0], axis[1]]), np.array([size[0] / columns, size[1] / rows]))
    picture.paste(coloured, (left, top))
    ramp = np.repeat(np.linspace(255, 0, size[1]).astype(np.uint8)[:, None], _BAR_WIDTH, axis=1)
    picture.paste(_coloured(Picture.fromarray(ramp), panel.colours), (left + size[0] + 8, top))
    beside, above = panel.edges
    draw.text((left - 6, top + size[1] / 2), beside, font=_font(15, bold=True), fill=_QUIET, anchor="rm")
    draw.text((left + size[0] / 2, top - 3), above, font=_font(15, bold=True), fill=_QUIET, anchor="md")
    title = _fit(draw, panel.title, _font(17, bold=True), side)
    draw.text((left, top + side + 8), title, font=_font(17, bold=True), fill=_INK)
    draw.text((left, top + side + 30), _fit(draw, _window(panel), _font(14), side), font=_font(14), fill=_QUIET)


def _point_at_ends(picture: Picture.Image, axis: NDArray[np.float64], scale: NDArray[np.float64]) -> None:
    """From outside, so that nothing lies over the lesion; from inside where there is no picture outside.

    axis, scale     (2, 2) of x and y in pixels of the image; (2,) pixels of the picture for one of the image
    """
    ends = (axis + 0.5) * scale
    way = ends[1] - ends[0]
    length = float(np.hypot(*way))
    along = way / length if length else np.array([1.0, 0.0])
    draw = ImageDraw.Draw(picture)
    for end, outward in zip(ends, (-along, along), strict=True):
        far = end + _POINTER * outward
        if (far < 0).any() or (far >= picture.size).any():
            far = end - _POINTER * outward
        for colour, width in ((_BACKGROUND, 4), (_WARNING, 2)):
            draw.line([tuple(end), tuple(far)], fill=colour, width=width)


def _window(panel: Panel) -> str:
    """Off the picture: a number over it may hide the marker of a side."""
    low, high = panel.window
    unit = f" {panel.unit}" if panel.unit else ""
    ends, of_window = (low, high), ((low + high) / 2, high - low)
    (least, most), (centre, width) = ([_number(value, panel) for value in pair] for pair in (ends, of_window))
    return f"{least} to {most}{unit} (centre {centre}, width {width})"


def _number(value: float, panel: Panel) -> str:
    """Whole, unless the window is so narrow that ends would look alike."""
    low, high = panel.window
    return f"{value:.0f}" if high - low >= _WHOLE_FROM else f"{value:.3g}"


def _coloured(grey: Picture.Image, colours: Sequence[Colour]) -> Picture.Image:
    """Grey levels 0…255 in the colours between."""
    at = np.linspace(0, 255, len(colours))
    table = np.stack([np.interp(np.arange(256), at, channel) for channel in np.array(colours).T], axis=-1)
    return Picture.fromarray(np.rint(table).astype(np.uint8)[np.asarray(grey)])


def _draw_strip(draw: ImageDraw.ImageDraw, strip: Strip, top: int) -> None:
    low, high = strip.scale
    left, right, upper = _MARGIN + 34, WIDTH - _MARGIN, top + 26
    bottom = upper + _STRIP_PLOT
    font = _font(14)

    def down(value: float) -> float:
        return bottom - (min(max(value, low), high) - low) / (high - low) * _STRIP_PLOT

    draw.text((_MARGIN, top - 2), strip.title, font=_font(17, bold=True), fill=_INK)
    for level in np.linspace(low, high, 5):
        draw.line([(left, down(level)), (right, down(level))], fill=_GRID)
        draw.text((left - 8, down(level)), f"{level:g}", font=font, fill=_QUIET, anchor="rm")
    if strip.limit is not None:
        for start in range(left, right, 12):
            draw.line([(start, down(strip.limit)), (start + 6, down(strip.limit))], fill=_WARNING)
    step = (right - left) / len(strip.values)
    for place, value in enumerate(strip.values):
        poor = strip.limit is not None and value < strip.limit
        span = [(left + place * step, down(value)), (left + max((place + 1) * step, place * step + 2), down(value))]
        draw.line(span, fill=_WARNING if poor else _INK, width=3)
    first, last = strip.ends
    draw.text((left, bottom + 6), f"image {first}", font=font, fill=_QUIET)
    draw.text((right, bottom + 6), f"image {last}", font=font, fill=_QUIET, anchor="ra")


def _draw_lines(
    draw: ImageDraw.ImageDraw, lines: Sequence[Line], top: int, bottom: int, *, where: str = "more in the report"
) -> None:
    """As many as fit, and how many there are besides."""
    y = top
    for number, line in enumerate(lines):
        height = _height(draw, line)
        left_over = len(lines) - number
        if y + height > bottom - (24 if left_over > 1 else 0):
            draw.text((_MARGIN, bottom - 22), f"{left_over} {where}", font=_font(17), fill=_QUIET)
            return
        for part in _wrapped(draw, line):
            draw.text((_MARGIN, y), part, font=_font(18), fill=_colour(line))
            y += 25
        y += 5


def _height(draw: ImageDraw.ImageDraw, line: Line) -> int:
    return 25 * len(_wrapped(draw, line)) + 5


def _wrapped(draw: ImageDraw.ImageDraw, line: Line) -> list[str]:
    font = _font(18)
    parts: list[str] = []
    current = ""
    for word in drawable(line.text).split():
        tried = f"{current} {word}".strip()
        if current and draw.textlength(tried, font=font) > WIDTH - 2 * _MARGIN:
            parts.append(current)
            current = word
        else:
            current = tried
    return [_fit(draw, part, font, WIDTH - 2 * _MARGIN) for part in (*parts, current)]


def _fit(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    text = drawable(text)
    while text and draw.textlength(text, font=font) > width:
        text = text[:-2].rstrip() + "…"
    return text


def drawable(text: str) -> str:
    """Signs that the font lacks, or that run from right to left, as "[other script]" instead of boxes and nonsense."""
    composed = unicodedata.normalize("NFC", text)
    marked = "".join(sign if sign.isspace() or _can_draw(sign) else _UNKNOWN for sign in composed)
    return _RUN_OF_UNKNOWN.sub("[other script]", marked)


def _can_draw(sign: str) -> bool:
    return ord(sign) in _letters() and unicodedata.bidirectional(sign) not in _LEFTWARDS


@lru_cache(maxsize=1)
def _letters() -> frozenset[int]:
    """Code points of the font."""
    return frozenset(FT2Font(str(_font_path("DejaVuSans.ttf"))).get_charmap())


def _colour(line: Line) -> tuple[int, int, int]:
    return {"warning": _WARNING, "quiet": _QUIET}.get(line.style, _INK)


@lru_cache(maxsize=16)
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(_font_path(name)), size, layout_engine=ImageFont.Layout.BASIC)


def _font_path(name: str) -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
