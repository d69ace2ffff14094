"""Hostile indexes: named changes of a good one, most of them with every checksum made right again, so that they get deep."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from metaindex import MetaIndex
from tests.storage.reader import crc

DOCUMENTS, LEVEL = "segments/00000000/documents.safetensors", "segments/00000000/level-0.safetensors"
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
Mutation = Callable[[Path], Any]


def good(path: Path) -> None:
    rng = np.random.default_rng(0)
    with MetaIndex(path=path, codec="float32", levels=(1, 4)) as index:
        index.add([rng.standard_normal((t, 4)) for t in (3, 1, 4, 2)], metadata=[{"a": 1}, None, {"b": "x"}, {}])
        index.remove([1])


def good_text(path: Path) -> None:
    with MetaIndex(path=path, codec="int8") as index:
        index.add(np.random.default_rng(1).standard_normal((3, 2, 4)), ids=["a", "bc", "déf"])


def good_codecs(path: Path) -> None:
    rng = np.random.default_rng(3)
    with MetaIndex(path=path, codec={1: "float16", None: "float32"}, early="int8", levels=(1, 4)) as index:
        index.add([rng.standard_normal((t, 4)) for t in (3, 1, 4)])


def good_fields(path: Path) -> None:
    with MetaIndex(path=path, fields=["a", "b"]) as index:
        index.add(np.random.default_rng(2).standard_normal((3, 2, 4)), metadata=[{"a": 1, "b": "x"}, {"a": [2]}, None])
        index.update_metadata([0], [{"a": 2}])
        index.remove([1])


def sql(*statements: str, right: bool = True) -> Mutation:
    def change(path: Path) -> None:
        connection = sqlite3.connect(path / "catalog.sqlite")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()
        if right:
            forge(path)

    return change


def stale(index: str, *statements: str) -> Mutation:
    """Change rows while indexes (a pattern of LIKE) look away: their pages stay as they were."""

    def change(path: Path) -> None:
        where = f"sqlite_master WHERE type = 'index' AND name LIKE '{index}'"
        connection = sqlite3.connect(path / "catalog.sqlite")
        rows = connection.execute(f"SELECT type, name, tbl_name, rootpage, sql FROM {where}").fetchall()
        connection.close()
        back = [f"INSERT INTO sqlite_master VALUES ({', '.join(map(quoted, row))})" for row in rows]
        for part in ((f"DELETE FROM {where}",), statements, back):
            sql("PRAGMA writable_schema = ON", *part, right=False)(path)
        forge(path)

    return change


def quoted(value: Any) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def forge(path: Path) -> None:
    """Make every size and checksum of the catalog right."""
    connection = sqlite3.connect(path / "catalog.sqlite")
    connection.text_factory = lambda data: data.decode(errors="surrogateescape")
    run = connection.execute
    for number, *_ in run("SELECT number FROM segments").fetchall():
        for table, where, name in (
            ("segments", "number = ?1", "documents"),
            *(("levels", f"segment = ?1 AND level = {level}", f"level-{level}") for level in range(3)),
        ):
            try:
                data = (path / f"segments/{number:08d}/{name}.safetensors").read_bytes()
            except (OSError, ValueError):
                continue
            run(f"UPDATE {table} SET bytes = ?2, checksum = ?3 WHERE {where}", (number, len(data), zlib.crc32(data)))
    for table in ("documents", "metadata"):
        for row in run(f"SELECT * FROM {table}").fetchall():
            keys = "sequence IS ?" if table == "documents" else "sequence IS ? AND created IS ?"
            try:
                run(
                    f"UPDATE {table} SET checksum = ? WHERE {keys}",
                    (crc(row[:4]), row[0], *([row[2]] if "AND" in keys else [])),
                )
            except (TypeError, ValueError):
                continue  # neither a blob nor what is no UTF-8 has a checksum
    orders = ("meta WHERE key <> 'checksum' ORDER BY key", "segments ORDER BY 1", "levels ORDER BY 1, 2", "fields ORDER BY 1")
    with suppress(TypeError, ValueError, sqlite3.Error):
        checksum = str(crc([run(f"SELECT * FROM {rows}").fetchall() for rows in orders]))
        run("UPDATE meta SET value = ? WHERE key = 'checksum'", (checksum,))
    connection.commit()
    connection.close()


def schema(**changes: Any) -> Mutation:
    def change(path: Path) -> None:
        connection = sqlite3.connect(path / "catalog.sqlite")
        ((text,),) = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchall()
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (json.dumps({**json.loads(text), **changes}),))
        connection.commit()
        connection.close()
        forge(path)

    return change


def header(name: str, edit: Callable[[dict], Any]) -> Mutation:
    def change(path: Path) -> None:
        data = (path / name).read_bytes()
        length = int.from_bytes(data[:8], "little")
        entries = json.loads(data[8 : 8 + length])
        edited = edit(entries)
        text = edited if isinstance(edited, bytes) else json.dumps(entries).encode()
        rewrite(path, name, len(text).to_bytes(8, "little") + text + data[8 + length :])

    return change


def rewrite(path: Path, name: str, data: bytes) -> None:
    (path / name).write_bytes(data)
    forge(path)


def values(name: str, key: str, edit: Callable[[np.ndarray], Any]) -> Mutation:
    """Change the numbers of a tensor in place."""
    kinds = {"F32": "<f4", "I32": "<i4", "I64": "<i8", "I8": "i1", "U8": "u1"}

    def change(path: Path) -> None:
        data = bytearray((path / name).read_bytes())
        length = int.from_bytes(data[:8], "little")
        entry = json.loads(data[8 : 8 + length])[key]
        begin, end = entry["data_offsets"]
        part = np.frombuffer(data[8 + length + begin : 8 + length + end], kinds[entry["dtype"]]).reshape(entry["shape"]).copy()
        edit(part)
        data[8 + length + begin : 8 + length + end] = part.tobytes()
        rewrite(path, name, bytes(data))

    return change


def put(key: str, **changes: Any) -> Callable[[dict], Any]:
    return lambda entries: entries[key].update(changes)


def instead(kind: str, name: str) -> Mutation:
    def change(path: Path) -> None:
        target = path / name
        aside = path.parent / f"aside-{path.name}"
        target.rename(aside) if target.exists() else None
        if kind == "folder":
            target.mkdir()
        elif kind == "empty":
            target.write_bytes(b"")
        elif kind == "fifo":
            os.mkfifo(target)
        elif kind != "missing":
            target.symlink_to(aside if kind == "link" else kind)

    return change


def write(name: str, data: bytes) -> Mutation:
    return lambda path: (path / name).write_bytes(data)


def assign(place: Any, value: Any) -> Callable[[np.ndarray], Any]:
    return lambda array: array.__setitem__(place, value)


BIG = 2**62
MORE = ("catalog.sqlite-wal", "catalog.sqlite-shm", "segments/00000000/x")
NAMES = ("catalog.sqlite", "lock", "readers", "segments", "segments/00000000", DOCUMENTS, LEVEL)
KINDS = ("missing", "empty", "fifo", "link", "folder", "/dev/zero", "/etc/passwd")
DEEP = b'{"codes":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
CODES = b'"codes":{"dtype":"F32","shape":[4,1,4],"data_offsets":[0,64]}'
RECORD = ("rows", "bytes", "checksum", "created")
NO_OBJECTS = ("[]", "{", "NaN", '{"a":NaN}', '{"a":1e999}', "1")
NO_COUNTS = ("-1", "'x'", "NULL", "'1e3'")
TWICE = b"{" + CODES + b"," + CODES + b"}"

MUTATIONS: dict[str, Mutation] = {
    "unchanged": lambda path: None,
    **{f"{name} is {kind}": instead(kind, name) for name in NAMES for kind in KINDS},
    **{f"a file {name}": write(name, b"x" * 512) for name in MORE},
    "a journal that names a file": write("catalog.sqlite-journal", b"/etc/passwd" + JOURNAL_MAGIC),
    "a journal of noise": write("catalog.sqlite-journal", bytes(range(256)) * 8),
    "a journal folder": lambda path: (path / "catalog.sqlite-journal").mkdir(),
    "a segment folder more": lambda path: shutil.copytree(path / "segments/00000000", path / "segments/00000007"),
    # headers
    **{
        f"codes: {what}": header(LEVEL, put("codes", **change))
        for what, change in {
            "a shape that overflows": {"shape": [2**63, 2, 4]},
            "a product that wraps": {"shape": [2**32, 2**32, 4]},
            "negative rows": {"shape": [-4, 1, 4]},
            "huge rows": {"shape": [BIG, 1, 4]},
            "no shape": {"shape": []},
            "nine dimensions": {"shape": [4, 1, 4, 1, 1, 1, 1, 1, 1]},
            "a text shape": {"shape": "4,1,4"},
            "a float shape": {"shape": [4.0, 1, 4]},
            "a bool shape": {"shape": [4, True, 4]},
            "another dtype": {"dtype": "I32"},
            "a dtype nobody knows": {"dtype": "O"},
            "a dtype that is a list": {"dtype": ["F32"]},
            "offsets before": {"data_offsets": [-64, 0]},
            "offsets past": {"data_offsets": [64, 128]},
            "offsets reversed": {"data_offsets": [64, 0]},
            "huge offsets": {"data_offsets": [0, 10**30]},
            "one offset": {"data_offsets": [64]},
            "a key more": {"pickle": "cos\nsystem\n"},
        }.items()
    },
    "a tensor more": header(LEVEL, lambda e: e.update(evil={"dtype": "U8", "shape": [0], "data_offsets": [64, 64]})),
    "a tensor with a path as name": header(LEVEL, lambda e: e.update({"../../x": e.pop("codes")})),
    "metadata of any kind": header(LEVEL, lambda e: e.update(__metadata__={"a": [{}]})),
    "no tensors": header(LEVEL, lambda e: b"{}"),
    "a header that is a list": header(LEVEL, lambda e: b"[]"),
    "a header of noise": header(LEVEL, lambda e: bytes(range(256))),
    "a header nested deep": header(LEVEL, lambda e: DEEP),
    "a header with a huge number": header(LEVEL, lambda e: b'{"codes":' + b"9" * 5000 + b"}"),
    "a key twice": header(LEVEL, lambda e: TWICE),
    "NaN in the header": header(LEVEL, lambda e: b'{"codes":NaN}'),
    "a header too long": header(LEVEL, lambda e: json.dumps(e).encode() + b" " * 70_000),
    "overlapping tensors": header(DOCUMENTS, put("sequence", data_offsets=[0, 32])),
    "a header length of 2**64 - 1": lambda path: rewrite(path, LEVEL, b"\xff" * 8 + (path / LEVEL).read_bytes()[8:]),
    "a header length of 0": lambda path: rewrite(path, LEVEL, bytes(8) + (path / LEVEL).read_bytes()[8:]),
    "a byte more": lambda path: rewrite(path, LEVEL, (path / LEVEL).read_bytes() + b"\0"),
    "a file of seven bytes": lambda path: rewrite(path, LEVEL, b"1234567"),
    # values with all checksums right
    "NaN codes": values(LEVEL, "codes", assign((0, 0, 0), np.nan)),
    "infinite codes": values(LEVEL, "codes", assign((0, 0, 0), np.inf)),
    "codes past the length": values(LEVEL.replace("-0", "-1"), "codes", assign((-1, -1, -1), 1)),
    "lengths of zero": values(DOCUMENTS, "lengths", assign(-1, 0)),
    "negative lengths": values(DOCUMENTS, "lengths", assign(-1, -5)),
    "huge lengths": values(DOCUMENTS, "lengths", assign(0, 2**31 - 1)),
    "rising lengths": values(DOCUMENTS, "lengths", lambda a: a.sort()),
    "another length": values(DOCUMENTS, "lengths", assign(1, 2)),
    "a sequence number twice": values(DOCUMENTS, "sequence", assign(1, 2)),
    "a negative sequence number": values(DOCUMENTS, "sequence", assign(1, -1)),
    "a huge sequence number": values(DOCUMENTS, "sequence", assign(1, BIG)),
    "an id twice": values(DOCUMENTS, "ids", assign(1, 2)),
    "a negative id": values(DOCUMENTS, "ids", assign(1, -1)),
    "a huge id": values(DOCUMENTS, "ids", assign(1, BIG)),
    # the catalog
    **{
        f"sql: {statement}": sql(statement)
        for statement in (
            *(f"UPDATE segments SET {c} = {v}" for c in RECORD for v in (-1, BIG, "'x'", "x'00'")),
            *(f"UPDATE levels SET {c} = {v}" for c in ("rows", "bytes", "segment") for v in (-1, 10**9, "'x'")),
            "UPDATE segments SET number = 10000000000000",
            "UPDATE segments SET number = -1",
            "INSERT INTO segments SELECT 1, rows, bytes, checksum, created FROM segments",
            "INSERT INTO levels VALUES (7, 0, 1, 1, 1)",
            "DELETE FROM levels",
            "DELETE FROM segments",
            "DELETE FROM documents",
            "DELETE FROM documents WHERE sequence = 0",
            "DELETE FROM documents WHERE removed IS NOT NULL",
            "INSERT INTO documents VALUES (9, 9, 1, NULL, 0)",
            "INSERT INTO documents VALUES (-9, 9, 1, 1, 0)",
            "UPDATE documents SET id = 2 WHERE sequence = 0",
            "UPDATE documents SET id = 'x' WHERE sequence = 0",
            "UPDATE documents SET id = x'ff' WHERE sequence = 0",
            "UPDATE documents SET id = 1.5 WHERE sequence = 0",
            "UPDATE documents SET id = CAST(x'ff' AS TEXT) WHERE sequence = 0",
            "UPDATE documents SET created = 99",
            "UPDATE documents SET created = 'x'",
            "UPDATE documents SET removed = 99 WHERE sequence = 0",
            "UPDATE documents SET removed = 0 WHERE sequence = 0",
            "UPDATE documents SET removed = 'x' WHERE sequence = 0",
            "UPDATE documents SET removed = -1 WHERE sequence = 0",
            *(f"UPDATE metadata SET fields = '{v}' WHERE sequence = 0" for v in NO_OBJECTS),
            "UPDATE metadata SET fields = x'ff00' WHERE sequence = 0",
            "UPDATE metadata SET fields = CAST(x'ff' AS TEXT) WHERE sequence = 0",
            f"UPDATE metadata SET fields = '{{\"a\":{'[' * 5000}{']' * 5000}}}' WHERE sequence = 0",
            "UPDATE metadata SET sequence = 77 WHERE sequence = 0",
            "UPDATE metadata SET sequence = 'x' WHERE sequence = 0",
            "UPDATE metadata SET created = 99",
            "INSERT INTO metadata SELECT sequence, fields, 2, NULL, 0 FROM metadata WHERE sequence = 0",
            *(f"UPDATE meta SET value = {v} WHERE key = '{k}'" for k in ("commit", "next_sequence") for v in NO_COUNTS),
            f"UPDATE meta SET value = '{10**30}' WHERE key = 'next_id'",
            f"UPDATE meta SET value = '{'9' * 5000}' WHERE key = 'commit'",
            "UPDATE meta SET value = '0' WHERE key = 'next_segment'",
            "DELETE FROM meta WHERE key = 'schema'",
            "UPDATE meta SET value = '[]' WHERE key = 'schema'",
            f"UPDATE meta SET value = '{'[' * 100000}' WHERE key = 'schema'",
            "CREATE TABLE evil (x)",
            "CREATE VIEW evil AS SELECT * FROM meta",
            "CREATE TRIGGER evil AFTER INSERT ON meta BEGIN DELETE FROM meta; END",
            "CREATE INDEX evil ON documents (id)",
            "PRAGMA application_id = 1",
            "PRAGMA user_version = 2",
            "PRAGMA journal_mode = WAL",
        )
    },
    "rows with wrong checksums": sql("UPDATE documents SET checksum = 1", right=False),
    "metadata with a wrong checksum": sql("UPDATE metadata SET checksum = 1", right=False),
    "meta with a wrong checksum": sql("UPDATE segments SET created = 0", right=False),
    **{
        f"schema: {json.dumps(change)[:60]}": schema(**change)
        for change in (
            {"dim": 0}, {"dim": -4}, {"dim": BIG}, {"dim": "4"}, {"dim": 8}, {"dim": True}, {"dim": None},
            {"levels": []}, {"levels": [4, 1]}, {"levels": [1, BIG]}, {"levels": list(range(1, 200))}, {"levels": "x"},
            {"levels": [1]},
            {"codec": "pickle"}, {"codec": "../../x"}, {"codec": "int8"}, {"codec": ["float32"]}, {"codec": None},
            {"doc_tokens": 99}, {"doc_tokens": -1}, {"query_tokens": 0}, {"nested": "yes"}, {"normalize": None},
            {"id_kind": "text"}, {"id_kind": "blob"}, {"id_kind": None}, {"format_version": 2}, {"evil": 1},
            {"default_plan": 7}, {"default_plan": ""}, {"default_plan": "(1,1)" * 500}, {"default_plan": "(1,1)\n"},
            {"default_plan": ["(1,1)"]}, {"default_plan": "(1,1"}, {"default_plan": "coarse>9 (9,9)"},
            {"encoder": 7}, {"encoder": ""}, {"encoder": "a" * 257}, {"encoder": "a b"}, {"encoder": "a\n"}, {"encoder": ["a"]},
        )
    },
}  # fmt: skip

INDEX = "CREATE INDEX {} ON metadata ({}, removed, created, sequence)"
LISTED = "CASE WHEN json_type(fields, '$.\"{0}\"') IN ('array', 'object') THEN x'' ELSE json_extract(fields, '$.\"{0}\"') END"
EXTRACT = "json_extract(fields, '$.a')"
MASTER = "UPDATE sqlite_master SET {} WHERE name = 'metadata_field_0'"
HOSTILE_NAMES = (["a", "a"], ["a", "b'"], ["a", 'b"'], ["a", ""], ["a", 1], ["a", "x" * 65], "ab", {"a": 1, "b": 2}, None, [],
                 ["a"], ["b", "a"], ["a", "b\n"], ["a", "é"], [f"f{n}" for n in range(33)], [["a"], "b"])  # fmt: skip

HOSTILE_CODECS = ("1:float16,", ",float32", "1:float16,float32,int8", "1:float16,2:float32", "2:float16,float32", "float32",
                  "01:float16,float32", "+1:float16,float32", "1:float16, float32", "-1:float16,float32", "1:float32,float32",
                  "1:float16,1:float32,float16", "4:float16,1:float32,float16", f"{2**31}:float16,float32", "1:pickle,float32",
                  "99999999999:float16,float32", "1:float16:float16,float32", "1:int8,float32", "float16", 7, {"1": "float16"},
                  "4:float16,float32", "1_0:float16,float32", "\u0661:float16,float32", "1:float16,float32" * 300)  # fmt: skip

FIELD_MUTATIONS: dict[str, Mutation] = {
    "unchanged": lambda path: None,
    **{f"fields {json.dumps(names)[:60]}": schema(fields=names) for names in HOSTILE_NAMES},
    "an index more, as for a field": sql(INDEX.format("metadata_field_2", LISTED.format("c"))),
    "an index more, of an expression": sql(INDEX.format("evil", EXTRACT)),
    "an index more, of what takes long": sql("CREATE INDEX evil ON metadata (hex(zeroblob(length(fields))))"),
    "an index less": sql("DROP INDEX metadata_field_1"),
    "an index of another expression": sql("DROP INDEX metadata_field_0", INDEX.format("metadata_field_0", EXTRACT)),
    "an index of another field": sql("DROP INDEX metadata_field_0", INDEX.format("metadata_field_0", LISTED.format("c"))),
    "an index under another name": sql("DROP INDEX metadata_field_0", INDEX.format("metadata_field_3", LISTED.format("a"))),
    "an index twice": sql(INDEX.format("metadata_field_00", LISTED.format("a"))),
    "a field with its index, and a bad name": lambda path: (
        sql("DROP INDEX metadata_field_1", INDEX.format("metadata_field_1", LISTED.format("b c")))(path),
        schema(fields=["a", "b c"])(path),
    ),
    **{
        f"an index that says {text}": sql("PRAGMA writable_schema = ON", MASTER.format(f"sql = {text}"), right=False)
        for text in (
            "replace(sql, 'removed, created', 'created, removed')",
            "replace(sql, 'THEN x', 'THEN load_extension(1) || x')",
            "sql || ' '",
            "lower(sql)",
            "'garbage'",
            "NULL",
        )
    },
    **{
        f"an index at page {page}": sql("PRAGMA writable_schema = ON", MASTER.format(f"rootpage = {page}"), right=False)
        for page in (0, 1, 2, 10**6)
    },
    "a stale index": stale("metadata_field_0", "UPDATE metadata SET fields = '{\"a\":7}' WHERE removed IS NULL"),
    "metadata that an index can't read": stale("metadata_field_%", "UPDATE metadata SET fields = '[' WHERE removed IS NULL"),
    "an index of rows that are gone": stale("metadata_field_1", "DELETE FROM metadata"),
    "a stale index of what is removed": stale("documents_removed", "UPDATE documents SET removed = NULL"),
    "no field listed": sql("DELETE FROM fields"),
    "a field less": sql("DELETE FROM fields WHERE name = 'b'"),
    "a field more": sql("INSERT INTO fields VALUES ('more')"),
    "a field that is a blob": sql("INSERT INTO fields VALUES (x'00')"),
    "a field of no UTF-8": sql("INSERT INTO fields VALUES (CAST(x'ff' AS TEXT))"),
    "two versions at once": sql("UPDATE metadata SET removed = NULL"),
    "versions that overlap": sql("UPDATE metadata SET removed = 3 WHERE removed = 2"),
}

CODEC_MUTATIONS: dict[str, Mutation] = {
    "unchanged": lambda path: None,
    **{f"codec {json.dumps(codec)[:60]}": schema(codec=codec) for codec in HOSTILE_CODECS},
    **{
        f"early {json.dumps(early)[:60]}": schema(early=early)
        for early in ("float16", "float32", "pickle", "", 8, ["int8"], None)
    },
    "other edges": schema(levels=[2, 4]),
    "early codes of -128": values(LEVEL, "early_codes", assign((0, 0, 0), -128)),
    "early codes past the length": values(LEVEL.replace("-0", "-1"), "early_codes", assign((-1, -1, -1), 1)),
    "early scales past the length": values(LEVEL.replace("-0", "-1"), "early_scales", assign((-1, -1), 1)),
    **{f"early scales of {v}": values(LEVEL, "early_scales", assign((0, 0), v)) for v in (np.nan, np.inf, -1)},
    "no early codes": header(LEVEL, lambda e: e.pop("early_codes")),
    "early codes under another name": header(LEVEL, lambda e: e.update(early=e.pop("early_codes"))),
    "early codes of another shape": header(LEVEL, put("early_codes", shape=[3, 4, 1])),
    "early codes of another dtype": header(LEVEL, put("early_codes", dtype="U8")),
    "one file for both": header(LEVEL, lambda e: e["early_codes"].update(data_offsets=e["codes"]["data_offsets"])),
}

TEXT_MUTATIONS: dict[str, Mutation] = {
    "unchanged": lambda path: None,
    "id_offsets past the bytes": values(DOCUMENTS, "id_offsets", assign(-1, 10**9)),
    "id_offsets fall": values(DOCUMENTS, "id_offsets", assign(1, 4)),
    "id_offsets are negative": values(DOCUMENTS, "id_offsets", assign(1, -4)),
    "id_offsets start late": values(DOCUMENTS, "id_offsets", assign(0, 1)),
    "ids of no UTF-8": values(DOCUMENTS, "id_bytes", assign(0, 0xFF)),
    "another id": values(DOCUMENTS, "id_bytes", assign(0, ord("z"))),
    "codes of -128": values(LEVEL, "codes", assign((0, 0, 0), -128)),
    **{f"scales of {v}": values(LEVEL, "scales", assign((0, 0), v)) for v in (np.nan, np.inf, -1)},
}
