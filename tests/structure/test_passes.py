"""The words that channels are told apart by."""

import numpy as np
import pytest

from compressor.structure.tracing.passes import code_words


@pytest.mark.parametrize("count", [1, 2, 3, 64, 96, 1000])
def test_two_words_together_are_none_of_the_others(count: int) -> None:
    words = code_words(count)
    weight = words[:, 0].sum()

    assert (words.sum(axis=0) == weight).all()
    assert len(np.unique(words, axis=1).T) == count
    rng = np.random.default_rng(0)
    for left, right in rng.integers(0, count, (200, 2)):
        assert ((words[:, left] | words[:, right]).sum() > weight) == (left != right)


def test_words_are_short() -> None:
    assert len(code_words(4096)) == 15
