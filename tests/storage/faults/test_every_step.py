"""Every file call of every operation, SQLite's among them, failed, cut short or killed in turn.

Whatever fails: the call succeeds or raises an error that callers know; the same handle, and a new process, show the state
before or after it and never one between; the next write works or says why it can't; the next writer leaves nothing behind.
"""

from __future__ import annotations

import pytest

from tests.storage.faults.operations import OPERATIONS
from tests.storage.faults.steps import FAULTS

CASES = [(operation.name, ("int8", "float16")[number % 2]) for number, operation in enumerate(OPERATIONS)]


@pytest.mark.parametrize(("operation", "codec"), CASES, ids=[name for name, _ in CASES])
def test_every_fault_at_every_call(server, folder, operation, codec):
    answer = server.ask("steps", operation, codec, folder)
    wrong = answer["wrong"]
    assert not wrong, f"{len(wrong)} or more of {sum(answer['counts'].values())} faults:\n" + "\n".join(wrong[:20])
    assert set(answer["counts"]) == {fault.name for fault in FAULTS}
    assert answer["counts"]["killed before"] >= 10
