"""Cutting: masks, shrinking, and what layers become."""
