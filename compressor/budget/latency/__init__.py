"""Milliseconds on a measured device as a function of widths."""
