"""When a coarse index is built, added to and written: decisions from numbers."""

from __future__ import annotations

import pytest

from metaindex.coarse import upkeep
from metaindex.coarse.upkeep import FEW, Standing, due, due_from_file, worth_writing


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        (Standing(FEW - 1, 0, 0, 0, 0), "nothing"),  # compared one by one
        (Standing(FEW, 0, 0, 0, 0), "build"),
        (Standing(FEW, 0, 0, 0, 39 * 64), "nothing"),  # too few to train on
        (Standing(39 * 64, 0, 0, 0, 39 * 64), "build"),
        (Standing(10_000, 10_000, 10_000, 10_000, 2496), "nothing"),
        (Standing(11_023, 10_000, 10_000, 10_000, 2496), "nothing"),  # few enough to be compared beside it
        (Standing(11_024, 10_000, 10_000, 10_000, 2496), "add"),
        (Standing(1_000_000, 990_000, 990_000, 990_000, 2496), "nothing"),
        (Standing(1_000_000, 980_000, 980_000, 980_000, 2496), "add"),
        (Standing(40_000, 39_000, 39_000, 10_000, 2496), "build"),  # four times what its lists were trained for
        (Standing(40_000, 39_000, 39_000, 10_000, 0), "nothing"),  # which a graph does not mind
        (Standing(4_000, 10_000, 4_000, 10_000, 2496), "build"),  # more than half of it is gone
        (Standing(5_000, 10_000, 5_000, 10_000, 2496), "nothing"),
    ],
)
def test_what_is_due(standing, expected):
    assert due(standing) == expected


def test_a_file_may_lack_more():
    standing = Standing(100_000, 90_000, 90_000, 90_000, 2496)
    assert due(standing) == "add"
    assert due_from_file(standing) == "nothing"


def test_a_file_is_written_when_it_has_fallen_behind():
    assert worth_writing(FEW, 0, last=False)
    assert not worth_writing(100_000 + 12_499, 100_000, last=False)
    assert worth_writing(100_000 + 12_500, 100_000, last=False)
    assert worth_writing(100_000 + 1_563, 100_000, last=True)
    assert not worth_writing(100_000 + 1_000, 100_000, last=True)


def test_lists_that_a_search_looks_into():
    assert upkeep.default_nprobe(1024, 1_000_000, 1000) == 32  # the square root
    assert upkeep.default_nprobe(1024, 1_000_000, 30_000) == 246  # eight times as many documents as are asked for
    assert upkeep.default_nprobe(16, 100, 1000) == 16
    assert upkeep.default_nprobe(1, 10, 1) == 1


def test_how_many_train():
    assert upkeep.training_sample(5_000, 128, 64) == 5_000
    assert upkeep.training_sample(10**6, 128, 64) == 256 * 64
    assert upkeep.training_sample(10**8, 10240, 4096) == 8 * 4096  # a gibibyte of vectors is 26,214
