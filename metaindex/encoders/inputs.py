"""What encoders take: texts, images, or both.

A ``str`` is a text, never a path. A ``pathlib.Path`` is an image on disk, a PIL image one in memory. A dict has ``"text"``,
``"image"`` or both, where the image is either of these or a path as text.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metaindex.errors import MissingDependencyError


class Content(NamedTuple):
    """One input: its text, ``None`` where it has none, and its image, a path or a PIL image."""

    text: str | None
    image: Any

    def opened(self) -> Any:
        """The image in memory, as PIL, in RGB.

        Raises:
            FileNotFoundError, PIL.UnidentifiedImageError: there is no image at the path.
        """
        if not isinstance(self.image, Path):
            return self.image.convert("RGB")
        try:
            from PIL import Image
        except ModuleNotFoundError:
            raise MissingDependencyError("images need the package pillow: pip install 'metaindex[encoders]'") from None
        with Image.open(self.image) as image:
            return image.convert("RGB")

    def described(self) -> dict[str, str]:
        """What can be stored of it: the text, and the path of an image that has one."""
        stored = {} if self.text is None else {"text": self.text}
        path = self.image if isinstance(self.image, Path) else getattr(self.image, "filename", None)
        if self.image is not None and path:
            stored["image"] = os.fspath(path)
        return stored


def contents(inputs: Any) -> list[Content]:
    """The inputs of one call, checked.

    Raises:
        TypeError: no list, or an item that is neither text, image nor a dict of them. ValueError: a dict without either.
    """
    if isinstance(inputs, (str, Path, Mapping)) or is_image(inputs):
        raise TypeError(f"inputs: expected a list, got one {type(inputs).__name__}; wrap it in a list")
    if not isinstance(inputs, Sequence) and not hasattr(inputs, "__array__"):
        raise TypeError(f"inputs: expected a list of texts or images, got {type(inputs).__name__}")
    return [content(item, f"inputs[{place}]") for place, item in enumerate(inputs)]


def content(item: Any, argument: str) -> Content:
    """One input, checked; ``argument`` is the caller's name for it. A ``Content`` stays what it is. Raises as ``contents``."""
    if isinstance(item, Content):
        return item
    if isinstance(item, str):
        return Content(str(item), None)
    if isinstance(item, Path) or is_image(item):
        return Content(None, item)
    if not isinstance(item, Mapping):
        raise TypeError(
            f"{argument}: expected a text, an image (PIL or pathlib.Path) or a dict of both, got {type(item).__name__}"
        )
    if unknown := set(item) - {"text", "image"}:
        raise ValueError(f"{argument}: expected the keys 'text' and 'image', got {sorted(map(str, unknown))}")
    text, image = item.get("text"), item.get("image")
    if text is None and image is None:
        raise ValueError(f"{argument}: expected a text, an image or both, got neither")
    if text is not None and not isinstance(text, str):
        raise TypeError(f"{argument}['text']: expected a text, got {type(text).__name__}")
    if isinstance(image, str):
        image = Path(image)
    if image is not None and not isinstance(image, Path) and not is_image(image):
        raise TypeError(f"{argument}['image']: expected a PIL image or a path, got {type(image).__name__}")
    return Content(text, image)


def is_image(value: Any) -> bool:
    """Whether ``value`` is a PIL image, told by its class: pillow is optional."""
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(value).__mro__)
