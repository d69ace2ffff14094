"""Compiles the CUDA files for GPUs that this machine need not have, and says what their kernels take.

``python -m tests.kernels.compile_cuda`` prints registers, static shared memory, stack and spills of every kernel on every
architecture and compares them with cuda_resources.json. It fails where a file does not compile within its time, where a
kernel spills, where the Hopper scan lacks what its speed rests on, and where something differs from the table, if that was made
with the same nvcc; ``--update`` writes the table anew.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.kernels.resources import Resources, options

RECORD = Path(__file__).with_name("cuda_resources.json")
CSRC = Path(__file__).parents[2] / "csrc"
ARCHITECTURES = ("80", "90a", "100")
SECONDS = 300  # for one file, all architectures
OPTIONS = ("-std=c++17", "-O3", "-DNDEBUG", "-Xptxas=-v", "-Xptxas=-warn-spills", "-Werror=all-warnings")  # as CMake has it
PRODUCTS = {
    "float16": "HGMMA.64x256x16.F32",
    "bfloat16": "HGMMA.64x256x16.F32.BF16",
    "int8": "IGMMA.64x256x32.S8.S8",
}
"""The widest wgmma, of which the Hopper scan of a codec is to be made."""
_STEPS = 4  # products that a slice of 128 bytes takes, unrolled
_THREADS = 384  # of a block of the Hopper scan, in three warpgroups

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\w+)'(.*?)(?=Compiling entry function|\Z)", re.DOTALL)
_OPCODE = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.x]+)", re.MULTILINE)


class Compiled(NamedTuple):
    """What ptxas said of a file, and the code it made for sm_90a, empty where nothing can show it."""

    log: str
    code: str = ""


def resources(log: str) -> dict[tuple[str, str], dict[str, int]]:
    """What each kernel takes on each architecture, from what ``ptxas -v`` says."""

    def numbers(pattern: str, text: str) -> list[int]:
        return [int(number) for number in re.findall(pattern, text)]

    return {
        (architecture, _name(mangled)): {
            "registers": max(numbers(r"Used (\d+) registers", said)),
            "shared": sum(numbers(r"(\d+) bytes smem", said)),
            "stack": sum(numbers(r"(\d+) bytes stack frame", said)),
            "spilled": sum(numbers(r"(\d+) bytes spill stores", said) + numbers(r"(\d+) bytes spill loads", said)),
        }
        for mangled, architecture, said in _ENTRY.findall(log)
    }


def _name(mangled: str) -> str:
    """The last identifier of a name as the compiler has it: namespaces come before it, template arguments after it."""
    name, rest = mangled, re.sub(r"^_ZN?", "", mangled)
    while length := re.match(r"\d+", rest):
        stop = length.end() + int(length[0])
        name, rest = rest[length.end() : stop], rest[stop:]
    return name


def hopper_faults(codec: str, made: Compiled, sources: Path = CSRC / "cuda" / "sm90") -> Iterator[str]:
    """What the Hopper scan of a codec lacks. No stack is used; ptxas neither serialises wgmma nor ignores setmaxnreg; products
    are the widest wgmma and no older instruction; boxes come through the copy engine; both roles change their registers, and
    none is used above what those claim that multiply."""
    opcodes = _OPCODE.findall(made.code)
    text = (sources / "kernel.cuh").read_text()
    producer, consumer = (int(_found(rf"\bk{role}Registers = (\d+);", text)) for role in ("Producer", "Consumer"))
    takes = next(takes for (architecture, _), takes in resources(made.log).items() if architecture == "90a")
    at_entry = takes["registers"]
    claimed = sorted(int(number, 16) for number in re.findall(r"USETMAXREG\S+ (?:UP0, )?0x([0-9a-f]+)", made.code))
    products = sum(opcode.startswith(PRODUCTS[codec]) for opcode in opcodes)
    older = {opcode for opcode in opcodes if opcode.startswith(("HMMA", "IMMA"))}
    boxes = opcodes.count("UTMALDG.3D")
    used = 1 + max((int(number) for number in re.findall(r"\bR(\d+)\b", made.code)), default=0)
    if takes["stack"]:
        yield f"{takes['stack']} bytes of stack"
    if notes := set(re.findall(r"\(C75\d\d\)[^\n]*", made.log)):
        yield f"ptxas on wgmma or setmaxnreg: {', '.join(sorted(notes))}"
    if products != _STEPS:
        yield f"{products} of {PRODUCTS[codec]} in place of {_STEPS}"
    if older:
        yield f"older products: {', '.join(sorted(older))}"
    if boxes < 2:
        yield f"{boxes} bulk tensor copies of 3 axes in place of 2 or more"
    if claimed != [producer, consumer]:
        yield f"registers change to {claimed} in place of {[producer, consumer]}"
    if at_entry * _THREADS > 65536 or producer + 2 * consumer > 3 * at_entry:
        yield f"{producer} and twice {consumer} registers are more than three times the {at_entry} there are at entry"
    if used > consumer:
        yield f"{used} registers are used, and {consumer} claimed"


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, f"no {pattern!r}"
    return match[1]


def compiled(source: Path, cuobjdump: str | None = None) -> Compiled:
    """A file, compiled for every architecture.

    Raises:
        subprocess.CalledProcessError, subprocess.TimeoutExpired: it does not compile, or takes too long.
    """
    with tempfile.TemporaryDirectory() as folder:
        fatbin = Path(folder) / "kernels.fatbin"
        targets = [f"-gencode=arch=compute_{one},code=sm_{one}" for one in ARCHITECTURES]
        command = ["nvcc", *OPTIONS, *targets, f"-I{CSRC / 'include'}", "-fatbin", "-o", str(fatbin), str(source)]
        log = subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS).stderr
        if cuobjdump is None or not _ENTRY.search(log):
            return Compiled(log)
        command = [cuobjdump, "-sass", "-arch", "sm_90a", str(fatbin)]
        environment = os.environ | {"PATH": f"{Path(cuobjdump).parent}{os.pathsep}{os.environ['PATH']}"}  # it calls nvdisasm
        return Compiled(log, subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def _timed(source: Path, cuobjdump: str | None) -> tuple[Compiled | str, float]:
    """A compiled file, or why there is none, and the seconds that took."""
    started = time.monotonic()
    made: Compiled | str
    try:
        made = compiled(source, cuobjdump)
    except subprocess.CalledProcessError as error:
        made = (error.stderr or str(error)).strip()
    except subprocess.TimeoutExpired:
        made = f"did not compile within {SECONDS} s"
    return made, time.monotonic() - started


def _disassembler() -> str | None:
    triton = importlib.util.find_spec("triton")
    carried = triton and triton.origin and Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return str(carried) if carried and carried.is_file() else shutil.which("cuobjdump")


def main() -> int:
    given = options(
        "Compile the CUDA files for GPUs that need not be here.", RECORD, "files whose path in csrc/cuda holds this"
    )
    if shutil.which("nvcc") is None:
        print("CUDA compile check skipped: no nvcc on this machine")
        return 0
    cuobjdump = _disassembler()
    if cuobjdump is None:
        print("the code for sm_90a is not looked at: neither Triton's wheel nor the PATH has a cuobjdump")
    said = subprocess.run(["nvcc", "--version"], check=True, capture_output=True, text=True).stdout
    table = Resources(RECORD, "nvcc", _found(r"\bV([\d.]+)", said), update=given.update)
    cuda = CSRC / "cuda"
    names = [str(path.relative_to(cuda).with_suffix("")) for path in sorted(cuda.rglob("*.cu"))]
    names = [name for name in names if given.only in name]
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for name, (made, seconds) in zip(names, pool.map(lambda name: _timed(cuda / f"{name}.cu", cuobjdump), names)):
            if isinstance(made, str):
                table.fail(name, made)
                continue
            for (architecture, kernel), takes in resources(made.log).items():
                faults = ["it spills"] if takes["spilled"] else []
                if made.code and architecture == "90a" and name.startswith("sm90/scan_"):
                    faults += hopper_faults(name.removeprefix("sm90/scan_"), made)
                table.add(f"sm_{architecture} {name}: {kernel}", takes, faults)
            print(f"{seconds:.1f} s for {name}", flush=True)
    return table.close(partial=bool(given.only))


if __name__ == "__main__":
    sys.exit(main())
