"""``verify`` and ``repair``: whether an index is whole, and what can be kept of one that is not."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from metaindex.cli import arguments
from metaindex.cli.output import json_text
from metaindex.errors import CorruptIndexError
from metaindex.index import MetaIndex

_DAMAGED = 1


def add_parser(commands: Any) -> None:
    verify = commands.add_parser("verify", help="read every file of an index and say what is damaged")
    verify.add_argument("index")
    sampled = "how many documents to score by two scorers"
    verify.add_argument("--sample", type=arguments.from_zero, default=100, metavar="N", help=sampled)
    verify.set_defaults(run=_verify)

    repair = commands.add_parser("repair", help="say which documents a damaged index has lost, and with --apply drop them")
    repair.add_argument("index")
    repair.add_argument("--apply", action="store_true", help="change the index; without it nothing is changed")
    repair.set_defaults(run=_repair)

    for command in (verify, repair):
        command.add_argument("--json", action="store_true", help="print JSON")


def _verify(options: argparse.Namespace) -> int:
    try:
        with MetaIndex.open(options.index) as index:
            found = index.verify(sample=options.sample)
    except CorruptIndexError as error:  # too damaged to be opened
        if not options.json:
            raise
        print(json_text({"ok": False, "damage": [{"what": str(error)}], "index": options.index}))
        return _DAMAGED
    print(json_text({**asdict(found), "index": options.index}) if options.json else found)
    return 0 if found.ok else _DAMAGED


def _repair(options: argparse.Namespace) -> int:
    found = MetaIndex.repair(options.index, apply=options.apply)
    print(json_text({**asdict(found), "index": options.index}) if options.json else found)
    if found.possible and found.damage and not found.applied and not options.json:
        print("nothing was changed; --apply drops them")
    return _DAMAGED if found.damage and not found.applied else 0
