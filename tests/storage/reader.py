"""A second reader of index folders, written from docs/format.md alone: it shares no line and no import with metaindex.

``python tests/storage/reader.py FOLDER`` prints what stands in an index.
"""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
import stat
import struct
import sys
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

TABLES = {
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE segments (number INTEGER PRIMARY KEY, rows INTEGER NOT NULL, bytes INTEGER NOT NULL, "
    "checksum INTEGER NOT NULL, created INTEGER NOT NULL)",
    "CREATE TABLE levels (segment INTEGER NOT NULL, level INTEGER NOT NULL, rows INTEGER NOT NULL, bytes INTEGER NOT NULL, "
    "checksum INTEGER NOT NULL, PRIMARY KEY (segment, level)) WITHOUT ROWID",
    "CREATE TABLE documents (sequence INTEGER PRIMARY KEY, id NOT NULL, created INTEGER NOT NULL, removed INTEGER, "
    "checksum INTEGER NOT NULL)",
    "CREATE INDEX documents_removed ON documents (removed) WHERE removed IS NOT NULL",
    "CREATE TABLE metadata (sequence INTEGER NOT NULL, fields TEXT NOT NULL, created INTEGER NOT NULL, removed INTEGER, "
    "checksum INTEGER NOT NULL, PRIMARY KEY (sequence, created))",
    "CREATE TABLE fields (name TEXT PRIMARY KEY) WITHOUT ROWID",
}
INDEX = (
    "CREATE INDEX metadata_field_{0} ON metadata (CASE WHEN json_type(fields, '$.\"{1}\"') IN ('array', 'object') THEN x'' "
    "ELSE json_extract(fields, '$.\"{1}\"') END, removed, created, sequence)"
)
NAME = re.compile("[A-Za-z_][A-Za-z0-9_]{0,63}")
DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "i1", "U8": "u1", "I32": "<i4", "I64": "<i8"}
CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8"}
MOST = 2**31 - 1
COUNTERS = ("commit", "next_segment", "next_sequence", "next_id")
LARGER = {None: {*CODES}, "float32": {}, "float16": {"float32"}, "bfloat16": {"float32"}, "int8": {*CODES} - {"int8"}}
KEYS = {*("dim", "levels", "codec", "doc_tokens", "query_tokens", "nested", "normalize", "id_kind", "fields", "format_version")}
PLAN = re.compile(r"[A-Za-z0-9_(),*=>: ]{1,1000}")
ENCODER = re.compile(r"[A-Za-z0-9_.:-]{1,256}")
COARSE = re.compile(r"[A-Za-z0-9_.+,=()\[\]-]{1,256}")


class DamagedError(Exception):
    """This is no sound index of format 1."""


class Document(NamedTuple):
    id: int | str
    tokens: np.ndarray
    metadata: dict[str, Any] | None


def need(good: Any, what: str) -> None:
    if not good:
        raise DamagedError(what)


def read(folder: str) -> list[Document]:
    """All documents that stand, in the order of addition. Everything is checked first, checksums too."""
    try:
        return list(_read(os.fspath(folder)))
    except (ValueError, TypeError, KeyError, IndexError, sqlite3.Error, OSError, OverflowError, RecursionError) as error:
        raise DamagedError(repr(error)) from error


def _read(folder: str) -> Iterator[Document]:
    need(not stat.S_ISLNK(os.lstat(os.path.join(folder, "readers")).st_mode), "readers is a link")
    catalog = os.path.join(folder, "catalog.sqlite")
    status = os.lstat(catalog)
    need(stat.S_ISREG(status.st_mode) and status.st_size >= 100, "the catalog is no regular file, or too short")
    need(not os.path.lexists(catalog + "-wal") and not os.path.lexists(catalog + "-shm"), "a WAL")
    if os.path.lexists(catalog + "-journal"):
        need(stat.S_ISREG(os.lstat(catalog + "-journal").st_mode), "the journal is no regular file")
        with open(catalog + "-journal", "rb") as file:
            need(not file.read().endswith(bytes.fromhex("d9d505f920a163d7")), "the journal names a file")
    connection = sqlite3.connect(f"file:{quote(os.path.abspath(catalog))}?mode=rw", uri=True)
    try:
        connection.execute("PRAGMA query_only = ON")
        yield from _documents(folder, connection)
    finally:
        connection.close()


def crc(value: Any) -> int:
    return zlib.crc32(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8"))


def _documents(folder: str, connection: sqlite3.Connection) -> Iterator[Document]:
    def rows(sql: str) -> list[tuple[Any, ...]]:
        return connection.execute(sql).fetchall()

    need(rows("PRAGMA application_id") == [(0x4D544958,)], "another application")
    need(rows("PRAGMA user_version") == [(1,)], "another version")
    need(rows("PRAGMA journal_mode") != [("wal",)], "a catalog in WAL mode")
    texts = [sql for (sql,) in rows("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]  # this runs nothing of them
    need(set(texts) >= TABLES, "other tables")
    schema = json.loads(dict(rows("SELECT key, value FROM meta"))["schema"])
    _check_schema(schema)
    indexes = [INDEX.format(number, name) for number, name in enumerate(schema["fields"])]
    need(sorted(texts) == sorted([*TABLES, *indexes]), "other tables or indexes")
    need(rows("PRAGMA integrity_check") == [("ok",)], "SQLite finds damage")
    pages = rows("PRAGMA page_count")[0][0] * rows("PRAGMA page_size")[0][0]
    need(os.stat(os.path.join(folder, "catalog.sqlite")).st_size == pages, "the catalog is cut off")
    meta = dict(rows("SELECT key, value FROM meta"))
    tables = [
        rows("SELECT * FROM meta WHERE key <> 'checksum' ORDER BY key"),
        rows("SELECT * FROM segments ORDER BY number"),
        rows("SELECT * FROM levels ORDER BY segment, level"),
        rows("SELECT * FROM fields ORDER BY name"),
    ]
    need(meta["checksum"] == str(crc(tables)), "the checksum over meta, segments, levels and fields")
    commit, next_segment, next_sequence, next_id = (int(meta[key]) for key in COUNTERS)
    need(min(commit, next_segment, next_sequence, next_id) >= 0 and next_id <= 2**63, "counts")
    need(max(commit, next_segment, next_sequence) <= 2**62, "counts")
    levels: dict[int, list[tuple[int, int, int]]] = {}
    for segment, level, count, size, checksum in tables[2]:
        need(all(type(value) is int and value >= 0 for value in (segment, level, count, size, checksum)), "a level's record")
        need(level == len(levels.setdefault(segment, [])), "a gap between levels")
        levels[segment].append((count, size, checksum))
    held: dict[int, tuple[int | str, np.ndarray]] = {}
    for number, count, size, checksum, created in tables[1]:
        need(all(type(value) is int and value >= 0 for value in (number, count, size, checksum, created)), "a segment's record")
        need(number < min(next_segment, 10**12) and created <= commit, "a segment that can't be")
        where = os.path.join(folder, "segments", f"{number:08d}")
        for inner in (os.path.dirname(where), where):
            need(stat.S_ISDIR(os.lstat(inner).st_mode), f"{inner} is no folder")
        for sequence, id_, tokens in _segment(where, count, size, checksum, levels.pop(number, []), schema):
            need(sequence not in held and 0 <= sequence < next_sequence, "a sequence number")
            need(isinstance(id_, str) or id_ < next_id, "an id that was never given out")
            held[sequence] = (id_, tokens)
    need(not levels, "levels without a segment")
    standing, known = dict[int, Any](), set[int]()
    for sequence, id_, created, removed, checksum in rows("SELECT * FROM documents ORDER BY sequence"):
        need(checksum == crc([sequence, id_, created, removed]), "a document's checksum")
        need(sequence >= 0 and _visible_once(created, removed, commit) and _good_id(id_, schema), "a document's record")
        known.add(sequence)
        need(sequence not in held or held[sequence][0] == id_, "another id in the segment")
        if removed is None or removed > commit:
            need(sequence in held, "a document that no segment holds")
            standing[sequence] = id_
    need(set(held) <= known, "a document that the catalog does not know")
    need(len(set(standing.values())) == len(standing), "an id stands twice")
    described = _metadata(rows("SELECT * FROM metadata ORDER BY sequence, created"), commit, known, tables[3])
    for sequence, id_ in standing.items():
        yield Document(id_, held[sequence][1], described.get(sequence))


def _metadata(rows: list[tuple[Any, ...]], commit: int, known: set[int], fields: list[tuple[Any]]) -> dict[int, Any]:
    described, before, names = {}, (-1, 0), {name for (name,) in fields}
    for sequence, text, created, removed, checksum in rows:
        need(checksum == crc([sequence, text, created, removed]), "the checksum of metadata")
        need(sequence in known and _visible_once(created, removed, commit), "a record of metadata")
        need(sequence != before[0] or (before[1] is not None and before[1] <= created), "two versions of metadata")
        value = json.loads(text, parse_constant=lambda constant: need(False, constant))
        json.dumps(value, allow_nan=False)
        need(isinstance(value, dict) and set(value) <= names, "metadata, or fields that are not listed")
        before = (sequence, removed)
        if removed is None or removed > commit:
            described[sequence] = value
    return described


def _visible_once(created: Any, removed: Any, commit: int) -> bool:
    good = type(created) is int and 0 <= created <= commit
    return good and (removed is None or (type(removed) is int and created <= removed <= commit))


def _good_id(id_: Any, schema: dict[str, Any]) -> bool:
    if schema["id_kind"] == "text":
        return isinstance(id_, str) and len(id_.encode()) <= 1024
    return type(id_) is int and 0 <= id_ < 2**63


def _check_schema(schema: Any) -> None:
    def count(value: Any, most: int = MOST) -> bool:
        return type(value) is int and 1 <= value <= most

    need(isinstance(schema, dict) and set(schema) - {"default_plan", "early", "encoder", "coarse"} == KEYS, "the schema's keys")
    plan = schema.get("default_plan")
    need(plan is None or (isinstance(plan, str) and PLAN.fullmatch(plan)), "the default plan")
    for key, pattern in (("encoder", ENCODER), ("coarse", COARSE)):
        value = schema.get(key)
        need(value is None or (isinstance(value, str) and pattern.fullmatch(value)), key)
    edges = schema["levels"]
    need(isinstance(edges, list) and 1 <= len(edges) <= 99 and all(map(count, edges)), "the level edges")
    need(all(a < b for a, b in pairwise(edges)), "edges don't rise")
    need(schema["dim"] is None or count(schema["dim"], 2**17), "dim")
    need(isinstance(schema["codec"], str) and {start for start, _ in _bands(schema["codec"])} <= {0, *edges}, "codec")
    need(all(name in LARGER[schema.get("early")] for _, name in _bands(schema["codec"])), "the early copy")
    need(schema["doc_tokens"] is None or count(schema["doc_tokens"], edges[-1]), "doc_tokens")
    need(schema["query_tokens"] is None or count(schema["query_tokens"]), "query_tokens")
    need(type(schema["normalize"]) is bool and (schema["nested"] is None or type(schema["nested"]) is bool), "flags")
    names = schema["fields"]
    need(isinstance(names, list) and len(names) <= 32 and len(set(names)) == len(names), "declared fields")
    need(all(isinstance(name, str) and NAME.fullmatch(name) for name in names), "the name of a declared field")
    need(schema["id_kind"] in (None, "int", "text") and schema["format_version"] == 1, "id_kind or version")


def _bands(text: str) -> list[tuple[int, str]]:
    """The codecs in the order of tokens, each with its first token."""
    *climbing, last = [part.rpartition(":") for part in text.split(",")]
    starts, names = [0, *(int(stop) for stop, _, _ in climbing)], [name for _, _, name in (*climbing, last)]
    need(list(map(str, starts[1:])) == [stop for stop, _, _ in climbing] and not last[1], "a codec's edge")
    need(starts == sorted(set(starts)) and starts[-1] <= MOST and set(names) <= set(CODES), "codec")
    need(all(a != b for a, b in pairwise(names)), "a codec twice in a row")
    return list(zip(starts, names))


def _segment(where: str, count: int, size: int, checksum: int, levels: Any, schema: Any) -> Iterator[tuple[int, Any, Any]]:
    shapes: dict[str, tuple[str, list[int | None]]] = {"lengths": ("I32", [count]), "sequence": ("I64", [count])}
    if schema["id_kind"] == "text":
        shapes |= {"id_offsets": ("I64", [count + 1]), "id_bytes": ("U8", [None])}
    else:
        shapes["ids"] = ("I64", [count])
    found = _tensors(os.path.join(where, "documents.safetensors"), size, checksum, shapes)
    lengths, sequence, edges, dim = found["lengths"].tolist(), found["sequence"].tolist(), schema["levels"], schema["dim"]
    need(lengths and dim and all(1 <= length <= edges[-1] for length in lengths), "lengths")
    order = [(-length, number) for length, number in zip(lengths, sequence)]
    need(order == sorted(set(order)), "the order of documents")
    if schema["id_kind"] == "text":
        data, bounds = found["id_bytes"].tobytes(), found["id_offsets"].tolist()
        need(bounds[0] == 0 and bounds[-1] == len(data) and bounds == sorted(bounds), "id_offsets")
        ids: list[Any] = [data[a:b].decode("utf-8") for a, b in pairwise(bounds)]
    else:
        ids = found["ids"].tolist()
    need(all(_good_id(id_, schema) for id_ in ids), "an id")
    starts = [0, *edges]
    reached = [sum(length > start for length in lengths) for start in starts[:-1]]
    need([rows for rows, _, _ in levels] == [rows for rows in reached if rows], "rows of levels")
    tokens: list[list[np.ndarray]] = [[] for _ in lengths]
    for level, (reaching, nbytes, check) in enumerate(levels):
        width = edges[level] - starts[level]
        own = max(band for band in _bands(schema["codec"]) if band[0] <= starts[level])[1]
        codecs = {"": own} | ({"early_": schema["early"]} if schema.get("early") else {})
        wanted = {f"{prefix}codes": (CODES[codec], [reaching, width, dim]) for prefix, codec in codecs.items()}
        wanted |= {f"{prefix}scales": ("F32", [reaching, width]) for prefix, codec in codecs.items() if codec == "int8"}
        parts = _tensors(os.path.join(where, f"level-{level}.safetensors"), nbytes, check, wanted)
        values, *_ = [_values(parts[f"{prefix}codes"], parts.get(f"{prefix}scales"), codec) for prefix, codec in codecs.items()]
        for row in range(reaching):
            kept = min(width, lengths[row] - starts[level])
            need(not any(part[row, kept:].any() for part in parts.values()), "numbers past a document's length")
            tokens[row].append(values[row, :kept])
    yield from zip(sequence, ids, map(np.concatenate, tokens))


def _values(codes: np.ndarray, scales: np.ndarray | None, codec: str) -> np.ndarray:
    if scales is not None:
        need(np.isfinite(scales).all() and (scales >= 0).all() and not (codes == -128).any(), "scales or codes")
        return codes.astype(np.float32) * scales[..., None]
    if codec == "bfloat16":
        codes = (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)
    need(np.isfinite(codes).all(), "codes that are not finite")
    return codes.astype(np.float32)


def _tensors(path: str, size: int, checksum: int, wanted: dict[str, tuple[str, list[int | None]]]) -> dict[str, np.ndarray]:
    status = os.lstat(path)
    need(stat.S_ISREG(status.st_mode) and status.st_size == size, f"{path}: the size")
    with open(path, "rb") as file:
        data = file.read()
    need(len(data) == size >= 8 and zlib.crc32(data) == checksum, f"{path}: the checksum")
    (length,) = struct.unpack("<Q", data[:8])
    need(8 + length <= min(size, 65536), f"{path}: the header's length")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        need(len(dict(pairs)) == len(pairs), f"{path}: a key twice")
        return dict(pairs)

    header = json.loads(data[8 : 8 + length].decode("utf-8"), object_pairs_hook=once)
    header.pop("__metadata__", None)
    found, ends = {}, []
    for name, entry in header.items():
        need(set(entry) == {"dtype", "shape", "data_offsets"}, f"{path}: {name}")
        dtype, shape, (begin, end) = np.dtype(DTYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
        need(all(type(n) is int and 0 <= n < 2**63 for n in (*shape, begin, end)) and len(shape) <= 8, f"{path}: {name}")
        product = dtype.itemsize * math.prod(shape)
        need(end - begin == product, f"{path}: the bytes of {name}")
        ends.append((begin, end))
        if not name.startswith("padding."):
            need(name in wanted and wanted[name][0] == entry["dtype"] and len(shape) == len(wanted[name][1]), f"{path}: {name}")
            need(all(w is None or n == w for n, w in zip(shape, wanted[name][1])), f"{path}: the shape of {name}")
            need((8 + length + begin) % 64 == 0, f"{path}: {name} starts anywhere")
            found[name] = (8 + length + begin, product, dtype, shape)
    at = 0
    for begin, end in sorted(ends):
        need(begin == at, f"{path}: holes or overlaps")
        at = end
    need(8 + length + at == size and set(found) == set(wanted), f"{path}: its tensors")
    return {name: np.frombuffer(data[a : a + n], dtype).reshape(shape) for name, (a, n, dtype, shape) in found.items()}


if __name__ == "__main__":
    for document in read(sys.argv[1]):
        print(document.id, document.tokens.shape, document.metadata)
