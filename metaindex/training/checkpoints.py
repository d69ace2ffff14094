"""Training that was interrupted goes on where it was.

```
checkpoint-000200/        after step 200
  weights.safetensors     what is trained, by its name in the model
  optimizer.safetensors   what AdamW keeps of each weight, as "<name of the weight>/<what>"
  state.json              the step, the schedule, and what the run was told
```
Order and dropout follow from the seed and the step, so no state of a random generator is kept.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from metaindex.errors import UnsupportedFormatError

_NAME, _NAMED = "checkpoint-{:06d}", re.compile("checkpoint-([0-9]{6,})")
_STATE, _WEIGHTS, _OPTIMIZER = "state.json", "weights.safetensors", "optimizer.safetensors"


def save(
    folder: Path, step: int, weights: dict[str, torch.nn.Parameter], optimizer: Any, scheduler: Any, told: dict[str, Any]
) -> None:
    """Write the checkpoint of ``step`` below ``folder`` and, once it would survive a loss of power, remove those before it."""
    staging = folder / ".checkpoint.staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    save_file({name: each.detach().cpu().contiguous() for name, each in weights.items()}, staging / _WEIGHTS)
    kept = {
        f"{name}/{what}": value.cpu().contiguous()
        for name, each in weights.items()
        for what, value in optimizer.state.get(each, {}).items()
    }
    save_file(kept, staging / _OPTIMIZER)
    state = {"step": step, "scheduler": scheduler.state_dict(), "told": told}
    (staging / _STATE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    for path in (*staging.iterdir(), staging):
        _sync(path)
    before = _found(folder)
    final = folder / _NAME.format(step)
    shutil.rmtree(final, ignore_errors=True)
    staging.rename(final)
    _sync(folder)
    for path in before:
        if path != final:
            shutil.rmtree(path)


def load(folder: Path, weights: dict[str, torch.nn.Parameter], optimizer: Any, scheduler: Any, told: dict[str, Any]) -> int:
    """Put the last checkpoint below ``folder`` into weights, optimizer and schedule, and return its step; 0 without one.

    Raises:
        ValueError: it is of a run that was told otherwise. UnsupportedFormatError: it is no checkpoint of this version.
    """
    found = _found(folder)
    if not found:
        return 0
    last = found[-1]
    try:
        state = json.loads((last / _STATE).read_text(encoding="utf-8"))
        step, before, schedule = int(state["step"]), dict(state["told"]), dict(state["scheduler"])
        values, kept = load_file(last / _WEIGHTS), load_file(last / _OPTIMIZER)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UnsupportedFormatError(f"{last}: can't be read as a checkpoint ({error}); remove it to start anew") from None
    now = json.loads(json.dumps(told))
    # An earlier version was told less.
    if wrong := [name for name in now if name in before and before[name] != now[name]]:
        name = wrong[0]
        raise ValueError(
            f"resume: expected {name} = {before[name]!r}, with which {last} was made, got {now[name]!r}; "
            f"give the same, or train anew elsewhere"
        )
    if {name: each.shape for name, each in values.items()} != {name: each.shape for name, each in weights.items()}:
        raise ValueError(
            f"resume: {last} holds other weights than this model trains; give the same model or train anew elsewhere"
        )
    with torch.no_grad():
        for name, each in weights.items():
            each.copy_(values[name])
    for key, value in kept.items():
        name, _, what = key.rpartition("/")
        each = weights[name]
        # AdamW counts its steps on the CPU.
        optimizer.state[each][what] = value if what == "step" else value.to(each.device)
    scheduler.load_state_dict(schedule)
    for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr()):
        group["lr"] = rate
    return step


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _found(folder: Path) -> list[Path]:
    """The checkpoints below ``folder``, by their steps. What others call alike is not to be read, still less to be removed."""
    named = ((_NAMED.fullmatch(each.name), each) for each in folder.glob("checkpoint-*") if (each / _STATE).is_file())
    steps = {int(match[1]): each for match, each in named if match}
    return [steps[step] for step in sorted(steps)]
