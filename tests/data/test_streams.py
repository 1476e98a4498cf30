"""Streams: a draw is addressed by what it is for, never by what was drawn before."""

import itertools

import numpy as np
import pytest

from d2l_study.data.streams import STREAMS, Streams


def draw(streams: Streams, stream: str, block: int = 0) -> np.ndarray:
    return streams.rng(stream, block).random(4)


def test_the_same_address_gives_the_same_numbers():
    assert np.array_equal(draw(Streams("mnist", 1, 2), "vat", 3), draw(Streams("mnist", 1, 2), "vat", 3))


def test_one_generator_set_to_many_blocks_draws_what_fresh_ones_draw():
    """Also after a block that used half of a word, and one that used none."""
    streams = Streams("mnist", 1, 3).on("member 1")
    for block, rng in zip((5, 5, 0, 9, 2**40), streams.rngs("noise", (5, 5, 0, 9, 2**40)), strict=True):
        fresh = streams.rng("noise", block)
        for draw in (lambda g: g.random(3), lambda g: g.integers(0, 7, 3, np.uint8),
                     lambda g: g.standard_normal(7, np.float32)):  # fmt: skip
            assert np.array_equal(draw(rng), draw(fresh))


def test_every_part_of_the_address_matters():
    bases = [Streams("mnist", 1, 0), Streams("mnist", 1, 1), Streams("mnist", 0, 1), Streams("colon", 1, 0),
             Streams("mnist", 11, 0), Streams("mnist", 1, 10)]  # fmt: skip
    draws = {tuple(draw(s, stream, block)) for s, stream, block in itertools.product(bases, STREAMS, (0, 1, 10, 11))}
    assert len(draws) == len(bases) * len(STREAMS) * 4


def test_blocks_are_uncorrelated():
    streams = Streams("mnist", 1, 0)
    blocks = np.stack([streams.rng("noise", block).standard_normal(500) for block in range(40)])
    correlation = np.corrcoef(blocks)[np.triu_indices(40, 1)]
    # 780 correlations of 500 pairs: standard deviation 1/√500, the largest about 3.2 of them.
    assert np.std(correlation) == pytest.approx(500**-0.5, rel=0.1)
    assert np.abs(correlation).max() < 4.5 * 500**-0.5


def test_drawing_leaves_no_trace():
    streams = Streams("mnist", 1, 0)
    expected = draw(streams, "order")
    draw(streams, "vat"), draw(streams, "order", 1)
    assert np.array_equal(draw(streams, "order"), expected)


def test_an_unknown_stream_is_refused_with_the_known_ones():
    with pytest.raises(KeyError, match=r"vta.*known: .*vat"):
        Streams("mnist", 1, 0).rng("vta")
