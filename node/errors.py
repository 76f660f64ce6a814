"""Everything that can go wrong, as a tree; each leaf says in plain words why, and never names a patient.

NodeError
├── Refused                  tell the sender; the object or association was not taken
│   ├── UnknownCaller        no peer with this calling AE title and host
│   ├── WrongCalledTitle     the association was meant for somebody else
│   ├── OutOfResources       disk above the watermark, or the write failed: 0xA700
│   ├── NotUnderstood        the object contradicts itself or cannot be indexed: 0xC000
│   ├── WrongClass           the data set is not what the presentation context says: 0xA900
│   └── Conflict             same SOP Instance UID, other bytes: kept aside, 0xC001
├── NotEligible              tell the reader; the study is fine, but not ours to process
├── Transient                try again later, with growing delay
│   ├── PeerUnreachable      no connection, timeout, aborted association
│   └── PeerBusy             the peer answered "out of resources" (0xA7xx) or rejected for now
├── Permanent                do not try again: dead letter, with the reason
│   ├── PeerRefused          association rejected for good, or 0xA9xx / 0xCxxx for the object
│   ├── NoCommonContext      the peer takes neither the class nor any fallback
│   ├── SourceLost           received files are gone, though their archive is there
│   └── ResultLost           a result's file is gone or its digest differs
├── AnalysisFailed           a pipeline broke; the SR says so, an administrator may run it again
└── ConfigurationError       settings or site.toml cannot be right; nothing starts
"""

from __future__ import annotations


class NodeError(Exception):
    """Base. `reason` goes to logs, the audit trail, the SR or the peer: plain words, UIDs at most, no patient data."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Refused(NodeError):
    """The sender must be told that we did not take it."""


class UnknownCaller(Refused):
    """No registered peer calls from this AE title and host."""


class WrongCalledTitle(Refused):
    """The called AE title is not ours."""


class OutOfResources(Refused):
    """No room, or the disk does not do its work."""


class NotUnderstood(Refused):
    """The object cannot be read far enough to be kept under its identity."""


class WrongClass(Refused):
    """Data set and presentation context or command set disagree about what this is."""


class Conflict(Refused):
    """This SOP Instance UID is already here with other bytes. Both are kept, the first one counts."""


class NotEligible(NodeError):
    """These images are not for this analysis. The reason reaches the reader."""


class Transient(NodeError):
    """May succeed later without anybody doing anything."""


class PeerUnreachable(Transient):
    """No association could be had, or it broke."""


class PeerBusy(Transient):
    """The peer is there but cannot take it now."""


class Permanent(NodeError):
    """Will not succeed until somebody changes something."""


class PeerRefused(Permanent):
    """The peer will not have this association or this object."""


class NoCommonContext(Permanent):
    """The peer takes neither this class nor any fallback in a transfer syntax that we can write."""


class SourceLost(Permanent):
    """Received files are gone, and the archive that held them is there."""


class ResultLost(Permanent):
    """A produced file is gone, or is not what was written."""


class AnalysisFailed(NodeError):
    """A pipeline broke on eligible images."""


class ConfigurationError(NodeError):
    """What an operator wrote cannot be carried out."""
