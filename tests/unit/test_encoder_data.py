"""Where the shipped encoder's data comes from, and how it is packed: on made-up wheels and a small model."""

from __future__ import annotations

import json
import zipfile

import pytest

from benchmarks.encoder import data
from benchmarks.encoder.near import Known
from metaindex.bench.docstrings import Entry, collect

BODY = "Lines are filled as far as they will go, and words that are longer than a line are broken where it ends."


def source(*docstrings):
    return "\n".join(f'def name{n}():\n    """{text}"""\n' for n, text in enumerate(docstrings))


def wheel(folder, name, version, **files):
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as packed:
        for file, text in files.items():
            packed.writestr(f"{name}/{file}.py", text)


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    wheel(
        tmp_path,
        "some_package",
        "1.2",
        main=source(
            "Sum the rows.\n\n    Rows are added up one after another, and columns are kept apart.",
            "Fold a text.\n\n    " + BODY,
            "Open it.\n\n    What is read from the file comes as bytes of some length or other.",
        ),
    )
    wheel(
        tmp_path, "some_package", "1.3", main=source("Another version.\n\n    Nobody asked for what stands in this one here.")
    )
    wheel(tmp_path, "rich", "2.0", main=source("Draw a box.\n\n    The box has corners, and lines between them all around."))
    wheel(
        tmp_path,
        "copies",
        "3.0",
        main=source(
            "Paint a box.\n\n    The box has corners, and lines between them all around it.",
            "Open it.\n\n    What is written to the file goes there as bytes sooner or later.",
        ),
    )
    (tmp_path / "packages.txt").write_text("# What is read.\nsome-package==1.2\nrich==2.0\ncopies==3.0\n")
    monkeypatch.setattr(data, "PACKAGES", tmp_path / "packages.txt")
    measured = [Entry("textwrap.fill", "Fill.", BODY)]
    monkeypatch.setattr(data, "collect", lambda root=None: measured if root is None else collect(root))
    return tmp_path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_pairs_that_are_neither_measured_nor_held_out(wheels, tmp_path):
    data.make(tmp_path / "made", [wheels])
    train, held_out = read(tmp_path / "made" / "train.jsonl"), read(tmp_path / "made" / "held_out.jsonl")
    # One stands in the standard library, two share a summary, and one nearly copies what is held out.
    assert [line["query"] for line in train] == ["Sum the rows."]
    assert train[0]["positive"].startswith("Rows are added up")
    assert [line["query"] for line in held_out] == ["Draw a box."]


def test_a_wheel_that_is_not_there(wheels, tmp_path):
    (wheels / "rich-2.0-py3-none-any.whl").unlink()
    with pytest.raises(SystemExit, match=r"rich==2\.0: no wheel of it in"):
        data.make(tmp_path / "made", [wheels])


def test_near():
    known = Known([BODY, "one two three"])
    assert known.has_like(BODY.upper().replace(",", ""))
    assert known.has_like("Note that lines are filled as far as they will go, and then some more.")
    assert known.has_like("One, two: three!")
    assert not known.has_like("Lines are drawn as far as they will reach, whoever looks at them.")
    assert not known.has_like("one two three four")
    assert not known.has_like("")
