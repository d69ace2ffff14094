"""``explain`` and ``why-not``: why a document scored what it did, and why it was not found."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from metaindex.cli import arguments, vectors
from metaindex.cli.output import json_text
from metaindex.execution.explain import Explanation, Reached
from metaindex.execution.why_not import Standing
from metaindex.index import MetaIndex


def add_parser(commands: Any) -> None:
    explain = commands.add_parser("explain", help="why a document scored what it did")
    why_not = commands.add_parser("why-not", help="at which stage a search loses a document, and by how much")
    for command in (explain, why_not):
        command.add_argument("index")
        command.add_argument("queries", help=arguments.QUERIES)
        command.add_argument("id")
        command.add_argument("--query", type=arguments.from_zero, default=0, metavar="N", help="which one, from 0")
        command.add_argument("--json", action="store_true", help="print JSON")
    explain.add_argument("--budget", type=arguments.budget)
    explain.set_defaults(run=_explain)
    arguments.add_search(why_not)
    why_not.set_defaults(run=_why_not)


def _explain(options: argparse.Namespace) -> int:
    with MetaIndex.open(options.index) as index:
        found = index.explain(_query(options), _id(options, index), options.budget)
    if options.json:
        print(json_text({"id": found.id, **_reached(found), "build_up": [_reached(each) for each in found.build_up]}))
    else:
        print(found)
    return 0


def _why_not(options: argparse.Namespace) -> int:
    arguments.refuse_what_does_not_fit(options)
    with MetaIndex.open(options.index, trusted=options.trusted) as index:
        found = index.why_not(
            _query(options),
            _id(options, index),
            options.plan,
            options.k,
            budget=options.budget,
            candidates=options.candidates,
            filter=options.filter,
        )
    if options.json:
        told = {**asdict(found), "rank": found.rank}
        told["stages"] = [_standing(each) for each in found.stages]
        told["exact"] = None if found.exact is None else _standing(found.exact)
        print(json_text(told))
    else:
        print(found)
    return 0


def _query(options: argparse.Namespace) -> Any:
    queries = vectors.read_queries(options.queries)
    if options.query >= len(queries):
        raise ValueError(f"--query: expected less than {len(queries)}, how many queries there are, got {options.query}")
    return queries[options.query]


def _id(options: argparse.Namespace, index: MetaIndex) -> int | str:
    return arguments.document_id(options.id, index.schema.id_kind)


def _reached(at: Explanation | Reached) -> dict[str, Any]:
    chosen = {"tokens": at.tokens.tolist(), "similarities": at.similarities.tolist()}
    return {"budget": list(at.budget), "score": at.score, **chosen}


def _standing(standing: Standing) -> dict[str, Any]:
    return {**asdict(standing), "kept": standing.kept, "margin": standing.margin}
