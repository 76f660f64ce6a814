"""The room that speaks DICOM: objects in and out, files to arrays, findings to files. Nobody else imports pydicom.

Network, from the wire upwards:

streaming.py     a socket with deadlines, and the reader that cuts PDUs into fragments (PS3.8)
negotiation.py   A-ASSOCIATE read and written, and what we take (PS3.8 9.3, PS3.7 D.3)
messages.py      DIMSE command sets and the file meta information (PS3.7 E, PS3.10 7.1)
status.py        what a status means, both ways (PS3.4 B.2.3, PS3.7 C)
tls.py           DICOM over TLS (PS3.15 B)
receive.py       the node as Storage and Verification SCP, and listener for storage commitment:
                 session.py is one association of it, spool.py its files, slots.py its limits
association.py   the node as requestor; send.py, commit.py and query.py stand on it
"""
