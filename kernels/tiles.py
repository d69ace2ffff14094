"""Which tile a kernel works on: a pure function of the card, the codec and the shape. Nothing is tuned at run time.

``python -m metaindex.kernels.tiles`` prints the choices for the shapes of docs/design.md.

A tile compares some query tokens with some document tokens over some dimensions at a time. Query tokens are the rows of the
matrix product and document tokens its columns: what the matrix unit puts out then lies so that a thread holds many columns of
few rows, and the maximum over a document's tokens is taken in registers but for two shuffles. The other way round every number
would be shuffled three times and go through shared memory.
"""

from __future__ import annotations

from typing import NamedTuple

INTERPRETER = 0
"""In place of a compute capability: Triton's interpreter, where a program costs milliseconds whatever its size."""
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
_TOKENS = 64  # most of one document in a tile; with 128, budgets such as 300 would be padded to 384
_QUERY_TOKENS = 128


class Card(NamedTuple):
    """A GPU: its compute capability, such as 90 for 9.0, and its number of multiprocessors."""

    capability: int
    processors: int

    @property
    def shared_bytes(self) -> int:
        """Shared memory that one program can have."""
        return {80: 163, 87: 163, 90: 227, 100: 227, 103: 227}.get(self.capability, 99) << 10


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
    """

    documents: int
    tokens: int
    queries: int
    query_tokens: int
    dims: int
    warps: int
    stages: int

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
        token_blocks: the budget asks for more document tokens than the tile has.
        query_blocks: the queries have more tokens than the tile.
        resident: a query tile stays on the chip for all of a program's documents.
        exact: every document has r_c tokens and the tile is full of them: nothing is to be masked.
        interpreted: runs under Triton's interpreter, which can't do all that a GPU can.
    """

    tile: Tile
    dim: int
    alignment: int
    token_blocks: bool
    query_blocks: bool
    resident: bool
    exact: bool
    interpreted: bool


def tile(card: Card, problem: Problem) -> Tile:
    """The tile for a problem."""
    tokens, query_tokens = min(_TOKENS, _power(problem.r_c)), min(_QUERY_TOKENS, _power(problem.r_q))
    if problem.batch == 1 and query_tokens == 1:
        return _single(card, problem, tokens)
    rows = _rows(problem, query_tokens)
    if problem.batch == 1:
        query_tokens = rows  # one query in a tile, which a gather from lists of their own relies on
    columns, step_bytes, warps, stages = _matrix(card, problem, rows)
    dims = min(_power(problem.dim), step_bytes // ITEM_BYTES[problem.codec])
    dims = max(dims, 32 if problem.codec == "int8" else 16)  # what the matrix unit takes at least
    # A load brings at most `alignment` bytes, each with an address of its own; more than these would fill the registers.
    loads = 32 * 32 * warps if card.capability != INTERPRETER else columns * dims * 16
    while columns * dims * ITEM_BYTES[problem.codec] // problem.alignment > loads and dims > 32:
        dims //= 2
    while columns * dims * ITEM_BYTES[problem.codec] // problem.alignment > loads and columns > 16:
        columns //= 2
    tokens = min(tokens, columns)
    if problem.indirect and dims >= problem.dim:
        # Loads of documents wait for loads of lengths, and Triton deals stages out evenly to the two: twice as many keep as
        # many documents under way.
        stages = 2 * stages - 1
    return Tile(columns // tokens, tokens, rows // query_tokens, query_tokens, dims, warps, stages)


def _rows(problem: Problem, query_tokens: int) -> int:
    """Query tokens of a tile: one query, a few, or many. The matrix unit takes 16 rows at least, and from sm_90 on its fastest
    instruction 64."""
    if problem.batch == 1:
        return max(16, query_tokens)
    few = problem.batch * query_tokens <= 64 or problem.codec == "float32"
    return max(64 if few else 128, query_tokens)


def _matrix(card: Card, problem: Problem, rows: int) -> tuple[int, int, int, int]:
    """Columns, the most bytes of a token in a step, warps and stages."""
    token_bytes = _power(problem.dim) * ITEM_BYTES[problem.codec]
    if card.capability == INTERPRETER:
        return 256, 4096, 1, 1
    if problem.codec == "float32":
        # Multiplied without the matrix unit, which would round to TF32. Wide steps would fill the registers.
        return (128, 128, 4, 3) if rows <= 32 else (64, 128, 8, 3)
    if rows <= 32:
        # Bound by memory: about 32 KB of documents a step, so that what is under way on a multiprocessor covers the latency.
        if token_bytes <= 512:
            return max(64, min(256, (32 << 10) // token_bytes)), 512, 4, 3
        return 128, 256, 4, 3
    if rows <= 64:
        return (128, 256, 4, 3) if token_bytes <= 256 else (128, 128, 4, 4)
    if token_bytes <= 256:
        # The query tile stays, and two programs share a multiprocessor: one multiplies while the other takes maxima. Three
        # stages would leave room for one.
        return 128, 256, 8, 2
    if card.shared_bytes > 150 << 10:
        return 256, 128, 8, 3
    return 128, 128, 8, 3


def _single(card: Card, problem: Problem, tokens: int) -> Tile:
    """One query token: inner products number by number, in registers."""
    warps, stages, dims = 4, 4, min(_power(problem.dim), 256)
    tokens = min(tokens, 16)
    columns = max(16, 4096 // dims)
    if card.capability == INTERPRETER:
        columns, dims, warps, stages = 256, min(_power(problem.dim), 4096), 1, 1
    elif dims >= problem.dim:
        stages = 1  # each program takes its few steps with loads to registers; many programs cover the latency
    return Tile(columns // tokens, tokens, 1, 1, dims, warps, stages)


def shape(problem: Problem, chosen: Tile, *, full: bool, interpreted: bool) -> Shape:
    """The ``Shape`` of a problem with its tile; ``full``: every document has at least r_c tokens."""
    query_blocks = problem.r_q > chosen.query_tokens
    return Shape(
        tile=chosen,
        dim=problem.dim,
        alignment=problem.alignment,
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
