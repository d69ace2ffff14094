"""The power goes after every file call of every operation.

Whatever the disk kept of what was not synced, the index opens and holds what was acknowledged, and the call in flight is there
as a whole or not at all.
"""

from __future__ import annotations

import pytest

from tests.storage.faults.operations import OPERATIONS


@pytest.mark.parametrize("operation", [operation.name for operation in OPERATIONS])
def test_power_loss_after_every_call(server, folder, operation):
    answer = server.ask("power", operation, "int8", folder)
    wrong = answer["wrong"]
    assert not wrong, f"{len(wrong)} or more of {answer['counts']['different states']} states:\n" + "\n".join(wrong[:20])
    assert answer["counts"]["points"] > 20
    assert answer["counts"]["different states"] > answer["counts"]["points"]
