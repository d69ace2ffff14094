"""Modules whose kernels run on the CPU."""

from __future__ import annotations

import ctypes
import itertools
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tests.emulator import core_library, syntax
from tests.emulator.lowering import Lowering
from tests.emulator.syntax import Entry, Variable
from tests.emulator.tensor_map import TensorMap

Argument: TypeAlias = "int | float | bytes | NDArray | np.generic | TensorMap"
Delivery: TypeAlias = Literal["late", "early", "random"]
_DELIVERIES = ("late", "early", "random")
_MESSAGE_BYTES = 1 << 14


class EmulationError(AssertionError):
    """The kernel did what it must not, or what the emulator does not know. The message names the instruction."""


@dataclass(frozen=True)
class Counts:
    """Executed instructions, of warps and of threads."""

    instructions: int
    thread_instructions: int


def load(ptx: str) -> Module:
    """A module of PTX text, for sm_80 or sm_90a."""
    return Module(ptx)


class Module:
    def __init__(self, ptx: str) -> None:
        self._lines = ptx.splitlines()
        self._syntax = syntax.parse(ptx)
        self._variables = {one.name: _allocated(one) for one in self._syntax.variables.values() if one.space != "shared"}
        self._kernels: dict[str, _Kernel] = {}

    @property
    def kernels(self) -> list[str]:
        return list(self._syntax.entries)

    def parameter_sizes(self, kernel: str) -> list[int]:
        """Bytes of each parameter of a kernel."""
        return [one.nbytes for one in self._syntax.entries[kernel].parameters]

    def launch(
        self,
        kernel: str,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        args: Sequence[Argument],
        *,
        shared_bytes: int = 0,
        memory: Iterable[NDArray] = (),
        seed: int = 0,
        delivery: Delivery = "late",
        races: bool = True,
        rows_over_copies: bool = False,
        limit: int = 1 << 28,
        resident: int = 2,
    ) -> Counts:
        """Run a grid to its end.

        Args:
            args: for each parameter an integer, a number, the bytes of a struct, a tensor map, or an array: then the kernel is
                given its address, reads it and, unless it is read-only, writes to it.
            shared_bytes: of dynamic shared memory for each block.
            memory: further arrays that the kernel may reach, by addresses that it finds in others.
            seed: of the order in which warps run and copies arrive; odd ones poison memory with other bytes than even ones.
            delivery: when bulk copies arrive: when nothing else can go on, at once, or at random moments.
            races: whether shared memory is searched for races, which takes most of the time.
            rows_over_copies: whether wgmma may read rows of A that a copy is writing, or begins to write before they are waited
                for. What comes of those rows is poison. For kernels with fewer rows than wgmma's 64, whose tiles reach beyond
                them.
            limit: the most instructions that all warps may execute.
            resident: how many blocks run at the same time.

        Raises:
            EmulationError: an access outside all arrays or misaligned, a race, a deadlock, a trap, an instruction that is not
                emulated, or another misuse. What blocks have written until then stays written.
        """
        found = self._kernel(kernel)
        held = found.set_arguments(args)
        buffers = [("parameters", _read_only(found.parameters))]
        buffers += [(f"variable {name}", array) for name, array in self._variables.items()]
        buffers += [(f"argument {number}", array) for number, array in held]
        buffers += [(f"memory {number}", array) for number, array in enumerate(memory)]
        ranges = np.array([_range(array) for _, array in buffers], np.int64).reshape(-1, 3)
        given = core_library.Launch(
            grid=_three(grid),
            block=_three(block),
            dynamic_shared=shared_bytes,
            delivery=_DELIVERIES.index(delivery),
            races=races,
            rows_over_copies=rows_over_copies,
            resident=resident,
            seed=seed,
            limit=limit,
            buffers=len(buffers),
            ranges=ranges.ctypes.data,
            names="".join(f"{name}\n" for name, _ in buffers).encode(),
        )
        message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        if core_library.library().emulator_launch(found.handle, ctypes.byref(given), message, _MESSAGE_BYTES):
            raise EmulationError(f"{kernel}: {self._explained(message.value.decode(errors='replace'))}")
        return Counts(given.instructions, given.thread_instructions)

    def _kernel(self, name: str) -> _Kernel:
        if name not in self._kernels:
            entry = self._syntax.entries.get(name)
            if entry is None:
                raise KeyError(f"no kernel {name!r} among {self.kernels}")
            self._kernels[name] = _Kernel(self, entry)
        return self._kernels[name]

    def _explained(self, message: str) -> str:
        """The message, with the text of each line of PTX that it names."""
        found = [message]
        for line in dict.fromkeys(int(word.rstrip(",:;)")) for word in _words_after(message, "line")):
            source = self._syntax.place(line)
            place = f" ({source})" if source else ""
            found.append(f"  line {line}{place}: {self._lines[line - 1].strip()}")
        return "\n".join(found)


class _Kernel:
    """A kernel in the core, with room for its parameters at an address that it knows."""

    def __init__(self, module: Module, entry: Entry) -> None:
        self._entry = entry
        self._offsets: list[int] = []
        size = 0
        for parameter in entry.parameters:
            size = -(-size // parameter.alignment) * parameter.alignment
            self._offsets.append(size)
            size += parameter.nbytes
        self.parameters = _aligned_zeros(max(size, 1))
        addresses = {name: array.ctypes.data for name, array in module._variables.items()}
        for parameter, offset in zip(entry.parameters, self._offsets):
            addresses[parameter.name] = self.parameters.ctypes.data + offset
        self._numbers, self._texts = Lowering(module._syntax, entry, lambda one: addresses[one.name]).encoded()
        self.handle = core_library.library().emulator_load(self._numbers.ctypes.data, self._texts)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            core_library.library().emulator_unload(self.handle)

    def set_arguments(self, args: Sequence[Argument]) -> list[tuple[int, NDArray]]:
        """Pack them; the arrays among them, with their numbers."""
        expected = self._entry.parameters
        if len(args) != len(expected):
            raise TypeError(f"{self._entry.name} takes {len(expected)} arguments, not {len(args)}")
        held = []
        self.parameters[:] = 0
        for number, (value, parameter, offset) in enumerate(zip(args, expected, self._offsets)):
            if isinstance(value, np.ndarray):
                held.append((number, value))
            packed = _packed(value, parameter)
            if len(packed) != parameter.nbytes:
                raise TypeError(f"argument {number} of {self._entry.name} has {len(packed)} bytes, not {parameter.nbytes}")
            self.parameters[offset : offset + len(packed)] = np.frombuffer(packed, np.uint8)
        return held


def _packed(value: Argument, parameter: Variable) -> bytes:
    if isinstance(value, TensorMap):
        return value.encode()
    if isinstance(value, np.ndarray):
        return struct.pack("<Q", value.ctypes.data)
    if isinstance(value, np.generic):
        return value.tobytes()
    if isinstance(value, float):
        return struct.pack({32: "<f", 64: "<d"}[parameter.bits], value)
    if isinstance(value, int):
        return (value & (1 << 8 * parameter.nbytes) - 1).to_bytes(parameter.nbytes, "little")
    return bytes(value)


def _allocated(variable: Variable) -> NDArray[np.uint8]:
    """Room for a variable in global or constant memory, with what it starts with."""
    array = _aligned_zeros(variable.nbytes)
    size = variable.bits // 8
    for number, value in enumerate(variable.values):
        data = (value & (1 << variable.bits) - 1).to_bytes(size, "little")
        array[number * size : (number + 1) * size] = np.frombuffer(data, np.uint8)
    return _read_only(array) if variable.space == "const" else array


def _aligned_zeros(nbytes: int, alignment: int = 256) -> NDArray[np.uint8]:
    buffer = np.zeros(nbytes + alignment, np.uint8)
    first = -buffer.ctypes.data % alignment
    return buffer[first : first + nbytes]


def _read_only(array: NDArray) -> NDArray:
    view = array.view()
    view.flags.writeable = False
    return view


def _range(array: NDArray) -> tuple[int, int, bool]:
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        raise ValueError("arrays that kernels reach are contiguous")
    return array.ctypes.data, array.nbytes, array.flags.writeable


def _three(size: int | Sequence[int]) -> tuple[int, ...]:
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return (*sizes, *(1,) * (3 - len(sizes)))


def _words_after(text: str, word: str) -> list[str]:
    words = text.split()
    return [after for before, after in itertools.pairwise(words) if before.lstrip("(") == word and after[:1].isdigit()]


def compile_cuda(source: str, folder: Path, architecture: str, *options: str) -> str:
    """The PTX that nvcc makes of CUDA C++ text, for "80" or "90a"; source lines are noted in it."""
    import subprocess

    path, target = folder / "kernel.cu", folder / "kernel.ptx"
    path.write_text(source)
    generate = f"arch=compute_{architecture},code=compute_{architecture}"
    command = ["nvcc", "-std=c++17", "-ptx", "-lineinfo", f"-gencode={generate}", *options, str(path), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"nvcc: {done.stderr}")
    return target.read_text()
