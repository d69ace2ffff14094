"""Writes docs/backends.md from the scorers' verdicts on the machine that runs it: ``python docs/make_backends.py``."""

from __future__ import annotations

from pathlib import Path

from metaindex import _native
from metaindex.cli.doctor import smallest_request
from metaindex.codecs import CODECS
from metaindex.index import built_in_scorers
from metaindex.scoring.cpu import CpuScorer
from metaindex.scoring.device import DeviceScorer
from metaindex.scoring.registry import Scorer

PAGE = Path(__file__).with_name("backends.md")

HEAD = """# Backends

What runs where. Made by `python docs/make_backends.py` from the verdicts that the automatic choice, errors and skipped
tests read too; `metaindex doctor` shows those of your machine.

`search(scorer="auto")` takes the first scorer that can: on an index that works on a GPU those of the last table before those of
the first. Of the instruction sets the C++ scorer takes the last that says yes for the codec; tests and benchmarks pin each of
them. Every one is held to the reference scorer by tests/contract.

In an index of several codecs, a stage whose budget stays within one is served as the table says. One that spans several runs on
the CPU, where the scorer says yes to all of them.

"""

GPU = """
## Scorers on a GPU
Asked in this order by an index that works on a GPU: `device="cuda"`, or `device="auto"` where there is one. Each serves all
codecs, any d and any budget on NVIDIA GPUs of compute capability 8.0 and above, for which torch has to be a build with CUDA.

| scorer | what it needs besides | compiled without a GPU for |
|---|---|---|
| cuda | a metaindex that was built where there was nvcc | sm_80, sm_90a, sm_100: `make cuda-check` |
| triton | Triton 3.6 or later | sm_80, sm_90, sm_100: `make triton-check` |

Where there is no GPU, tests/kernels runs the CUDA kernels on an emulator and, as tests/contract does, the Triton kernels under
Triton's interpreter. Where there is one, `python -m pytest -m gpu` runs tests/gpu and tests/contract on it, and
`python -m benchmarks.gpu` measures as well (benchmarks/README.md).
"""


def row(scorer: Scorer) -> str:
    """One line of the table: yes, or the reason why not, for each codec."""
    cells = (scorer.supports(smallest_request(codec)) for codec in CODECS.values())
    return f"| {scorer.name} | " + " | ".join("yes" if ok else why for ok, why in cells) + " |"


def page() -> str:
    title = [f"| scorer | {' | '.join(CODECS)} |", f"|---|{'---|' * len(CODECS)}"]
    registered = built_in_scorers()
    scorers = [row(registered[name]) for name in registered.names if not isinstance(registered[name], DeviceScorer)]
    pinned = [row(CpuScorer(isa)) for isa in _native.core.features()]
    lines = ["## Scorers on a CPU", *title, *scorers, "", "## Instruction sets of the C++ scorer", *title, *pinned]
    return HEAD + "\n".join(lines) + "\n" + GPU


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
