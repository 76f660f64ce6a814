"""Marks that radiologists left in a PACS, as two axes on a received image: what training tables are made of.

mark.py        what a document claims, and what becomes of a claim
gsps.py        presentation states; pairing.py finds which of their lines belong together
report.py      measurement reports (TID 1500), their content tree in content_tree.py
rejections.py  notes that take images and documents out of use
masks.py       segmentations, that reports point at or that stand alone; structures.py contours of structure sets
lesions.py     which of their regions are lesions; diameters.py the two axes of a region
plane.py       pixels ↔ patient; series.py a series head → feet with its HU
resolve.py     a claim laid on its image, held to the rules, or refused in words
study.py       all of it for one study; shelf.py where its files come from
deidentify.py  numbers instead of identities

Reaches neither torch nor models.deeplesion: the command line turns `Mark` into rows of its table.
source   J Med Imaging 5(3) 036501; PS3.3 C.10.5, PS3.16 TID 1500
"""
