"""Plain functions: an array and the networks in, findings out. No DICOM, no SQL, no Celery."""
