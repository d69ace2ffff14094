"""Loading models without noise."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def no_loading_bar() -> Iterator[None]:
    """transformers draws bars for loading and saving weights, terminal or not; small models take a moment."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def no_deprecations_of_peft() -> Iterator[None]:
    """peft asks transformers 5 for something by its old name, of which nobody who uses peft can do anything."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield
