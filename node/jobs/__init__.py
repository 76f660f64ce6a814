"""What happens to a study: received, taken as complete, planned, run, reported, delivered, swept."""
