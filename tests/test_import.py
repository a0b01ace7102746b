"""What `import compressor` costs, and what it offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import compressor


def seconds_to_import(module: str) -> float:
    code = f"import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def test_importing_takes_less_than_twice_as_long_as_torch() -> None:
    ours, torchs = zip(*((seconds_to_import("compressor"), seconds_to_import("torch")) for _ in range(3)), strict=True)
    assert min(ours) < 2 * min(torchs)


@pytest.mark.parametrize("name", compressor.__all__)
def test_public_names_resolve(name: str) -> None:
    assert getattr(compressor, name) is not None
    assert name in dir(compressor)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        compressor.nothing  # noqa: B018 - the access is what is tested
