"""Weights that are re-solved for the units that stay."""

from compressor.refit.solve import FEWEST, Refit, refit, rows_wanted, summary

__all__ = ["FEWEST", "Refit", "refit", "rows_wanted", "summary"]
