"""Models with the interfaces of libraries that are not installed here, made of random vectors for words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

DIM = 8


def vectors_of(text: str, begin: str = "") -> np.ndarray:
    """A unit vector for each word, the same wherever it occurs."""
    found = [np.random.default_rng(list(word.encode())).standard_normal(DIM) for word in f"{begin}{text}".split()]
    return np.stack([each / np.linalg.norm(each) for each in found]).astype(np.float32)


class ColBERT:
    """As PyLate's: one method for both sides."""

    def encode(self, sentences: list[str], batch_size: int = 32, is_query: bool = True, show_progress_bar: bool = True) -> Any:
        assert not show_progress_bar
        return [vectors_of(text, "[Q] " if is_query else "[D] ") for text in sentences]


class PageProcessor:
    """As colpali-engine's processors: a method for each kind of input, padding on the left, tensors out."""

    def process_images(self, images: list[Any]) -> dict[str, torch.Tensor]:
        return self._padded([f"image {image.width} {image.height}" for image in images])

    def process_queries(self, texts: list[str]) -> dict[str, torch.Tensor]:
        return self._padded([f"query {text}" for text in texts])

    def process_texts(self, texts: list[str]) -> dict[str, torch.Tensor]:
        return self._padded(texts)

    def _padded(self, texts: list[str]) -> dict[str, torch.Tensor]:
        rows = [vectors_of(text) for text in texts]
        longest = max(map(len, rows))
        values = torch.stack([torch.from_numpy(np.pad(row, ((longest - len(row), 0), (0, 0)))) for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        return {"pixel_values": values, "attention_mask": mask}


class PageModel(torch.nn.Module):
    """As colpali-engine's models: a tensor comes out, zero where there was padding."""

    def __init__(self, *, output: bool = False) -> None:
        super().__init__()
        self.scale, self.output = torch.nn.Parameter(torch.ones(())), output
        self.batches: list[int] = []

    @property
    def device(self) -> torch.device:
        return self.scale.device

    def forward(self, pixel_values: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        assert not self.training
        self.batches.append(len(pixel_values))
        found = pixel_values * self.scale
        return SimpleNamespace(embeddings=found) if self.output else found


class Words(torch.nn.Module):
    """A torch module that takes texts."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, texts: list[str]) -> list[torch.Tensor]:
        assert not self.training
        return [torch.from_numpy(vectors_of(text)) * self.factor for text in texts]
