"""From findings to DICOM objects: the only way out of arrays. Same findings and same stamp make the same bytes.

objects.py        what goes in and comes out       source.py         headers of received images
images.py         all images of one run            derived.py        CT, CR, DX images; numbers.py their values
segmentation.py   lesions as SEG                   presentation.py   their axes as GSPS
copies.py         what highdicom reads             display.py        windows that can be used
capture.py        summary page; page.py draws it   maps.py          numbers per pixel, in colour
lesions.py        lesions as pictures
report.py         the SR of a study revision       groups.py, evidence.py, content.py   its parts
sentences.py      what it says in words            headers.py, charset.py, codes.py, tables.py   shared by all
"""

from node.dicom.write.images import noted, write_images
from node.dicom.write.objects import Produced, ResultRef, SeriesEntry, Stamp, StudyEntry
from node.dicom.write.report import write_report
from node.dicom.write.source import SeriesSource

__all__ = [
    "Produced",
    "ResultRef",
    "SeriesEntry",
    "SeriesSource",
    "Stamp",
    "StudyEntry",
    "noted",
    "write_images",
    "write_report",
]
