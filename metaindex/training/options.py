"""How to train: sizes, learning rates, and when to look and to save."""

from __future__ import annotations

from dataclasses import dataclass

from metaindex.checks import integer, is_number

SCHEDULES = ("linear", "cosine", "constant")


@dataclass(frozen=True)
class TrainingOptions:
    """Options of ``train``. The paper publishes neither batch size, learning rates nor schedule: these defaults are ours.

    Args:
        epochs: how often each example is seen. steps: how many batches instead, whatever epochs they make.
        batch_size: queries in a batch, of one process. Documents of the batch are each other's negatives, so more is harder.
        chunk_size: inputs in one forward pass; all of a side by default. Within a batch, inputs of like length share a chunk.
        cache_gradients: compute vectors without gradients first, then chunk by chunk with them: memory of one chunk for a batch
            of any size, at the price of a second forward pass.
        learning_rate: of the adapter, or of the backbone where that is trained.
        meta_learning_rate: of the Meta Tokens. projection_learning_rate: of the projection.
        weight_decay: of AdamW, of all but the Meta Tokens.
        max_gradient_norm: longer gradients are cut to it; ``None`` cuts nothing.
        warmup: the share of the steps in which learning rates rise from 0.
        schedule: how they fall afterwards: "linear", "cosine" or "constant".
        dropout: let the model drop what its configuration says; without it steps are faster.
        coverage: weight of a further loss, which asks that each token of the content has a vector near to it; see
            ``metaindex.training.coverage``. It keeps the vectors of small backbones from becoming all alike. Needs an
            adapter: what the tokens say comes from the backbone without it.
        bf16: run the model in bfloat16 by autocast; weights and the loss stay float32.
        by_length: put examples of like length into one batch, so that little is computed on padding. The negatives of a batch
            then are of like length too.
        neighbours: so many examples that follow each other in the data share a batch. Where its order means something, as that
            of files in a folder does, they are hard negatives of each other that cost nothing. Where the batch of all processes
            is no multiple of them, batches end within a group, whose rest begins the next one.
        seed: of the order of examples and of dropout. The same seed gives the same model, on the same machine and threads.
        log_every: steps between two lines of the log.
        evaluate_every: steps between two evaluations; by default there is one at the end.
        save_every: steps between two checkpoints, of which the last is kept; by default there is none.

    Raises:
        TypeError, ValueError: a value out of bounds; the message starts with its name.
    """

    epochs: int = 1
    steps: int | None = None
    batch_size: int = 32
    chunk_size: int | None = None
    cache_gradients: bool = False
    learning_rate: float = 2e-4
    meta_learning_rate: float = 2e-3
    projection_learning_rate: float = 1e-3
    weight_decay: float = 0.0
    max_gradient_norm: float | None = 1.0
    warmup: float = 0.1
    schedule: str = "linear"
    dropout: bool = True
    coverage: float = 0.0
    bf16: bool = False
    by_length: bool = False
    neighbours: int = 1
    seed: int = 0
    log_every: int = 10
    evaluate_every: int | None = None
    save_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "neighbours", "log_every"):
            integer(name, getattr(self, name))
        for name in ("steps", "chunk_size", "evaluate_every", "save_every"):
            if getattr(self, name) is not None:
                integer(name, getattr(self, name))
        integer("seed", self.seed, least=0)
        for name in ("learning_rate", "meta_learning_rate", "projection_learning_rate", "weight_decay", "coverage"):
            _number(name, getattr(self, name), float("inf"))
        if self.max_gradient_norm is not None:
            _number("max_gradient_norm", self.max_gradient_norm, float("inf"))
        _number("warmup", self.warmup, 1)
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule: expected one of {', '.join(SCHEDULES)}, got {self.schedule!r}")


def _number(name: str, value: object, most: float) -> None:
    if not is_number(value):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not 0 <= value <= most or value == float("inf"):  # type: ignore[operator]
        raise ValueError(f"{name}: expected a number of at least 0{'' if most > 1 else ' and at most 1'}, got {value}")
