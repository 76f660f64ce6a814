"""Files to arrays in stated units: what the networks see of DICOM, and the last that they see of it.

frames.py      what the header of each slice says
stack.py       which slices make one stack, in which order
geometry.py    where the stack is
pixels.py      stored values from any transfer syntax
brightness.py  two phases in one stack that no header tells apart
codec.py       compressed frames, by decompress.py in a process of its own
volume.py      all of it together: a CT series to HU
radiograph.py  one projection image
"""

from node.dicom.read.radiograph import read_radiograph
from node.dicom.read.volume import read_volume

__all__ = ["read_radiograph", "read_volume"]
