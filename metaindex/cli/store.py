"""``search``, ``info`` and ``estimate``: what an index answers from the command line."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from metaindex.cli import arguments, vectors
from metaindex.cli.output import json_text
from metaindex.codecs import CODECS
from metaindex.index import MetaIndex
from metaindex.planning.size import human

_PLACES = {"ram": "in memory", "disk": "on disk"}


def add_parser(commands: Any) -> None:
    search = commands.add_parser("search", help="search an index with a file of query vectors")
    search.add_argument("index")
    search.add_argument("queries", help=arguments.QUERIES)
    arguments.add_search(search)
    search.add_argument("--scorer", default="auto")
    search.set_defaults(run=_search)

    info = commands.add_parser("info", help="what an index holds and how large it is")
    info.add_argument("index")
    info.set_defaults(run=_info)

    estimate = commands.add_parser("estimate", help="how large an index would be")
    estimate.add_argument("documents", type=arguments.from_zero)
    estimate.add_argument("doc_tokens", type=arguments.count)
    estimate.add_argument("dim", type=arguments.count)
    estimate.add_argument("--codec", type=arguments.codec, default="float16", help=arguments.CODEC)
    estimate.add_argument("--early", choices=list(CODECS), help=arguments.EARLY)
    estimate.set_defaults(run=_estimate)

    for command in (search, info, estimate):
        command.add_argument("--json", action="store_true", help="print JSON")


def _search(options: argparse.Namespace) -> int:
    arguments.refuse_what_does_not_fit(options)
    with MetaIndex.open(options.index, trusted=options.trusted) as index:
        result = index.search(
            vectors.read_queries(options.queries),
            options.k,
            budget=options.budget,
            candidates=options.candidates,
            filter=options.filter,
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


def _info(options: argparse.Namespace) -> int:
    with MetaIndex.open(options.index) as index:
        memory = index.memory()
        if options.json:
            print(json_text({"schema": json.loads(index.schema.to_json()), "documents": len(index), "memory": memory}))
            return 0
        print(index)
        if index.default_plan is not None:
            print(f"  {'default plan':<19}  {index.default_plan}")
        if index.encoder is not None:
            print(f"  {'encoder':<19}  {index.encoder}")
    for level in memory["levels"]:
        start, stop = level["tokens"]
        print(f"  tokens {start:>4} to {stop - 1:>4}  {_places(level)}, {level['codec']}, {level['rows']:,} documents")
    print(f"  {'ids, lengths':<19}  {_places(memory['documents'])}")
    print(f"  {'catalog':<19}  {human(memory['catalog']):>10}")
    return 0


def _places(nbytes: dict[str, Any]) -> str:
    """Bytes by place, those places left out that hold none."""
    held = [f"{human(nbytes[place]):>10} {name}" for place, name in _PLACES.items() if nbytes[place]]
    return " and ".join(held) or f"{human(0):>10}"


def _estimate(options: argparse.Namespace) -> int:
    size = MetaIndex.estimate(options.documents, options.doc_tokens, options.dim, options.codec, options.early)
    if options.json:
        levels = [{"start": start, "stop": stop, "bytes": nbytes} for start, stop, nbytes in size.levels]
        print(json_text({"levels": levels, "early": size.copy, "vectors": size.vectors, "total": size.total}))
    else:
        print(size)
    return 0
