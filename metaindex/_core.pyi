"""The compiled kernels of metaindex: MaxSim over levels, top k, encoders, nested order. Arrays are numpy's, checked on entry.

Wrong arrays raise ValueError naming the argument, what was expected and what came. Compute runs without the GIL.
"""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

class LevelTable:
    """Pointers to the first levels of a snapshot; keeps the arrays alive.

    Level l holds tokens [starts[l], starts[l] + widths[l]). A segment is (levels, lengths int32 [rows], falling; sequence
    int64 [rows]), its levels pairs of codes [rows_l, width_l, dim] and scales float32 [rows_l, width_l] or None.
    bfloat16 codes are uint16.
    """

    def __init__(
        self,
        codec: str,
        dim: int,
        starts: Sequence[int],
        widths: Sequence[int],
        segments: Sequence[tuple[Sequence[tuple[NDArray[Any], NDArray[Any] | None]], NDArray[Any], NDArray[Any]]],
    ) -> None: ...
    @property
    def codec(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def rows(self) -> int: ...

def features() -> dict[str, tuple[bool, str]]:
    """Whether each instruction set can be used here, and why; the least preferred first."""

def serves(isa: str, codec: str) -> tuple[bool, str]:
    """Whether the instruction set has a kernel for the codec here, and why."""

def default_isa(codec: str) -> str:
    """The instruction set that serves the codec best here."""

def kernel(isa: str, codec: str, lanes: int, dim: int) -> str:
    """The name of the kernel that scores ``lanes`` query tokens of ``dim`` dimensions."""

def maxsim_scan(
    table: LevelTable,
    codes: NDArray[Any],
    scales: NDArray[Any] | None,
    lengths: NDArray[Any],
    r_q: int,
    r_c: int,
    out_scores: NDArray[Any],
    out_rows: NDArray[Any] | None = None,
    allow: NDArray[Any] | None = None,
    isa: str | None = None,
    num_threads: int = 1,
) -> None:
    """Score queries, codes [B, R, d], scales float32 [B, R] for int8, lengths int32 [B], against every document.

    Fills ``out_scores`` float32 [B, rows], -inf where ``allow`` bool [rows] is False. With ``out_rows`` int64 [B, k], both take
    the k best of each query, equal scores by sequence, padded with -inf and -1.
    """

def maxsim_gather(
    table: LevelTable,
    codes: NDArray[Any],
    scales: NDArray[Any] | None,
    lengths: NDArray[Any],
    r_q: int,
    r_c: int,
    candidates: NDArray[Any],
    out_scores: NDArray[Any],
    out_rows: NDArray[Any] | None = None,
    allow: NDArray[Any] | None = None,
    isa: str | None = None,
    num_threads: int = 1,
) -> None:
    """As ``maxsim_scan`` over ``candidates`` int64 [B, C] or [1, C]; -1 is none. Repeats count once among the best."""

def topk(
    scores: NDArray[Any],
    sequence: NDArray[Any] | None,
    out_scores: NDArray[Any],
    out_columns: NDArray[Any],
    num_threads: int = 1,
) -> None:
    """The k best columns of scores float32 [B, N], best first, into float32 and int64 [B, k].

    Equal scores rank by ``sequence`` int64 [N], or by column; -inf and NaN are left out.
    """

def encode(
    codec: str,
    tokens: NDArray[Any],
    codes: NDArray[Any],
    scales: NDArray[Any] | None = None,
    isa: str | None = None,
    num_threads: int = 1,
) -> None:
    """Encode tokens float32 [n, m, d] into codes [n, m, d] and scales float32 [n, m]; all but the last axis may be strided."""

def nest(
    order: str,
    tokens: Sequence[NDArray[Any]],
    vectors: Sequence[NDArray[Any]],
    places: Sequence[NDArray[Any]],
    seed: int = 0,
    isa: str | None = None,
    num_threads: int = 1,
) -> None:
    """Put documents, tokens float32 [t, d], into nested order: fills vectors float32 [k, d] and places int64 [k] of tokens,
    where -1 stands for what is none.

    The same bits for any instruction set and number of threads.
    """

def nested_size(order: str, count: int) -> int:
    """How many vectors the whole order of ``count`` tokens has."""

CUDA_RUN_ROWS: int
"""The size of the runs of rows that ``cuda_maxsim_scan`` takes."""

class DeviceTable:
    """Addresses on a GPU; see ``metaindex.device.table``. ``addresses`` has those of its tensors by name, 0 for ``None``."""

    def __init__(
        self, codec: str, dim: int, rows: int, segments: int, levels: int, tokens: int, full: bool, addresses: dict[str, int]
    ) -> None: ...

class DeviceQueries:
    """Encoded queries on a GPU; see ``metaindex.device.operations``."""

    def __init__(self, codes: int, scales: int, lengths: int, batch: int, tokens: int) -> None: ...

class DeviceOutput:
    """Scores float32 [batch, columns] to fill on a GPU, or hits to append to; see ``metaindex.device.operations.Hits``."""

    @staticmethod
    def of_scores(scores: int, columns: int) -> DeviceOutput: ...
    @staticmethod
    def of_hits(keys: int, counts: int, thresholds: int, capacity: int) -> DeviceOutput: ...

class DeviceQueue:
    """A GPU by number and one of its streams."""

    def __init__(self, device: int, stream: int) -> None: ...

def cuda_built() -> bool:
    """Whether this module was compiled with CUDA; else what works on a GPU raises RuntimeError."""

def cuda_cards() -> list[tuple[int, int, int]]:
    """The GPUs of this machine: capability (80 for 8.0), multiprocessors, bytes of shared memory that a block may have."""

def cuda_tile(
    codec: str, dim: int, batch: int, tokens: int, r_c: int, documents: int, own_lists: bool, card: tuple[int, int, int]
) -> str:
    """How a MaxSim operation is cut up on a card, one of ``cuda_cards``, and why: a pure function."""

def cuda_maxsim_scan(
    table: DeviceTable,
    queries: DeviceQueries,
    r_c: int,
    runs: int,
    count: int,
    allow: int,
    output: DeviceOutput,
    queue: DeviceQueue,
) -> None:
    """Score runs of rows int32 [count, 3]; see ``metaindex.device.operations``."""

class DeviceScanBoxes:
    """What a scan on compute capability 9.0 reads of a table's levels at one r_c, besides the table.

    Levels are given as the host knows them: ``codes`` [S][L], addresses on the device; ``rows`` [S][L], how many documents of
    each segment reach each level; their ``starts`` and ``widths``.
    """

    def __init__(
        self,
        codec: str,
        dim: int,
        codes: Sequence[Sequence[int]],
        rows: Sequence[Sequence[int]],
        starts: Sequence[int],
        widths: Sequence[int],
        r_c: int,
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def run_rows(self) -> int:
        """The size of the runs of rows that the scan takes."""

    def write(self, host: int) -> None:
        """Write ``nbytes`` to host memory at a multiple of 64, for the device at a multiple of 128. RuntimeError: the driver
        refuses."""

def cuda_maxsim_scan_sm90(
    table: DeviceTable,
    queries: DeviceQueries,
    runs: int,
    count: int,
    allow: int,
    output: DeviceOutput,
    boxes: DeviceScanBoxes,
    memory: int,
    queue: DeviceQueue,
) -> None:
    """The same on compute capability 9.0, at the r_c of ``boxes``, of which ``memory`` on the device holds what they wrote."""

def cuda_serves_sm90(codec: str, dim: int, r_c: int, tokens: int, resident: bool, capability: int) -> tuple[bool, str]:
    """Whether ``cuda_maxsim_scan_sm90`` serves queries of so many tokens, and why. ``resident``: all levels lie on the device
    itself."""

def cuda_scan_path(
    codec: str,
    dim: int,
    batch: int,
    tokens: int,
    r_c: int,
    documents: int,
    resident: bool,
    card: tuple[int, int, int],
) -> tuple[str, str]:
    """Which kernels do a scan on a card, one of ``cuda_cards``: "portable" or "sm90", and how and why: a pure function."""

def cuda_maxsim_gather(
    table: DeviceTable,
    queries: DeviceQueries,
    r_c: int,
    rows: int,
    lists: int,
    count: int,
    allow: int,
    output: DeviceOutput,
    queue: DeviceQueue,
) -> None:
    """Score candidates int64 [lists, count], one list for all queries or one for each."""

def cuda_topk_scratch_bytes(batch: int, columns: int, k: int) -> int:
    """Bytes of scratch memory that ``cuda_topk`` needs."""

def cuda_topk(keys: int, counts: int, batch: int, columns: int, k: int, scratch: int, best: int, queue: DeviceQueue) -> None:
    """The k largest of the first counts int32 [batch] of keys int64 [batch, columns], falling, into best int64 [batch, k]."""
