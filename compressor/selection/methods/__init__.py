"""The published methods, one a file."""
