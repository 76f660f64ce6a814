"""What import-linter cannot see: which processes reach torch."""

import subprocess
import sys

import pytest

BLOCKED = "import sys; sys.modules['torch'] = None; "


@pytest.mark.parametrize(
    "module",
    [
        "node.wiring",
        "node.cli",
        "node.jobs.receive",
        "node.dicom.receive",
        "node.jobs.deliver",
        "node.jobs.plan",
        "node.jobs.sweep",
        "node.web",
    ],
)
def test_outlives_a_broken_torch(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + f"import {module}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_worker_does_need_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + "import node.pipelines.models"], capture_output=True, check=False
    )
    assert done.returncode != 0
