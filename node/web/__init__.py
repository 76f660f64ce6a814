"""What the node shows over HTTP. Knows the database and the archive; nothing of DICOM, nothing of networks."""
