"""The `compressor` command."""

from compressor.cli.app import main

__all__ = ["main"]
