"""Tables as pictures."""

import numpy as np
from PIL import Image

from models.evaluation.bootstrap import Interval
from models.evaluation.table import Row, Table
from node.cli.intervals import draw_intervals


def picture(tmp_path, *means):
    rows = [
        Row("25 % dose", f"A{number}", {"CNR": Interval(mean, mean - 1, mean + 1, 5), "AP": Interval(0.1, 0.0, 0.2, 5)})
        for number, mean in enumerate(means)
    ]
    draw_intervals(Table("Arms", tuple(rows)), tmp_path / "arms.png")
    return np.asarray(Image.open(tmp_path / "arms.png").convert("RGB"), int)


def points(image):
    """Rows of pixels that hold the colour of a point in the first panel, about."""
    blue = (image[..., 2] - image[..., 0] > 80)[:, : image.shape[1] * 2 // 3]
    return np.flatnonzero(blue.any(1))


def test_every_row_has_its_point_at_its_place_and_what_is_not_known_has_none(tmp_path):
    low, high = picture(tmp_path, 0.0, 5.0), picture(tmp_path, 5.0, 0.0)
    assert low.shape == high.shape
    assert not np.array_equal(low, high)
    assert len(points(picture(tmp_path, float("nan"), 5.0))) < len(points(low))
    assert len(picture(tmp_path, 1.0, 2.0, 3.0)) > len(low)
