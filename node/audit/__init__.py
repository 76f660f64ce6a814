"""The audit trail: what is recorded (events), how tampering shows (chain), and how it leaves: PS3.15, syslog, FHIR."""
