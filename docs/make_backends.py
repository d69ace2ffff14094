"""Writes docs/backends.md from the scorers' verdicts on the machine that runs it: ``python docs/make_backends.py``."""

from __future__ import annotations

from pathlib import Path

from metaindex import _native
from metaindex.cli.doctor import smallest_request
from metaindex.codecs import CODECS
from metaindex.index import built_in_scorers
from metaindex.scoring.cpu import CpuScorer
from metaindex.scoring.registry import Scorer

PAGE = Path(__file__).with_name("backends.md")

HEAD = """# Backends

What runs where. Made by `python docs/make_backends.py` from the verdicts that the automatic choice, errors and skipped
tests read too; `metaindex doctor` shows those of your machine.

`search(scorer="auto")` takes the first scorer below that can. Of the instruction sets the C++ scorer takes the last that says
yes for the codec; tests and benchmarks pin each of them. Every one is held to the reference scorer by tests/contract.

In an index of several codecs, a stage whose budget stays within one is served as the table says. One that spans several runs on
the CPU, where the scorer says yes to all of them.

"""

GPU = """
## Scorers on a GPU
The Triton kernels serve all codecs on GPUs of compute capability 8.0 and above, with Triton 3.6 and later. They can't be chosen
by `scorer=` yet. tests/contract runs them under Triton's interpreter, and `make triton-check` compiles them for sm_80, sm_90
and sm_100.
"""


def row(scorer: Scorer) -> str:
    """One line of the table: yes, or the reason why not, for each codec."""
    cells = (scorer.supports(smallest_request(codec)) for codec in CODECS.values())
    return f"| {scorer.name} | " + " | ".join("yes" if ok else why for ok, why in cells) + " |"


def page() -> str:
    title = [f"| scorer | {' | '.join(CODECS)} |", f"|---|{'---|' * len(CODECS)}"]
    registered = built_in_scorers()
    scorers = [row(registered[name]) for name in registered.names]
    pinned = [row(CpuScorer(isa)) for isa in _native.core.features()]
    lines = ["## Scorers", *title, *scorers, "", "## Instruction sets of the C++ scorer", *title, *pinned]
    return HEAD + "\n".join(lines) + "\n" + GPU


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
