"""The audit trail: what is recorded (events) and how tampering shows (chain). Messages will have their room here."""
