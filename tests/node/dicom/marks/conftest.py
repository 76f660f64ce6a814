"""One series of CT images with room for a lesion, and what becomes of documents about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from images import marks, phantom
from images.marks import Scan
from node.dicom.marks.gsps import read_presentation
from node.dicom.marks.report import read_report
from node.dicom.marks.resolve import Library, resolve
from node.dicom.marks.shelf import FolderShelf, shelves
from node.dicom.marks.study import StudyMarks, marks_of
from node.dicom.read.codec import Codec

Harvest = Callable[..., StudyMarks]


@pytest.fixture(scope="session")
def codec() -> Iterator[Codec]:
    with Codec() as codec:
        yield codec


@pytest.fixture(scope="session")
def axial(tmp_path_factory: pytest.TempPathFactory) -> Scan:
    return marks.scan(tmp_path_factory.mktemp("axial") / "study")


@pytest.fixture
def harvest(tmp_path: Path, codec: Codec) -> Harvest:
    """Marks of a study folder with these documents beside the images."""

    def run(scanned: Scan, *documents: Dataset, more: Sequence[Path] = ()) -> StudyMarks:
        folder = tmp_path / "study"
        folder.mkdir()
        for path in (*scanned.paths, *more):
            (folder / path.name).hardlink_to(path)
        for number, document in enumerate(documents):
            phantom.save(document, folder / f"document-{number}.dcm")
        (shelf,) = shelves(folder)
        return marks_of(shelf, codec)

    return run


@pytest.fixture(scope="session")
def resolved(axial: Scan, codec: Codec) -> Callable[[Scan, Dataset], list[object]]:
    """What becomes of the claims of one document about the axial series, without files of its own."""
    folder = FolderShelf(str(axial.key.StudyInstanceUID))
    folder.paths[str(axial.key.SeriesInstanceUID)] = axial.paths
    folder.series_by_instance = {str(ds.SOPInstanceUID): str(ds.SeriesInstanceUID) for ds in axial.headers}
    library = Library(folder, codec, [])

    def run(_: Scan, document: Dataset) -> list[object]:
        read = read_presentation if document.Modality == "PR" else read_report
        return list(resolve(read(document), library))

    return run
