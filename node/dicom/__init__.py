"""The room that speaks DICOM: objects in and out, files to arrays, findings to files. Nobody else imports pydicom.

Network: pynetdicom keeps listening, negotiation, state machine, release, abort and every service but C-STORE.

transport.py     its socket and its upper layer provider, with an end to every wait
fragments.py     P-DATA cut into messages without a copy (PS3.8 Annex E)
streaming.py     the provider that pours C-STORE from the socket into a file
receive.py       the node as Storage and Verification SCP, and listener for storage commitment:
                 session.py is one association of it, spool.py its files, slots.py its limits
association.py   the node as requestor; commit.py and query.py stand on it, and send.py with direct.py, which
                 writes an object from its file to the socket
negotiation.py   what we take (PS3.7 D.3)
messages.py      DIMSE command sets and the file meta information (PS3.7 E, PS3.10 7.1)
status.py        what a status means, both ways (PS3.4 B.2.3, PS3.7 C)
tls.py           DICOM over TLS (PS3.15 B)
"""
