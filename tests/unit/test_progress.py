"""The progress bar."""

from __future__ import annotations

import io

from metaindex.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_silent_where_stderr_is_no_terminal():
    stream = io.StringIO()
    with Progress(10, "doc", "building", stream) as bar:
        bar.update(10)
    assert stream.getvalue() == ""


def test_a_terminal_sees_the_start_and_the_end():
    stream = Terminal()
    with Progress(1200, "doc", "building", stream) as bar:
        bar.update(1200)
    shown = stream.getvalue().split("\r")
    assert "0/1,200 doc" in shown[1]
    assert "1,200/1,200 doc in 0:00" in shown[-1]
    assert shown[-1].endswith("\n")


def test_time_left():
    bar = Progress(100, "doc", "building", io.StringIO())
    bar.update(25)
    assert bar.line(30.0) == "building             [#######.....................] 25/100 doc 1:30 left"


def test_nothing_to_do():
    assert "0/0 doc in 0:00" in Progress(0, "doc", "building", io.StringIO()).line(0.0)
