"""Host code of CUDA sources, run as it is: its launches go to the emulator instead of a GPU.

Sources are compiled by nvcc, once for the host and once to PTX for each architecture, and linked to what stands in for the CUDA
runtime. Arrays that kernels may reach have to be named, as they have for ``Module.launch``.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tests.emulator import module
from tests.emulator.tensor_map import NBYTES, TensorMap

_KEPT = Path(__file__).parents[2] / "build" / "emulator"
_RUNTIME = Path(__file__).with_name("runtime") / "cuda_runtime.cpp"
_SWIZZLES = (0, 32, 64, 128)
_ITEMSIZES = {0: 1, 1: 2, 2: 4, 3: 4, 4: 8, 5: 8, 6: 2, 7: 4, 8: 8, 9: 2}  # of CUtensorMapDataType
_LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_uint32),
    ctypes.POINTER(ctypes.c_uint32),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_uint64,
)
_ENCODE = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_uint32,
    ctypes.c_uint64,
    *[ctypes.POINTER(ctypes.c_uint64)] * 2,
    *[ctypes.POINTER(ctypes.c_uint32)] * 2,
    *[ctypes.c_int] * 3,
)


class HostCode:
    """A library of CUDA sources.

    Attributes:
        path: of the library, for whoever loads it by other means; the runtime it needs is loaded already.
        launches: names, grids and blocks of the kernels that were launched, in order.
    """

    def __init__(
        self,
        name: str,
        sources: Sequence[Path],
        *,
        include: Sequence[Path] = (),
        architectures: Sequence[str] = ("80",),
        options: Sequence[str] = (),
        suffix: str = ".so",
    ) -> None:
        folder = _built(name, sources, include, architectures, options, suffix)
        self.path = folder / f"{name}{suffix}"
        self.launches: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
        self._ptx = {
            architecture: [module.load(path.read_text()) for path in sorted(folder.glob(f"*.{architecture}.ptx"))]
            for architecture in architectures
        }
        self._runtime = _runtime()
        self._error: BaseException | None = None
        self._memory: Sequence[NDArray] = ()
        self._options: dict[str, Any] = {}
        self._architecture = architectures[0]
        self._callbacks = _LAUNCH(self._launch), _ENCODE(self._encode)

    def library(self) -> ctypes.CDLL:
        return ctypes.CDLL(str(self.path))

    @contextlib.contextmanager
    def device(
        self, architecture: str, memory: Sequence[NDArray], *, multiprocessors: int = 3, blocks: int = 1, **options: Any
    ) -> Iterator[None]:
        """A device of this architecture for all that is called within; ``options`` as those of ``Module.launch``.

        Raises:
            EmulationError: what a kernel did wrong, when its host code has come back.
        """
        self._architecture, self._memory, self._options, self._error = architecture, memory, options, None
        capability = int(architecture.rstrip("a"))
        self._runtime.emulated_device(*self._callbacks, capability, multiprocessors, blocks)
        try:
            yield
        except Exception as error:
            if self._error is not None:
                raise self._error from error
            raise
        if self._error is not None:
            raise self._error

    def _launch(self, name: bytes, grid, block, args, shared_bytes: int) -> int:
        try:
            kernel = name.decode()
            where = next((one for one in self._ptx[self._architecture] if kernel in one.kernels), None)
            if where is None:
                raise module.EmulationError(f"no kernel {kernel} was compiled for {self._architecture}")
            packed = [ctypes.string_at(args[number], size) for number, size in enumerate(where.parameter_sizes(kernel))]
            self.launches.append((kernel, tuple(grid[:3]), tuple(block[:3])))
            where.launch(kernel, grid[:3], block[:3], packed, shared_bytes=shared_bytes, memory=self._memory, **self._options)
        except BaseException as error:
            self._error = self._error or error
            return 1
        return 0

    def _encode(self, target, kind, rank, address, dims, strides, box, steps, interleave, swizzle, fill) -> int:
        try:
            if interleave or fill:
                raise ValueError("interleaved tensors and other fills than zeros are not emulated")
            sizes = tuple(dims[:rank]), tuple(strides[: rank - 1]), tuple(box[:rank])
            found = TensorMap(address, _ITEMSIZES[kind], *sizes, _SWIZZLES[swizzle], tuple(steps[:rank]))
            ctypes.memmove(target, found.encode(), NBYTES)
        except (ValueError, KeyError, IndexError):
            return 1
        return 0


def _built(
    name: str,
    sources: Sequence[Path],
    include: Sequence[Path],
    architectures: Sequence[str],
    options: Sequence[str],
    suffix: str,
) -> Path:
    """The folder with the library and its PTX."""
    headers = [path for folder in include for path in sorted(folder.rglob("*")) if path.suffix in (".hpp", ".cuh", ".h")]

    def build(folder: Path, temporary: Path) -> None:
        common = ["nvcc", "-std=c++17", "-lineinfo", *(f"-I{path}" for path in include), *options]
        virtual = [f"-gencode=arch=compute_{one},code=compute_{one}" for one in architectures]
        jobs, objects, generated = [], [], {}
        for number, source in enumerate(sources):
            objects.append(f"{temporary}/{number}.o")
            jobs.append([*common, "-O1", "-Xcompiler=-fPIC", *virtual, "-c", str(source), "-o", objects[-1]])
            if source.suffix == ".cu":  # its PTX is made once, for the object, and kept
                left = Path(temporary, str(number))
                left.mkdir()
                jobs[-1] += ["-keep", f"-keep-dir={left}"]
                for one in architectures:
                    made = f"{source.stem}.compute_{one}.ptx" if len(architectures) > 1 else f"{source.stem}.ptx"
                    generated[left / made] = folder / f"{source.stem}.{one}.ptx"
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(_run, jobs))
        for made, target in generated.items():
            shutil.move(made, target)
        _run(["nvcc", "-shared", "-cudart=none", *objects, "-o", f"{folder}/{name}{suffix}"])

    return _kept(name, (architectures, options, suffix), [*sources, *headers], build)


@functools.cache
def _runtime() -> ctypes.CDLL:
    """What stands in for the CUDA runtime, for all libraries: its names are theirs to find."""

    def build(folder: Path, temporary: Path) -> None:
        options = ["-O1", "-shared", "-Xcompiler=-fPIC", "-cudart=none"]
        _run(["nvcc", "-std=c++17", *options, str(_RUNTIME), "-o", f"{folder}/runtime.so"])

    folder = _kept("runtime", (), [_RUNTIME], build)
    return ctypes.CDLL(str(folder / "runtime.so"), mode=ctypes.RTLD_GLOBAL)


def _kept(name: str, settings: tuple, sources: Sequence[Path], build: Callable[[Path, Path], None]) -> Path:
    """A folder that ``build`` fills; kept for as long as all that goes into it stays the same."""
    digest = hashlib.sha256(repr(settings).encode())
    for path in sources:
        digest.update(path.name.encode() + path.read_bytes())
    target = _KEPT / f"{name}-{digest.hexdigest()[:16]}"
    if target.exists():
        return target
    _KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_KEPT) as temporary:
        folder = Path(temporary, name)
        folder.mkdir()
        build(folder, Path(temporary))
        with contextlib.suppress(OSError):  # somebody else was first
            os.replace(folder, target)
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}{done.stdout}")
