"""``build``, ``add``, ``remove`` and ``compact``: what changes an index from the command line."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metaindex.cli import arguments, vectors
from metaindex.cli.output import json_text
from metaindex.cli.progress import Progress
from metaindex.codecs import CODECS
from metaindex.index import MetaIndex
from metaindex.planning.size import human

_BATCH_NUMBERS = 16 << 20
_BATCH_DOCUMENTS = 16 << 10  # the metadata of a batch is in memory at once
_VECTORS = ".npy, .npz or .safetensors with [N, T, d]; ids and metadata in .jsonl beside it"


def add_parser(commands: Any) -> None:
    build = commands.add_parser("build", help="make an index from a vector file")
    build.add_argument("index", help="folder to create")
    build.add_argument("vectors", help=_VECTORS)
    build.add_argument("--codec", type=arguments.codec, default="float16", help=arguments.CODEC)
    build.add_argument("--early", choices=list(CODECS), help=arguments.EARLY)
    build.add_argument("--levels", type=arguments.edges, help="level edges such as 1,4,16,64; doubling by default")
    build.add_argument("--normalize", action="store_true", help="divide every vector by its L2 norm")
    build.add_argument("--nested", action=argparse.BooleanOptionalAction, help="whether prefixes of a document stand for it")
    build.add_argument(
        "--coarse",
        metavar="KIND",
        help='a FAISS index in front, such as "IVF1024,Flat", "HNSW32" or "fde,Flat"; see docs/tuning.md',
    )
    build.add_argument("--field", action="append", metavar="NAME", help="index this metadata field for filters; repeatable")
    build.set_defaults(run=_build)

    add = commands.add_parser("add", help="add the documents of a vector file: all of them or none")
    add.add_argument("index")
    add.add_argument("vectors", help=_VECTORS)
    add.add_argument("--upsert", action="store_true", help="replace the documents whose ids are taken")
    add.set_defaults(run=_add)

    remove = commands.add_parser("remove", help="remove documents: all that are named or none")
    remove.add_argument("index")
    remove.add_argument("ids", nargs="*", metavar="ID")
    remove.add_argument("--ids-file", metavar="FILE", help="one id in each line, empty lines left out; - for standard input")
    remove.add_argument("--filter", type=arguments.json_object, metavar="JSON", help=arguments.FILTER)
    remove.add_argument(
        "--missing", choices=("raise", "ignore"), help="what ids that are not in the index do; raise by default"
    )
    remove.set_defaults(run=_remove, refuse=remove.error)

    compact = commands.add_parser("compact", help="give back the room of removed documents and merge small segments")
    compact.add_argument("index")
    compact.add_argument("--purge", action="store_true", help="leave no byte of a removed document in any file")
    compact.set_defaults(run=_compact)

    for command in (build, add, remove, compact):
        command.add_argument("--json", action="store_true", help="print JSON")


def _build(options: argparse.Namespace) -> int:
    source = vectors.read(options.vectors)
    with _new_index(options, source.vectors.shape[-1]) as index:
        index.add(_shown(source, "building"), source.ids, source.metadata)
        made = json_text({"documents": len(index), "index": options.index}) if options.json else str(index)
    print(made)
    return 0


@contextmanager
def _new_index(options: argparse.Namespace, dim: int) -> Iterator[MetaIndex]:
    """An empty index in a new folder, which goes away again when the block fails."""
    # Refuses a path where something stands, so the folder below is this call's own.
    index = MetaIndex(
        None if options.coarse is None else dim,  # what FAISS can't make of that many dimensions is refused before any work
        levels=options.levels,
        codec=options.codec,
        early=options.early,
        path=options.index,
        normalize=options.normalize,
        nested=options.nested,
        fields=options.field,
        coarse=options.coarse,
    )
    try:
        with index:
            yield index
    except BaseException:
        shutil.rmtree(options.index, ignore_errors=True)
        raise


def _add(options: argparse.Namespace) -> int:
    with MetaIndex.open(options.index, "r+") as index:
        source = vectors.read(options.vectors)
        before, given = len(index), len(source.vectors)
        if not options.upsert:
            index.add(_shown(source, "adding"), source.ids, source.metadata)
        elif source.ids is None:
            lines = Path(options.vectors).with_suffix(".jsonl")
            raise ValueError(
                f'--upsert: expected the ids of the documents to replace, as "id" in every line of {lines}, got none'
            )
        else:
            index.upsert(_shown(source, "adding"), source.ids, source.metadata)
        replaced = before + given - len(index)
        done = {"added": given - replaced, "replaced": replaced, "documents": len(index), "index": options.index}
        shown = str(index)
    print(json_text(done) if options.json else f"{_counted(given)} added, {replaced:,} of them in place of others\n{shown}")
    return 0


def _shown(source: vectors.VectorFile, description: str) -> Iterator[Any]:
    """The documents batch by batch, with a bar that moves as they are taken."""
    _, tokens, dim = source.vectors.shape
    size = max(1, min(_BATCH_DOCUMENTS, _BATCH_NUMBERS // max(1, tokens * dim)))
    with Progress(total=len(source.vectors), unit="doc", description=description) as bar:
        for batch in source.batches(size):
            yield batch
            bar.update(len(batch))


def _remove(options: argparse.Namespace) -> int:
    ways = (bool(options.ids), options.ids_file is not None, options.filter is not None)
    if sum(ways) != 1:
        options.refuse("what to remove: expected one of ID..., --ids-file and --filter")
    if options.filter is not None and options.missing is not None:
        options.refuse("--missing: it is about ids; give it without --filter")
    texts = options.ids if options.ids_file is None else _lines(options.ids_file)
    with MetaIndex.open(options.index, "r+") as index:
        if options.filter is not None:
            removed = index.remove(filter=options.filter)
        else:
            ids = [arguments.document_id(text, index.schema.id_kind) for text in texts]
            removed = index.remove(ids, missing=options.missing or "raise")
        done = {"removed": removed, "documents": len(index), "index": options.index}
        shown = str(index)
    print(json_text(done) if options.json else f"{_counted(removed)} removed\n{shown}")
    return 0


def _lines(path: str) -> list[str]:
    data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    try:
        lines = data.decode().split("\n")  # str.splitlines also cuts where ids may well have a character
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8, one id in each line: {error}") from None
    return [line for line in (line.removesuffix("\r") for line in lines) if line]


def _compact(options: argparse.Namespace) -> int:
    with MetaIndex.open(options.index, "r+") as index:
        before = _nbytes(index)
        index.compact(purge=options.purge)
        after = _nbytes(index)
        done = {
            "documents": len(index),
            "bytes_before": before,
            "bytes": after,
            "purged": options.purge,
            "index": options.index,
        }
        shown = str(index)
    print(json_text(done) if options.json else f"{human(before)} before, {human(after)} now\n{shown}")
    return 0


def _nbytes(index: MetaIndex) -> int:
    """Bytes of vectors, ids, lengths and the catalog on disk."""
    memory = index.memory()
    return int(sum(level["disk"] for level in memory["levels"]) + memory["documents"]["disk"] + memory["catalog"])


def _counted(count: int) -> str:
    return f"{count:,} document{'' if count == 1 else 's'}"
