"""A writer killed at random moments loses nothing that it acknowledged, and leaves nothing half made."""

from __future__ import annotations

import pytest

from tests.storage.faults import kill
from tests.storage.faults.model import Change, Entry, new_index, perform


def test_killed_at_random_moments(folder):
    counts = kill.run(100, 1, folder)
    assert counts["kills"] == 100
    inside = sum(number for name, number in counts.items() if name.startswith("killed in"))
    assert inside >= 30, f"too few kills hit a call, so this shows little: {counts}"
    assert sum(number for name, number in counts.items() if name.startswith("acknowledged")) >= 50, counts


def test_a_lost_write_is_noticed(folder, monkeypatch):
    """The check itself: a child that acknowledges what it did not do is caught."""
    monkeypatch.setattr(kill, "perform", lambda index, change: None)
    with pytest.raises(AssertionError, match=r"in flight, found|sees something else"):
        kill.run(20, 1, folder, stretch=2)


def test_a_half_made_write_is_noticed(folder, monkeypatch):
    """A change that is made in two commits shows between them."""

    def in_two(index, change):
        if change.kind == "add":
            for entry in change.entries:
                perform(index, Change("add", (entry,)))
        else:
            perform(index, change)

    monkeypatch.setattr(kill, "perform", in_two)
    monkeypatch.setattr(kill, "changes", lambda rng, model, first: iter(_adds(first)))
    with pytest.raises(AssertionError, match="in flight, found"):
        kill.run(100, 1, folder, stretch=2)


def _adds(first):
    for start in range(first, first + 900, 5):
        yield Change("add", tuple(Entry(start + n, start + n, 2) for n in range(5)))


def test_a_leftover_is_noticed(folder):
    new_index(folder / "index", "int8").close()
    (folder / "index" / "segments" / "00000009").mkdir()
    assert kill.leftovers(folder / "index") == ["segments/00000009"]
