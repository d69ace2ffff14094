"""``build``, ``search``, ``explain``, ``info`` and ``estimate``: an index on disk from the command line."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from metaindex.cli import arguments, vectors
from metaindex.cli.output import json_text
from metaindex.cli.progress import Progress
from metaindex.codecs import CODECS
from metaindex.index import MetaIndex
from metaindex.planning.size import human

_BATCH_NUMBERS = 16 << 20
_PLACES = {"ram": "in memory", "disk": "on disk"}
_QUERIES = ".npy, .npz or .safetensors with [B, R, d] or [R, d]"


def add_parser(commands: Any) -> None:
    build = commands.add_parser("build", help="make an index from a vector file")
    build.add_argument("index", help="folder to create")
    build.add_argument("vectors", help=".npy, .npz or .safetensors with [N, T, d]; ids and metadata in .jsonl beside it")
    build.add_argument("--codec", choices=list(CODECS), default="float16")
    build.add_argument("--levels", type=arguments.edges, help="level edges such as 1,4,16,64; doubling by default")
    build.add_argument("--normalize", action="store_true", help="divide every vector by its L2 norm")
    build.add_argument("--nested", action=argparse.BooleanOptionalAction, help="whether prefixes of a document stand for it")
    build.set_defaults(run=_build)

    search = commands.add_parser("search", help="search an index with a file of query vectors")
    search.add_argument("index")
    search.add_argument("queries", help=_QUERIES)
    search.add_argument("-k", type=arguments.count, default=10)
    search.add_argument("--budget", type=arguments.budget, help="r_q,r_c or one number; everything by default")
    search.add_argument("--candidates", type=arguments.count, help="how many documents a scan of level 0 proposes")
    search.add_argument("--plan", type=arguments.plan, help='stages such as "(1,1)>4000 (4,8)>400 (16,64)"')
    search.add_argument("--scorer", default="auto")
    search.set_defaults(run=_search, refuse=search.error)

    explain = commands.add_parser("explain", help="why a document scored what it did")
    explain.add_argument("index")
    explain.add_argument("queries", help=_QUERIES)
    explain.add_argument("id")
    explain.add_argument("--query", type=arguments.from_zero, default=0, metavar="N", help="which query of the file, from 0")
    explain.add_argument("--budget", type=arguments.budget)
    explain.set_defaults(run=_explain)

    info = commands.add_parser("info", help="what an index holds and how large it is")
    info.add_argument("index")
    info.set_defaults(run=_info)

    estimate = commands.add_parser("estimate", help="how large an index would be")
    estimate.add_argument("documents", type=arguments.from_zero)
    estimate.add_argument("doc_tokens", type=arguments.count)
    estimate.add_argument("dim", type=arguments.count)
    estimate.add_argument("--codec", choices=list(CODECS), default="float16")
    estimate.set_defaults(run=_estimate)

    for command in (build, search, explain, info, estimate):
        command.add_argument("--json", action="store_true", help="print JSON")


def _build(options: argparse.Namespace) -> int:
    source = vectors.read(options.vectors)
    _, tokens, dim = source.vectors.shape
    size = max(1, _BATCH_NUMBERS // max(1, tokens * dim))
    with _new_index(options) as index:
        index.add(_shown(source, size), source.ids, source.metadata)
        made = json_text({"documents": len(index), "index": options.index}) if options.json else str(index)
    print(made)
    return 0


@contextmanager
def _new_index(options: argparse.Namespace) -> Iterator[MetaIndex]:
    """An empty index in a new folder, which goes away again when the block fails."""
    # Refuses a path where something stands, so the folder below is this call's own.
    index = MetaIndex(
        levels=options.levels, codec=options.codec, path=options.index, normalize=options.normalize, nested=options.nested
    )
    try:
        with index:
            yield index
    except BaseException:
        shutil.rmtree(options.index, ignore_errors=True)
        raise


def _shown(source: vectors.VectorFile, size: int) -> Iterator[Any]:
    with Progress(total=len(source.vectors), unit="doc", description="building") as bar:
        for batch in source.batches(size):
            yield batch
            bar.update(len(batch))


def _search(options: argparse.Namespace) -> int:
    if options.plan is not None and (options.budget is not None or options.candidates is not None):
        options.refuse("--plan: a plan sets budgets and candidates itself; give it without --budget and --candidates")
    if options.candidates is not None and options.candidates < options.k:
        options.refuse(f"--candidates: expected at least k = {options.k}, got {options.candidates}")
    with MetaIndex.open(options.index) as index:
        result = index.search(
            vectors.read_queries(options.queries),
            options.k,
            budget=options.budget,
            candidates=options.candidates,
            plan=options.plan,
            scorer=options.scorer,
        )
    if options.json:
        stages = [asdict(stage) for stage in result.stats]
        print(json_text({"hits": result.to_list(), "exact": result.exact, "plan": result.plan, "stages": stages}))
        return 0
    for number, hits in enumerate(result.to_list()):
        print(f"query {number}")
        for rank, hit in enumerate(hits, 1):
            print(f"  {rank:>3}  {hit['score']:>10.4f}  {hit['id']}")
    print("exact" if result.exact else "approximate")
    for stage in result.stats:
        print(f"  {stage}")
    return 0


def _explain(options: argparse.Namespace) -> int:
    with MetaIndex.open(options.index) as index:
        queries = vectors.read_queries(options.queries)
        if options.query >= len(queries):
            raise ValueError(f"--query: expected less than {len(queries)}, how many queries there are, got {options.query}")
        found = index.explain(queries[options.query], _id(options.id, index.schema.id_kind), options.budget)
    if options.json:
        build_up = [{"budget": list(budget), "score": score} for budget, score in found.build_up]
        chosen = {"tokens": found.tokens.tolist(), "similarities": found.similarities.tolist()}
        print(json_text({"id": found.id, "budget": list(found.budget), "score": found.score, **chosen, "build_up": build_up}))
    else:
        print(found)
    return 0


def _id(text: str, kind: str | None) -> int | str:
    if kind != "int":
        return text
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"id: expected an integer, which all ids of this index are, got {text!r}") from None


def _info(options: argparse.Namespace) -> int:
    with MetaIndex.open(options.index) as index:
        memory = index.memory()
        if options.json:
            print(json_text({"schema": json.loads(index.schema.to_json()), "documents": len(index), "memory": memory}))
            return 0
        print(index)
    for level in memory["levels"]:
        start, stop = level["tokens"]
        print(f"  tokens {start:>4} to {stop - 1:>4}  {_places(level)}, {level['rows']:,} documents")
    print(f"  {'ids, lengths':<19}  {_places(memory['documents'])}")
    print(f"  {'catalog':<19}  {human(memory['catalog']):>10}")
    return 0


def _places(nbytes: dict[str, Any]) -> str:
    """Bytes by place, those places left out that hold none."""
    held = [f"{human(nbytes[place]):>10} {name}" for place, name in _PLACES.items() if nbytes[place]]
    return " and ".join(held) or f"{human(0):>10}"


def _estimate(options: argparse.Namespace) -> int:
    size = MetaIndex.estimate(options.documents, options.doc_tokens, options.dim, options.codec)
    if options.json:
        levels = [{"start": start, "stop": stop, "bytes": nbytes} for start, stop, nbytes in size.levels]
        print(json_text({"levels": levels, "vectors": size.vectors, "total": size.total}))
    else:
        print(size)
    return 0
