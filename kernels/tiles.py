"""Which tile a kernel works on: a pure function of the card, the codec and the shape. Nothing is tuned at run time.

``python -m metaindex.kernels.tiles`` prints the choices for common shapes.

A tile compares some query tokens with some document tokens over some dimensions at a time. Query tokens are the rows of the
matrix product and document tokens its columns: what the matrix unit puts out then lies so that a thread holds many columns of
few rows, and the maximum over a document's tokens is taken in registers but for two shuffles. The other way round every number
would be shuffled three times and go through shared memory.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

INTERPRETER = 0
"""In place of a compute capability: Triton's interpreter, where a program costs milliseconds whatever its size."""
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
_TOKENS = 64  # most of one document in a tile; with 128, budgets such as 300 would be padded to 384


class Card(NamedTuple):
    """A GPU: its compute capability, such as 90 for 9.0, and its number of multiprocessors."""

    capability: int
    processors: int

    @property
    def shared_bytes(self) -> int:
        """Shared memory that one program can have."""
        return {80: 163, 87: 163, 90: 227, 100: 227, 103: 227}.get(self.capability, 99) << 10

    def multiplies_in_shared(self, codec: str) -> bool:
        """Whether its matrix unit takes operands of a codec from shared memory, 64 rows at least, and else from registers."""
        return codec != "float32" and self.capability in (90, 100, 103)


class Problem(NamedTuple):
    """What a tile is chosen for. ``r_c`` and ``r_q`` as they are; N and k are not in it, and of the batch little matters.

    Attributes:
        indirect: which document tokens count must be loaded before they are: lengths differ, or not all rows are allowed.
    """

    codec: str
    dim: int
    r_q: int
    r_c: int
    batch: int
    indirect: bool = False

    @property
    def token_bytes(self) -> int:
        return self.dim * ITEM_BYTES[self.codec]

    @property
    def alignment(self) -> int:
        """The power of two up to 16 that the bytes of a token, and so all addresses, are a multiple of."""
        return min(16, self.token_bytes & -self.token_bytes)


class Tile(NamedTuple):
    """What one program keeps on the chip at a time; all but ``stages`` are powers of two.

    Attributes:
        documents: documents side by side.
        tokens: of each document; where a budget asks for more, a loop keeps the maximum so far.
        queries: queries side by side.
        query_tokens: of each query; where there are more, a loop adds up.
        dims: dimensions of one step; where there are more, a loop accumulates.
        warps: of the program.
        stages: steps whose loads are under way at once.
        programs: that are to share a multiprocessor, and so its registers; 1: no bound on registers.
    """

    documents: int
    tokens: int
    queries: int
    query_tokens: int
    dims: int
    warps: int
    stages: int
    programs: int = 1

    @property
    def rows(self) -> int:
        """Rows of the matrix product: query tokens. 1: without the matrix unit, whose other rows would be padding."""
        return self.queries * self.query_tokens

    @property
    def columns(self) -> int:
        """Columns of the matrix product: document tokens."""
        return self.documents * self.tokens


class Shape(NamedTuple):
    """What a kernel is compiled for: its tile, and classes of shapes, none of which tells N, B or k.

    Attributes:
        scaled: tokens have scales.
        token_blocks: the budget asks for more document tokens than the tile has.
        query_blocks: the queries have more tokens than the tile.
        resident: a query tile stays on the chip for all of a program's documents.
        exact: every document has r_c tokens and the tile is full of them: nothing is to be masked.
        interpreted: runs under Triton's interpreter, which can't do all that a GPU can.
    """

    tile: Tile
    dim: int
    alignment: int
    scaled: bool
    token_blocks: bool
    query_blocks: bool
    resident: bool
    exact: bool
    interpreted: bool


def tile(card: Card, problem: Problem) -> Tile:
    """The tile for a problem."""
    most = 64 if problem.codec == "float32" else 128  # rows that the registers have room for
    tokens, query_tokens = min(_TOKENS, _power(problem.r_c)), min(most, _power(problem.r_q))
    if problem.batch == 1 and query_tokens == 1:
        return _single(card, problem, min(16, tokens))
    rows = _rows(card, problem, query_tokens)
    if problem.batch == 1:
        query_tokens = rows  # one query in a tile, which a gather from lists of their own relies on
    columns, step_bytes, warps, stages, programs = _sizes(card, problem, rows)
    dims = min(_power(problem.dim), step_bytes // ITEM_BYTES[problem.codec])
    dims = max(dims, 32 if problem.codec == "int8" else 16)  # what the matrix unit takes at least
    if card.capability != INTERPRETER:
        columns, dims = _loadable(problem, columns if problem.r_q <= query_tokens else min(64, columns), dims, 32 * warps)
        # Scores become keys of 64 bits, and a thread is not to hold more than 16 of them.
        columns = max(16, min(columns, 16 * 32 * warps * query_tokens // rows * tokens))
    tokens = min(tokens, columns)
    if problem.alignment < 16 or columns > 32 * tokens or problem.r_q > query_tokens:
        programs = 1  # so many addresses, scores or sums take more registers than one of two programs has
    found = Tile(columns // tokens, tokens, rows // query_tokens, query_tokens, dims, warps, stages, programs)
    while found.stages > 1 and shared_bytes(card, problem, found) > card.shared_bytes:
        found = found._replace(stages=found.stages - 1)
    return found._replace(stages=2 * found.stages - 1) if found.stages > 2 and _waits(problem, found) else found


def _waits(problem: Problem, chosen: Tile) -> bool:
    """Whether loads of documents wait for loads of lengths or addresses in the innermost loop, as they do where that is not the
    loop over dimensions. Triton deals stages out evenly to the two: with twice as many, as many documents are under way."""
    return chosen.dims >= problem.dim and (problem.indirect or problem.r_c > chosen.tokens)


def shared_bytes(card: Card, problem: Problem, chosen: Tile) -> int:
    """About what a tile takes of shared memory: documents of its stages, and its queries once or as often."""
    step = chosen.dims * ITEM_BYTES[problem.codec]
    stages = (chosen.stages + 1) // 2 if chosen.stages > 2 and _waits(problem, chosen) else chosen.stages
    # Instructions that work in shared memory need the step they are at beside those under way; others have it in registers.
    in_shared = chosen.rows >= 64 and card.multiplies_in_shared(problem.codec)
    buffers = stages if in_shared else max(1, stages - 1)
    return (chosen.columns * buffers + chosen.rows * (1 if chosen.dims >= problem.dim else buffers)) * step


def _rows(card: Card, problem: Problem, query_tokens: int) -> int:
    """Query tokens of a tile: those of one query, of a few, or of many. The matrix unit takes 16 rows at least, and from sm_90
    on its fastest instruction 64."""
    if problem.batch == 1:
        return max(16, query_tokens)
    if card.capability == INTERPRETER:
        return max(16, min(256, _power(problem.batch) * query_tokens))
    few = problem.batch * query_tokens <= 64 or problem.codec == "float32"
    return max(64 if few else 128, query_tokens)


def _sizes(card: Card, problem: Problem, rows: int) -> tuple[int, int, int, int, int]:
    """Columns, the most bytes of a token in a step, warps, stages and programs."""
    token_bytes = _power(problem.dim) * ITEM_BYTES[problem.codec]
    if card.capability == INTERPRETER:
        return 512, 2048, 1, 1, 1
    if problem.codec == "float32":
        # Multiplied without the matrix unit, which would round to TF32. Wide steps would fill the registers.
        return (128, 128, 4, 3, 1) if rows <= 32 else (64, 128, 8, 3, 1)
    if rows <= 32:
        # Bound by memory: about 32 KB of documents a step, so that what is under way on a multiprocessor covers the latency.
        if token_bytes <= 512:
            return max(64, min(256, (32 << 10) // token_bytes)), 512, 4, 3, 1
        return 128, 256, 4, 3, 1
    if rows <= 64:
        # The shared memory of sm_90 has room for three programs where the query tile stays.
        return (64, 256, 4, 3, 1) if token_bytes <= 256 else (128, 128, 4, 4, 1)
    if not card.multiplies_in_shared(problem.codec):
        # The accumulators of 256 columns and what is multiplied next don't fit the registers together.
        return 128, 256 if token_bytes <= 256 else 128, 8, 3, 1
    if token_bytes <= 256:
        # Two programs share a multiprocessor: one multiplies while the other takes maxima. With three stages of 128 columns
        # only one would fit; with 128 columns of int8 and their scales its registers would not, in Triton 3.6.
        return (64, 256, 8, 3, 2) if problem.codec == "int8" else (128, 256, 8, 2, 2)
    return 256, 128, 8, 3, 1


def _loadable(problem: Problem, columns: int, dims: int, threads: int) -> tuple[int, int]:
    """Columns and dims, cut where tokens are badly aligned: a load brings ``alignment`` bytes at most, and each has an address
    in registers. Below 4 bytes it has its data there too, since copies to shared memory take no fewer."""
    item = ITEM_BYTES[problem.codec]
    most = (16 if problem.alignment >= 4 else 8) * threads * problem.alignment
    while columns * dims * item > most and dims > 32:
        dims //= 2
    while columns * dims * item > most and columns > 16:
        columns //= 2
    return columns, dims


def _single(card: Card, problem: Problem, tokens: int) -> Tile:
    """One query token: inner products number by number, in registers."""
    if card.capability == INTERPRETER:
        return Tile(512 // tokens, tokens, 1, 1, min(_power(problem.dim), 2048), 1, 1)
    dims = min(_power(problem.dim), 256)
    columns = max(tokens, 4096 // dims)
    # Where a token is one step, each program makes a few steps with loads to registers, and there are many programs at a time.
    # Longer tokens are fetched ahead.
    return Tile(columns // tokens, tokens, 1, 1, dims, 4, 1 if dims >= problem.dim else 4)


def shape(problem: Problem, chosen: Tile, *, full: bool, interpreted: bool) -> Shape:
    """The ``Shape`` of a problem with its tile; ``full``: every document has at least r_c tokens."""
    query_blocks = problem.r_q > chosen.query_tokens
    return Shape(
        tile=chosen,
        dim=problem.dim,
        alignment=problem.alignment,
        scaled=problem.codec == "int8",
        token_blocks=problem.r_c > chosen.tokens,
        query_blocks=query_blocks,
        resident=not query_blocks and chosen.rows > 1 and chosen.dims >= problem.dim,
        exact=full and problem.r_c % chosen.tokens == 0,
        interpreted=interpreted,
    )


def run_length(card: Card, chosen: Tile, rows: int, query_tiles: int) -> int:
    """How many documents one program of a scan of ``rows`` documents takes, a power of two: enough that its query tile is worth
    loading, few enough that all multiprocessors have programs to the end."""
    programs = 32 * card.processors
    tiles = rows * query_tiles // (programs * chosen.documents)
    return chosen.documents * min(16, 1 << max(0, tiles.bit_length() - 1))


def _power(number: int) -> int:
    """The power of two that is not below ``number``."""
    return 1 << max(0, number - 1).bit_length()


def main() -> None:
    """Print the tiles for some shapes on some cards."""
    shapes = [(16, 64, 128), (16, 64, 3584), (32, 300, 128), (4, 8, 128), (1, 1, 128), (1, 1, 3584), (16, 64, 250)]
    for capability in (80, 90, 100):
        for codec in ITEM_BYTES:
            for (r_q, r_c, dim), batch in itertools.product(shapes, (1, 4, 64)):
                found = tile(Card(capability, 1), Problem(codec, dim, r_q, r_c, batch))
                numbers = ", ".join(f"{name} {number}" for name, number in found._asdict().items())
                print(f"sm_{capability} {codec:8} {batch:2} x ({r_q}, {r_c}) d {dim:4}: {numbers}")


if __name__ == "__main__":
    main()
