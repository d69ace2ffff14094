"""What the text of ``coarse=`` means, and what is refused."""

from __future__ import annotations

import pytest

from metaindex.coarse.fde import Fde
from metaindex.coarse.spec import CoarseSpec, parsed


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("Flat", CoarseSpec(None, "Flat")),
        (" IVF4096 , PQ64x8 ", CoarseSpec(None, "IVF4096,PQ64x8")),
        ("IVF16(PQ8x4),SQ8", CoarseSpec(None, "IVF16(PQ8x4),SQ8")),
        ("fde,Flat", CoarseSpec(Fde(), "Flat")),
        ("FDE(),HNSW32", CoarseSpec(Fde(), "HNSW32")),
        ("fde( bits = 4 , dim=0),IVF8,Flat", CoarseSpec(Fde(bits=4, dim=0), "IVF8,Flat")),
    ],
)
def test_it_reads_what_it_prints(text, spec):
    assert parsed(text) == spec
    assert parsed(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected a FAISS factory string"),
        ("Flat; rm", "expected a FAISS factory string"),
        ("fde", "expected a FAISS factory string"),
        ("fdeFlat", "can't read 'fdeFlat'"),
        ("fde(bits=3 Flat", "can't read"),
        ("fde(cells=3),Flat", "expected name=number of repetitions, bits, inner, dim, seed"),
        ("fde(bits=3,bits=4),Flat", "names bits twice"),
        ("fde(bits=11),Flat", "bits: expected 1 to 10, got 11"),
        ("IVF99999999,Flat", "expected numbers up to"),
        ("PQ8x24", "codes of at most 16 bits"),
    ],
)
def test_what_it_refuses(text, reason):
    with pytest.raises(ValueError, match="coarse: ") as refused:
        parsed(text)
    assert reason in str(refused.value)
    with pytest.raises(TypeError, match="coarse: expected text"):
        parsed(7)  # type: ignore[arg-type]


def test_the_size_of_what_stands_for_a_document():
    assert parsed("Flat").size(128) == 128
    assert parsed("fde,Flat").size(128) == 10240
    assert parsed("fde(dim=0,repetitions=2,bits=3),Flat").size(5) == 2 * 8 * 5
    assert parsed("fde(dim=0,repetitions=2,bits=3,inner=4),Flat").size(5) == 2 * 8 * 4
