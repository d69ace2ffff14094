"""``build``, ``search``, ``explain``, ``info`` and ``estimate``: an index on disk from the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from metaindex.cli import vectors
from metaindex.cli.progress import progress
from metaindex.codecs import CODECS
from metaindex.index import MetaIndex

_BATCH_NUMBERS = 16 << 20


def add_parser(commands: Any) -> None:
    build = commands.add_parser("build", help="make an index from a vector file")
    build.add_argument("index", help="folder to create")
    build.add_argument("vectors", help=".npy, .npz or .safetensors with [N, T, d]; ids and metadata in .jsonl beside it")
    build.add_argument("--codec", choices=list(CODECS), default="float16")
    build.add_argument("--levels", type=_edges, help="level edges such as 1,4,16,64; doubling by default")
    build.add_argument("--normalize", action="store_true", help="divide every vector by its L2 norm")
    build.add_argument("--nested", action=argparse.BooleanOptionalAction, help="whether prefixes of a document stand for it")
    build.set_defaults(run=_build)

    search = commands.add_parser("search", help="search an index with a file of query vectors")
    search.add_argument("index")
    search.add_argument("queries", help=".npy, .npz or .safetensors with [B, R, d] or [R, d]")
    search.add_argument("-k", type=int, default=10)
    search.add_argument("--budget", type=_budget, help="r_q,r_c or one number; everything by default")
    search.add_argument("--candidates", type=int, help="how many documents a scan of level 0 proposes")
    search.add_argument("--plan", help='stages such as "(1,1)>4000 (4,8)>400 (16,64)"')
    search.add_argument("--scorer", default="auto")
    search.set_defaults(run=_search)

    explain = commands.add_parser("explain", help="why a document scored what it did")
    explain.add_argument("index")
    explain.add_argument("queries")
    explain.add_argument("id")
    explain.add_argument("--query", type=int, default=0, metavar="N", help="which query of the file, from 0")
    explain.add_argument("--budget", type=_budget)
    explain.set_defaults(run=_explain)

    info = commands.add_parser("info", help="what an index holds and how large it is")
    info.add_argument("index")
    info.set_defaults(run=_info)

    estimate = commands.add_parser("estimate", help="how large an index would be")
    estimate.add_argument("documents", type=int)
    estimate.add_argument("doc_tokens", type=int)
    estimate.add_argument("dim", type=int)
    estimate.add_argument("--codec", choices=list(CODECS), default="float16")
    estimate.set_defaults(run=_estimate)

    for command in (build, search, explain, info, estimate):
        command.add_argument("--json", action="store_true", help="print JSON")


def _build(options: argparse.Namespace) -> int:
    source = vectors.read(options.vectors)
    _, tokens, dim = source.vectors.shape
    size = max(1, _BATCH_NUMBERS // max(1, tokens * dim))
    with MetaIndex(
        levels=options.levels, codec=options.codec, path=options.index, normalize=options.normalize, nested=options.nested
    ) as index:
        index.add(_shown(source, size), source.ids, source.metadata)
        if options.json:
            print(json.dumps({"documents": len(index), "index": options.index}))
        else:
            print(index)
    return 0


def _shown(source: vectors.VectorFile, size: int) -> Iterator[Any]:
    with progress(total=len(source.vectors), unit="doc", description="building") as bar:
        for batch in source.batches(size):
            yield batch
            bar.update(len(batch))


def _search(options: argparse.Namespace) -> int:
    with MetaIndex.open(options.index) as index:
        result = index.search(
            vectors.read(options.queries).queries(),
            options.k,
            budget=options.budget,
            candidates=options.candidates,
            plan=options.plan,
            scorer=options.scorer,
        )
    if options.json:
        stages = [vars(stage) for stage in result.stats]
        print(json.dumps({"hits": result.to_list(), "exact": result.exact, "plan": result.plan, "stages": stages}))
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
        queries = vectors.read(options.queries).queries()
        if not 0 <= options.query < len(queries):
            raise ValueError(f"--query: expected 0 to {len(queries) - 1}, got {options.query}")
        id_ = options.id if index.schema.id_kind == "text" else int(options.id)
        found = index.explain(queries[options.query], id_, options.budget)
    if options.json:
        build_up = [{"budget": list(budget), "score": score} for budget, score in found.build_up]
        chosen = {"tokens": found.tokens.tolist(), "similarities": found.similarities.tolist()}
        print(json.dumps({"id": found.id, "budget": list(found.budget), "score": found.score, **chosen, "build_up": build_up}))
    else:
        print(found)
    return 0


def _info(options: argparse.Namespace) -> int:
    with MetaIndex.open(options.index) as index:
        memory = index.memory()
        if options.json:
            print(json.dumps({"schema": json.loads(index.schema.to_json()), "documents": len(index), "memory": memory}))
            return 0
        print(index)
        for name, value in memory.items():
            print(f"  {name}: {value}")
    return 0


def _estimate(options: argparse.Namespace) -> int:
    size = MetaIndex.estimate(options.documents, options.doc_tokens, options.dim, options.codec)
    if options.json:
        levels = [{"start": start, "stop": stop, "bytes": nbytes} for start, stop, nbytes in size.levels]
        print(json.dumps({"levels": levels, "vectors": size.vectors, "total": size.total}))
    else:
        print(size)
    return 0


def _edges(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _budget(text: str) -> int | tuple[int, int]:
    parts = [int(part) for part in text.strip("()").split(",")]
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])
