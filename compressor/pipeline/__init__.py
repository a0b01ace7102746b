"""One run, from recipe to verdict."""

from compressor.pipeline.api import check_run, compress, inspect_recipe, profile_recipe

__all__ = ["check_run", "compress", "inspect_recipe", "profile_recipe"]
