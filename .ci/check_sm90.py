"""Compiles the Hopper scan for sm_90a and asserts what its speed rests on; no GPU is needed.

For each codec: nothing is spilled and no stack is used; ptxas neither serialises wgmma nor ignores setmaxnreg; products are the
widest wgmma and no older instruction; boxes come through the copy engine; both roles change their registers, and none is used
above what those claim that multiply. Exits with 1 and what does not hold.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "csrc" / "cuda" / "sm90"
PRODUCTS = {
    "float16": "HGMMA.64x256x16.F32",
    "bfloat16": "HGMMA.64x256x16.F32.BF16",
    "int8": "IGMMA.64x256x32.S8.S8",
}
STEPS = 4  # products that a slice of 128 bytes takes, unrolled
THREADS = 384


def main() -> int:
    disassembler = nvdisasm()
    if shutil.which("nvcc") is None or disassembler is None:
        print("sm_90a check skipped: it needs nvcc and nvdisasm, which Triton's wheel carries")
        return 0
    failed = 0
    for codec, product in PRODUCTS.items():
        with tempfile.TemporaryDirectory() as folder:
            cubin = Path(folder) / "scan.cubin"
            log = compiled(codec, cubin)
            code = subprocess.run([disassembler, "-c", cubin], check=True, capture_output=True, text=True).stdout
        wrong = list(faults(log, code, product))
        used = 1 + max(map(int, re.findall(r"\bR(\d+)\b", code)))
        print(f"sm_90a {codec}: {used} registers, {'; '.join(wrong) or 'as it should be'}")
        failed |= bool(wrong)
    return failed


def nvdisasm() -> str | None:
    triton = importlib.util.find_spec("triton")
    carried = triton and triton.origin and Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    return str(carried) if carried and carried.is_file() else shutil.which("nvdisasm")


def compiled(codec: str, cubin: Path) -> str:
    """What ptxas says."""
    options = ["-std=c++17", "-O3", "-gencode=arch=compute_90a,code=sm_90a", f"-I{ROOT / 'csrc' / 'include'}", "-Xptxas=-v"]
    command = ["nvcc", *options, "-cubin", "-o", str(cubin), str(SOURCES / f"scan_{codec}.cu")]
    return subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True).stderr


def faults(log: str, code: str, product: str) -> list[str]:
    opcodes = re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\d\s+)?([A-Z0-9_.x]+)", code, re.MULTILINE)
    producer, consumer = (int(constant("kernel.cuh", f"k{role}Registers")) for role in ("Producer", "Consumer"))
    at_entry = int(found(r"Used (\d+) registers", log))
    claimed = [int(n, 16) for n in re.findall(r"USETMAXREG\S+ (?:UP0, )?0x([0-9a-f]+)", code)]
    facts = {
        "spills": "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in log and not {"STL", "LDL"} & set(opcodes),
        "notes of ptxas on wgmma or setmaxnreg": not re.search(r"\(C75\d\d\)", log),
        f"not {STEPS} of {product}": sum(opcode.startswith(product) for opcode in opcodes) == STEPS,
        "older products": not any(opcode.startswith(("HMMA", "IMMA")) for opcode in opcodes),
        "no boxes": opcodes.count("UTMALDG.3D") >= 2,
        f"registers change to {claimed}": sorted(claimed) == [producer, consumer],
        "more registers than there are": at_entry * THREADS <= 65536 and producer + 2 * consumer <= at_entry * 3,
        "registers that nobody claimed": max(map(int, re.findall(r"\bR(\d+)\b", code))) < consumer,
    }
    return [name for name, holds in facts.items() if not holds]


def constant(file: str, name: str) -> str:
    return found(rf"\b{name} = (\d+);", (SOURCES / file).read_text())


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, f"no {pattern!r}"
    return match[1]


if __name__ == "__main__":
    sys.exit(main())
