"""Planted faults, each with the test that has to fail on it: a test that does not catch its mutant is not a test.

``python -m tests.mutants`` applies each to a copy of the package, runs its test there and prints a table; it exits with 1 when
a mutant survives, or a test fails without one. ``--only NAME`` runs one of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
STEPS = "tests/storage/faults/test_every_step.py::test_every_fault_at_every_call"
POWER = "tests/storage/faults/test_power_loss.py::test_power_loss_after_every_call"
KILL = "tests/storage/faults/test_kill.py::test_killed_at_random_moments"
# An editable installation finds its own sources before any path; this undoes that in the copy.
_SITE = """import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]
"""


class Mutant(NamedTuple):
    """``text`` stands exactly once in ``file`` and becomes ``replacement``; ``test`` is to fail then."""

    name: str
    file: str
    text: str
    replacement: str
    test: str


MUTANTS = [
    Mutant(
        "a level file is not synced",
        "storage/place.py",
        "        _run_side_by_side([partial(self._files.sync, name) for name in files], _SYNCS)\n",
        "        _run_side_by_side([partial(self._files.sync, name) for name in files[1:]], _SYNCS)\n",
        f"{POWER}[add]",
    ),
    Mutant(
        "the documents file is not synced",
        "storage/place.py",
        "        _run_side_by_side([partial(self._files.sync, name) for name in files], _SYNCS)\n",
        "        _run_side_by_side([partial(self._files.sync, name) for name in files[:-1]], _SYNCS)\n",
        f"{POWER}[add]",
    ),
    Mutant(
        "a segment's folder is not synced",
        "storage/place.py",
        "        _run_side_by_side([partial(self._files.sync_folder, folder) for folder in folders], _SYNCS)\n",
        "        pass\n",
        f"{POWER}[add]",
    ),
    Mutant(
        "segments/ is not synced",
        "storage/place.py",
        "                self._files.sync_folder(SEGMENTS)\n        return records\n",
        "                pass\n        return records\n",
        f"{POWER}[add]",
    ),
    Mutant(
        "segments/ is synced before the rename",
        "storage/place.py",
        """            self._files.rename(f"{STAGING}/{name}", f"{SEGMENTS}/{name}")
            records.append(self._staged.pop(number))
        if records:
            with self._syncing():
                self._files.sync_folder(SEGMENTS)
""",
        """            self._files.sync_folder(SEGMENTS)
            self._files.rename(f"{STAGING}/{name}", f"{SEGMENTS}/{name}")
            records.append(self._staged.pop(number))
""",
        f"{POWER}[add]",
    ),
    Mutant(
        "the catalog commits before the segments are published",
        "storage/transaction.py",
        """        for record in self._place.publish(self._staged):
            self._catalog.add_segment(record, self._counters.commit)
        self._catalog.drop_segments(int(segment.name) for segment in self._replaced())
        self._catalog.put(self.schema, self._counters)
""",
        """        for number in self._staged:
            self._catalog.add_segment(self._place._staged[number], self._counters.commit)
        self._catalog.drop_segments(int(segment.name) for segment in self._replaced())
        self._catalog.put(self.schema, self._counters)
        self._catalog._run("COMMIT")
        self._place.publish(self._staged)
        self._catalog._run("BEGIN")
""",
        f"{STEPS}[add]",
    ),
    Mutant(
        "replaced segments are unlinked before the commit",
        "storage/transaction.py",
        "        self._catalog.put(self.schema, self._counters)\n        return Current.of(",
        "        self._catalog.put(self.schema, self._counters)\n"
        "        self._place.discard([int(segment.name) for segment in self._replaced()])\n"
        "        return Current.of(",
        f"{STEPS}[add that merges]",
    ),
    Mutant(
        "the folder is not synced when the journal is gone",
        "storage/database.py",
        '"synchronous = EXTRA"',
        '"synchronous = FULL"',
        f"{POWER}[add]",
    ),
    Mutant(
        "segments/ of a copy is not synced",
        "storage/folder.py",
        '            for name in (SEGMENTS, ""):\n                inside.sync_folder(name)\n',
        '            inside.sync_folder("")\n',
        f"{POWER}[snapshot]",
    ),
    Mutant(
        "the folder around a new index is not synced",
        "storage/folder.py",
        "        around.rename(staging, last)\n        around.sync_folder()\n    except",
        "        around.rename(staging, last)\n    except",
        f"{POWER}[save]",
    ),
    Mutant(
        "an exchange is not synced before the old index goes",
        "storage/folder.py",
        "                around.rename(staging, last)\n            around.sync_folder()\n",
        "                around.rename(staging, last)\n",
        f"{POWER}[save over]",
    ),
    Mutant(
        "a failed sync is forgotten",
        "storage/place.py",
        "            self.failed_sync = error\n",
        "",
        f"{STEPS}[add]",
    ),
    Mutant(
        "staged segments stay after a failure",
        "storage/store.py",
        "            with suppress(OSError):\n                transaction.roll_back()\n",
        "            pass\n",
        f"{STEPS}[add]",
    ),
    Mutant(
        "published segments are removed after the commit",
        "storage/store.py",
        "                    after = transaction.commit()\n                self._stand(after)\n",
        "                    after = transaction.commit()\n                self._stand(after)\n"
        "                transaction.roll_back()\n",
        KILL,
    ),
    Mutant(
        "a short write is not gone on with",
        "storage/files.py",
        "                    while block:\n                        block = block[os.write(fd, block) :]\n"
        "                    if size",
        "                    os.write(fd, block)\n                    if size",
        f"{STEPS}[add]",
    ),
    Mutant(
        "a next writer does not clean up",
        "storage/store.py",
        "                    place.clean((record.number for record in state.segments), state.counters.next_segment)\n",
        "                    pass\n",
        KILL,
    ),
    Mutant(
        "metadata is seen by the commit that removed it",
        "storage/catalog.py",
        '_VISIBLE = "created <= ? AND (removed IS NULL OR removed > ?)"',
        '_VISIBLE = "created <= ? AND (removed IS NULL OR removed >= ?)"',
        f"{STEPS}[drop metadata]",
    ),
    Mutant(
        "two writers share the lock",
        "storage/folder.py",
        "        lock = files.lock(LOCK)\n    except BlockingIOError:",
        "        lock = files.lock(LOCK, shared=True)\n    except BlockingIOError:",
        "tests/storage/test_folder.py::test_one_writer_many_readers",
    ),
    Mutant(
        "readers don't keep replaced segments",
        "storage/place.py",
        "            lock = self._files.lock(READERS, wait=",
        "            lock = self._files.lock(READERS, shared=True, wait=",
        "tests/storage/test_locks.py::test_merged_segments_go_when_the_reader_has_gone",
    ),
    Mutant(
        "sizes are not compared",
        "storage/tensors.py",
        "    if actual != size:\n",
        "    if False:\n",
        "tests/storage/test_tensors.py::test_a_whole_file_of_another_size_is_refused",
    ),
    Mutant(
        "checksums are not compared",
        "storage/verify.py",
        "        if read != written:\n",
        "        if False:\n",
        "tests/storage/test_folder.py::test_changed_vectors_are_found_by_checksums",
    ),
    Mutant(
        "a purge leaves the catalog's free pages",
        "storage/catalog.py",
        '            self._run("VACUUM")\n',
        "            pass\n",
        "tests/storage/test_compact.py::test_purge_leaves_no_byte",
    ),
]


def source(mutant: Mutant, package: Path = ROOT / "metaindex") -> str:
    """The mutated file.

    Raises:
        LookupError: the text to replace does not stand there exactly once.
    """
    text = (package / mutant.file).read_text(encoding="utf-8")
    if (times := text.count(mutant.text)) != 1:
        raise LookupError(f"{mutant.name}: its text stands {times} times in {mutant.file}, expected once; update the mutant")
    return text.replace(mutant.text, mutant.replacement)


def _copy(folder: Path) -> None:
    """The package, its compiled module and the tests."""
    from metaindex import _core

    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for name in ("metaindex", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copy(str(_core.__file__), folder / "metaindex")
    (folder / "sitecustomize.py").write_text(_SITE)


def _run(folder: Path, arguments: list[str]) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def _test(folder: Path, test: str) -> tuple[bool, str]:
    """Whether a test passes, and what it printed. Raises RuntimeError when it could not run at all."""
    code, output = _run(folder, ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test])
    if code not in (0, 1):
        raise RuntimeError(f"{test}: pytest ended with {code}:\n{output[-3000:]}")
    return code == 0, output


def main() -> int:
    parser = argparse.ArgumentParser(description="Plant faults and see that the tests catch them.")
    parser.add_argument("--only", metavar="NAME", help="the name of one mutant, or a part of it")
    chosen = parser.parse_args().only
    mutants = [mutant for mutant in MUTANTS if chosen is None or chosen in mutant.name]
    if not mutants:
        parser.error(f"no mutant is named {chosen!r}; there are: {', '.join(mutant.name for mutant in MUTANTS)}")
    for mutant in mutants:
        source(mutant)
    failed = 0
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _copy(folder)
        where = _run(folder, ["-c", "import metaindex, metaindex._core as core; print(metaindex.__file__, core.__file__)"])[1]
        if where.count(str(folder)) != 2:
            raise RuntimeError(f"the copy in {folder} is not what Python imports, but {where}")
        for test in dict.fromkeys(mutant.test for mutant in mutants):
            passed, output = _test(folder, test)
            print(f"{'passes' if passed else 'FAILS':9} {'(no mutant)':55} {test}", flush=True)
            if not passed:
                print(output[-2000:])
            failed += not passed
        for mutant in mutants:
            target = folder / "metaindex" / mutant.file
            original = target.read_text(encoding="utf-8")
            target.write_text(source(mutant), encoding="utf-8")
            started = time.monotonic()
            survived, _ = _test(folder, mutant.test)
            target.write_text(original, encoding="utf-8")
            seconds = time.monotonic() - started
            print(f"{'SURVIVES' if survived else 'caught':9} {mutant.name:55} {mutant.test} {seconds:.1f} s", flush=True)
            failed += survived
    print(f"{len(mutants)} mutants, {failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
