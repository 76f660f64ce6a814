"""The bar shows what is done and how well."""

import io
import math

from rich.console import Console

from models.progress import progress_bar


def test_shows_every_kind_of_work_with_its_loss():
    text = io.StringIO()
    with progress_bar(Console(file=text, force_terminal=True, width=120)) as report:
        report("pairs", 3, 3, math.nan)
        report("training", 2, 5, 0.25)
    shown = text.getvalue()
    assert "pairs" in shown
    assert "3/3" in shown
    assert "loss 0.2500" in shown
    assert "nan" not in shown
