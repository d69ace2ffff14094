"""The corpus of docstrings: what counts as an entry."""

from __future__ import annotations

import pytest

from metaindex.bench.docstrings import collect, split_docstring

BODY = "\n\n    The body explains it in {} and more words.\n    "

SOURCE = f'''
"""Modules don't count.{BODY.format("many")}"""

def function():
    """Do one thing{BODY.format("one")}"""

async def waiting():
    """A summary
    of two lines.{BODY.format("two")}"""

class Thing:
    """A thing.{BODY.format("three")}"""

    def method(self):
        r"""Do \\d things.{BODY.format("four")}"""
        def inner():
            """Inner functions don't count.{BODY.format("five")}"""

    def _private(self):
        """Private names don't count.{BODY.format("six")}"""

    class Nested:
        """Nested classes count.{BODY.format("seven")}"""

def bare(): pass

def short():
    """Nothing but a summary."""

def twin():
    """Do one thing{BODY.format("eight")}"""

def copy():
    """Another summary.{BODY.format("one")}"""
'''


@pytest.fixture
def library(tmp_path):
    for path, text in {
        "alpha.py": SOURCE,
        "package/__init__.py": f'def here():\n    """In a package.{BODY.format("nine")}"""',
        "package/module.py": f'def there():\n    """In a module.{BODY.format("ten")}"""',
        "package/_private.py": f'def no():\n    """In a private module.{BODY.format("eleven")}"""',
        "test/test_alpha.py": f'def no():\n    """In a test.{BODY.format("twelve")}"""',
        "site-packages/other.py": f'def no():\n    """In an installed package.{BODY.format("thirteen")}"""',
        "broken.py": "def (:",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_what_counts(library):
    entries = collect(library)
    assert [entry.id for entry in entries] == [
        "alpha.function",
        "alpha.waiting",
        "alpha.Thing",
        "alpha.Thing.method",
        "alpha.Thing.Nested",
        "package.here",
        "package.module.there",
    ]
    assert entries[1].summary == "A summary of two lines."
    assert entries[0].body == "The body explains it in one and more words."


@pytest.mark.parametrize(
    "docstring", ["", "Summary.", "Summary.\n\nToo short.", "Summary.\nNo blank line, however long it gets."]
)
def test_no_summary_or_no_body(docstring):
    assert split_docstring(docstring) is None


def test_the_standard_library_of_this_python():
    entries = collect()
    assert 1000 < len(entries) < 4000
    assert {"textwrap.TextWrapper.wrap", "shutil.copytree"} <= {entry.id for entry in entries}
    for field in ("id", "summary", "body"):
        values = [getattr(entry, field) for entry in entries]
        assert len(set(values)) == len(values)
        assert all(values)
    assert not any("\n" in entry.summary for entry in entries)
    assert collect() == entries
