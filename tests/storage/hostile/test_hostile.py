"""Indexes of strangers: opening one runs nothing, reads nothing else, takes no memory that its files don't."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.storage import reader
from tests.storage.hostile.mutations import (
    CODEC_MUTATIONS,
    FIELD_MUTATIONS,
    MUTATIONS,
    TEXT_MUTATIONS,
    good,
    good_codecs,
    good_fields,
    good_text,
)

LIMIT_S = 120
MEMORY_BYTES = 64 << 20

LOOK = """
import json, os, resource, sys
import numpy.ma, unicodedata
import numpy as np
from metaindex import MetaIndex
from metaindex.errors import MetaIndexError
from tests.storage.test_corruption import content

folder, names = sys.argv[1], json.loads(sys.argv[2])
dim = 4
def look(path):
    found = {"opens": False, "ok": False, "documents": None}
    try:
        index = MetaIndex.open(path, num_threads=1)
    except (MetaIndexError, OSError) as error:
        found["error"] = type(error).__name__
        return found
    with index:
        found["opens"] = True
        for budget in (None, 1):
            try:
                index.search(np.ones((2, dim)), 3, budget=budget)
            except (MetaIndexError, OSError, ValueError):
                pass
        try:
            found["documents"] = [[one.id, one.tokens.tolist(), one.metadata] for one in index.get(list(index))]
        except (MetaIndexError, OSError, ValueError) as error:
            found["error"] = type(error).__name__
        found["ok"] = index.verify().ok
    try:
        MetaIndex.open(path, verify=True).close()
        assert found["ok"], "verify=True opens what verify calls damaged"
    except (MetaIndexError, OSError):
        assert not found["ok"], "verify=True refuses what verify calls sound"
    return found

look(os.path.join(folder, names[0]))  # late imports are done
watching, seen = [True], []
FORBIDDEN = ("exec", "compile", "import", "pickle.", "marshal.", "os.system", "subprocess.", "os.exec", "os.fork",
             "os.posix_spawn", "socket.", "ctypes.dlopen", "code.", "sqlite3.enable_load_extension", "sqlite3.load_extension")
def hook(event, arguments):
    if not watching[0]:
        return
    if event.startswith(FORBIDDEN):
        seen.append((event, repr(arguments)[:200]))
    if event in ("open", "sqlite3.connect") and isinstance(arguments[0], (str, bytes)):
        name = os.fsdecode(arguments[0]).removeprefix("file://").split("?")[0]
        if name.startswith("/") and not name.startswith(folder):  # others are relative to a folder of the index
            seen.append((event, name))
sys.addaudithook(hook)
used = int(open("/proc/self/statm").read().split()[0]) * 4096 if os.path.exists("/proc/self/statm") else 0
seen.clear()
if used:
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
results = {}
for name in names:
    print("at", name, file=sys.stderr, flush=True)
    results[name] = look(os.path.join(folder, name))
watching[0] = False
print(json.dumps({"results": results, "seen": seen}))
"""


@pytest.fixture(scope="module", params=["int", "text", "fields", "codecs"])
def looked(request, tmp_path_factory):
    """The folder of all hostile indexes, and what one process made of them."""
    folder = tmp_path_factory.mktemp(request.param)
    kinds = {
        "int": (good, MUTATIONS),
        "text": (good_text, TEXT_MUTATIONS),
        "fields": (good_fields, FIELD_MUTATIONS),
        "codecs": (good_codecs, CODEC_MUTATIONS),
    }
    make, mutations = kinds[request.param]
    for number, mutate in enumerate(mutations.values()):
        make(folder / str(number))
        mutate(folder / str(number))
    names = list(map(str, range(len(mutations))))
    code = LOOK.replace("MEMORY", str(MEMORY_BYTES))
    command = [sys.executable, "-W", "ignore", "-c", code, str(folder), json.dumps(names)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    assert answer["seen"] == []
    return folder, {name: (str(number), answer["results"][str(number)]) for number, name in enumerate(mutations)}


def test_there_are_many():
    assert len(MUTATIONS) + len(TEXT_MUTATIONS) >= 100


def test_each_is_refused_found_or_changes_nothing(looked):
    _, results = looked
    _, unchanged = results["unchanged"]
    assert unchanged["ok"]
    assert unchanged["documents"]
    silent = [name for name, (_, found) in results.items() if found["ok"] and found["documents"] != unchanged["documents"]]
    assert not silent
    harmless = {name for name, (_, found) in results.items() if found["ok"]}
    print(len(results), "indexes;", len(harmless), "change nothing:", sorted(harmless))
    assert len(harmless) < len(results) / 4


def test_the_second_reader_agrees(looked):
    folder, results = looked
    other = {}
    for name, (number, found) in results.items():
        if " fifo" in name or "/dev/zero" in name:
            continue  # opening these can hang a plain program
        try:
            documents = json.loads(json.dumps([[d.id, d.tokens.tolist(), d.metadata] for d in reader.read(folder / number)]))
        except reader.DamagedError:
            documents = None
        if (documents is not None) != found["ok"] or (documents is not None and documents != found["documents"]):
            other[name] = (documents is not None, found["ok"])
    assert not other, "\n".join(map(str, other.items()))
