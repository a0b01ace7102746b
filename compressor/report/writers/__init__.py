"""The files that a report becomes."""
