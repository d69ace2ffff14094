"""Compiles the Triton kernels ahead of time for GPUs that this machine need not have, and says what they take.

``python -m tests.kernels.compile_triton`` prints registers, shared memory and spills of every case on every architecture and
compares them with triton_resources.json. It fails where a kernel does not compile within its time, where a hot one spills, and
where something differs from the file; ``--update`` writes the file anew.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tests.kernels.resources import Resources, options

RECORD = Path(__file__).with_name("triton_resources.json")
CAPABILITIES = (80, 90, 100)
SECONDS = 60  # for one kernel; they take one or two
_PROCESSORS = {80: 108, 90: 132, 100: 148}


class Case(NamedTuple):
    """A launch to compile. ``hot``: it may not spill."""

    operation: str
    codec: str = "bfloat16"
    dim: int = 128
    r_q: int = 16
    r_c: int = 64
    batch: int = 1
    ragged: bool = False
    scores: bool = False
    lists: bool = False
    hot: bool = True

    @property
    def name(self) -> str:
        if self.operation.startswith("topk"):
            return self.operation
        marks = [mark for mark in ("ragged", "scores", "lists") if getattr(self, mark)]
        return " ".join([self.operation, self.codec, f"{self.batch}x{self.r_q}x{self.r_c}x{self.dim}", *marks])


def cases() -> Iterator[Case]:
    """Every operation, codec and kind of tile."""
    for codec in ("float32", "float16", "bfloat16", "int8"):
        for dim in (128, 3584):
            for batch in (1, 64):
                yield Case("maxsim_scan", codec, dim, batch=batch)
            yield Case("maxsim_scan", codec, dim, r_q=1, r_c=1)
        yield Case("maxsim_gather", codec, batch=64, lists=True)
        yield Case("maxsim_scan", codec, 33, batch=64, ragged=True, hot=False)
    for batch in (1, 4, 64):
        yield Case("maxsim_scan", batch=batch, ragged=True)
    yield Case("maxsim_scan", r_q=32, r_c=300)
    yield Case("maxsim_scan", dim=250, batch=64)
    for batch in (64, 256):
        yield Case("maxsim_scan", r_q=1, r_c=1, batch=batch)
    yield Case("maxsim_scan", dim=8192, r_q=4, r_c=8)
    yield Case("maxsim_scan", r_q=130, r_c=130, batch=4, ragged=True, scores=True, hot=False)
    yield Case("maxsim_scan", "float32", r_q=100, batch=4)
    yield Case("maxsim_gather", batch=64, scores=True)
    yield Case("maxsim_gather", r_q=1, r_c=8, ragged=True, lists=True, batch=4)
    yield Case("topk rank")
    yield Case("topk merge")


def launch(case: Case, capability: int) -> Any:
    """The launch that such a call would make."""
    import torch

    from metaindex.kernels import maxsim_gather, maxsim_scan, topk
    from metaindex.kernels.tiles import Card
    from tests.kernels import hollow

    card = Card(capability, _PROCESSORS[capability])
    if case.operation.startswith("topk"):
        out = torch.zeros((2, 4096), dtype=torch.int64)
        found = topk.launches(card, hollow.hits(2, 1 << 20).keys, torch.zeros(2, dtype=torch.int32), out)
        return next(one for one in found if case.operation.split()[1] in one.kernel.__name__)
    table = hollow.table(case.codec, case.dim, case.r_c, 1 << 20, full=not case.ragged)
    queries = hollow.queries(case.codec, case.batch, case.r_q, case.dim)
    out = torch.zeros((case.batch, 1)) if case.scores else hollow.hits(case.batch, 1 << 20)
    if case.operation == "maxsim_scan":
        return maxsim_scan.launch(card, table, queries, case.r_c, (0, table.rows), None, out)
    candidates = torch.zeros((case.batch if case.lists else 1, 1000), dtype=torch.int64)
    return maxsim_gather.launch(card, table, queries, case.r_c, candidates, None, out)


def compiled(one: Any, capability: int) -> dict[str, int]:
    """What the kernel of a launch takes: registers, bytes of shared memory, bytes spilled."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, make_backend
    from triton.runtime.jit import create_function_from_signature

    target = GPUTarget("cuda", capability, 32)
    backend = make_backend(target)
    bind = create_function_from_signature(one.kernel.signature, one.kernel.params, backend)
    bound, specialization, options = bind(*one.arguments, **one.options)
    _, signature, constexprs, attributes = one.kernel._pack_args(backend, options, bound, specialization, options)
    source = ASTSource(one.kernel, signature, constexprs, attributes)
    made = triton.compile(source, target=target, options=options)
    return _assembled(made.asm["ptx"], capability) | {"shared": made.metadata.shared}


def _assembled(ptx: str, capability: int) -> dict[str, int]:
    from triton.backends.nvidia.compiler import get_ptxas

    architecture = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)
    assert architecture is not None
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [get_ptxas(capability).path, "-v", f"--gpu-name={architecture[1]}", source, "-o", os.devnull]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return {
        "registers": max(int(number) for number in re.findall(r"Used (\d+) registers", said)),
        "spilled": sum(int(number) for number in re.findall(r"(\d+) bytes spill stores", said)),
    }


def _child(pipe: Any, case: Case, capability: int) -> None:
    try:
        pipe.send(compiled(launch(case, capability), capability))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def _limited(case: Case, capability: int) -> tuple[dict[str, int] | str, float]:
    """What it takes, or why it is not known, and the seconds that took."""
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    started = time.monotonic()
    child = context.Process(target=_child, args=(theirs, case, capability))
    child.start()
    theirs.close()
    try:
        answer = ours.recv() if ours.poll(SECONDS) else f"did not compile within {SECONDS} s"
    except EOFError:
        answer = "the compiler crashed"
    child.kill()
    child.join()
    return answer, time.monotonic() - started


def main() -> int:
    given = options("Compile the Triton kernels for GPUs that need not be here.", RECORD, "cases whose name holds this")
    if os.environ.pop("TRITON_INTERPRET", None):
        print("TRITON_INTERPRET is set aside: this compiles")
    import triton

    table = Resources(RECORD, "triton", triton.__version__, update=given.update)
    wanted = [
        (case, capability) for capability in CAPABILITIES for case in cases() if given.only in f"sm_{capability} {case.name}"
    ]
    multiprocessing.get_context("forkserver").set_forkserver_preload(["triton", "torch", "metaindex.kernels.topk"])
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        os.environ["TRITON_CACHE_DIR"] = cache
        for (case, capability), (takes, seconds) in zip(wanted, pool.map(lambda pair: _limited(*pair), wanted)):
            name = f"sm_{capability} {case.name}"
            if isinstance(takes, str):
                table.fail(name, takes)
            else:
                table.add(name, takes, ["a hot kernel spills"] if takes["spilled"] and case.hot else [], f"{seconds:5.1f} s ")
    return table.close(partial=bool(given.only))


if __name__ == "__main__":
    sys.exit(main())
