"""Texts that nearly repeat others: a model that learned from them would know the answers it is measured on."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

RUN = 5  # words in a row
SHARE = 0.3  # of a text's runs that may stand in one other text


class Known:
    """Finds texts that share much with one of ``texts``, or all of whose words, with case and punctuation left out, one has."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._exact = {" ".join(_words(text)) for text in texts}
        self._where: dict[tuple[str, ...], set[int]] = defaultdict(set)
        self._sizes: list[int] = []
        for place, text in enumerate(texts):
            runs = _runs(text)
            self._sizes.append(len(runs))
            for run in runs:
                self._where[run].add(place)

    def has_like(self, text: str) -> bool:
        """Whether one of the texts has ``SHARE`` of this one's runs of ``RUN`` words, or this one of its."""
        if " ".join(_words(text)) in self._exact:
            return True
        runs = _runs(text)
        shared = Counter(place for run in runs for place in self._where.get(run, ()))
        return any(count >= SHARE * max(1, min(len(runs), self._sizes[place])) for place, count in shared.items())


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9_]+", text.lower())


def _runs(text: str) -> set[tuple[str, ...]]:
    words = _words(text)
    return {tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1)}
