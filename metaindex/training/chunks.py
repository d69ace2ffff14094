"""From a batch of examples to vectors and gradients, chunk by chunk.

Gradient caching (Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021): the loss needs
the vectors of a whole batch, but its gradient at them is all that the model needs. So vectors are computed without gradients,
the loss is derived at the vectors, and each chunk is computed again, with gradients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch

from metaindex.encoders.batches import alike
from metaindex.encoders.inputs import Content
from metaindex.encoders.metaembed import MetaEmbed, Side
from metaindex.training.coverage import uncovered
from metaindex.training.examples import Example, identifier
from metaindex.training.loss import MMRLoss


class Chunk(NamedTuple):
    """Inputs of one forward pass: their places on their side, what ``MetaEmbed.batch`` made of them, and dropout's seed."""

    side: Side
    places: list[int]
    batch: dict[str, Any]
    seed: int


class Losses(NamedTuple):
    """Of a batch: ``by_group`` [G], and ``uncovered``, summed over all inputs of an example, the mean over examples."""

    by_group: torch.Tensor
    uncovered: torch.Tensor


def derive(
    model: MetaEmbed,
    loss: MMRLoss,
    examples: Sequence[Example],
    *,
    chunk_size: int | None = None,
    cache: bool = False,
    bf16: bool = False,
    coverage: float = 0.0,
    seed: int = 0,
) -> Losses:
    """Add the gradients of the loss of a batch to the weights: of the groups' total, and ``coverage`` times the uncovered.

    The same ``seed`` and ``chunk_size`` give the same dropout, with ``cache`` and without.
    """
    queries = _chunks(model, [each.query for each in examples], "query", chunk_size, seed)
    documents = _chunks(model, documents_of(examples), "document", chunk_size, seed + 1)
    every = [*queries, *documents]
    with torch.set_grad_enabled(not cache):
        vectors = [_encoded(model, chunk, bf16) for chunk in every]
    if cache:
        vectors = [each.requires_grad_() for each in vectors]
    found = _in_order(queries, vectors[: len(queries)]), _in_order(documents, vectors[len(queries) :])
    losses = loss.by_group(**arguments(examples, *found))
    total: Any = loss.total(losses)

    def share_of(chunk: Chunk, vectors: torch.Tensor) -> Any:
        """The chunk's share of the uncovered."""
        return _uncovered(model, loss, chunk, vectors, bf16) / len(examples) if coverage else vectors.new_zeros(())

    shares = []
    if cache:
        total.backward()
        for chunk, each in zip(every, vectors):
            again = _encoded(model, chunk, bf16)
            share = share_of(chunk, again)
            through: Any = (again * each.grad).sum()  # type: ignore[operator]  # the backward pass of the loss put it there
            (through + coverage * share).backward()
            shares.append(share.detach())
    else:
        shares = [share_of(chunk, each) for chunk, each in zip(every, vectors)]
        (total + coverage * sum(shares)).backward()
    return Losses(losses.detach(), torch.stack(shares).sum().detach())


def arguments(examples: Sequence[Example], queries: torch.Tensor, documents: torch.Tensor) -> dict[str, Any]:
    """What the loss takes, of ``queries`` [B, R, d] and ``documents`` [B + K, T, d]: the right ones, then hard negatives."""
    device, right = documents.device, documents[: len(examples)]
    ids = torch.tensor([identifier(each.positive) for each in examples], device=device)
    most = max(len(each.negatives) for each in examples)
    query_ids = torch.tensor([identifier(each.query) for each in examples], device=device)
    found: dict[str, Any] = {"queries": queries, "documents": right, "ids": ids, "query_ids": query_ids}
    if most == 0:
        return found
    counts = torch.tensor([len(each.negatives) for each in examples], device=device)
    present = torch.arange(most, device=device) < counts[:, None]
    negatives = documents.new_zeros(len(examples), most, *documents.shape[1:])
    negative_ids = ids.new_zeros(len(examples), most)
    negative_ids[present] = torch.tensor([identifier(wrong) for each in examples for wrong in each.negatives], device=device)
    negatives = negatives.index_put((present,), documents[len(examples) :])
    return found | {"negatives": negatives, "present": present, "negative_ids": negative_ids}


def documents_of(examples: Sequence[Example]) -> list[Content]:
    """The right documents and then all hard negatives, as ``arguments`` takes their vectors."""
    return [each.positive for each in examples] + [wrong for each in examples for wrong in each.negatives]


def _chunks(model: MetaEmbed, inputs: Sequence[Content], side: Side, size: int | None, seed: int) -> list[Chunk]:
    places = list(alike(inputs, len(inputs) if size is None else size))
    return [
        Chunk(side, each, model.batch([inputs[place] for place in each], side), _mixed(seed, number))
        for number, each in enumerate(places)
    ]


def _mixed(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:7], "big")


def _encoded(model: MetaEmbed, chunk: Chunk, bf16: bool) -> torch.Tensor:
    torch.manual_seed(chunk.seed)  # so that a chunk drops the same both times
    # One autocast for each pass: weights that it cast without gradients would have none in the next pass.
    with _precision(model, bf16):
        found: torch.Tensor = model(chunk.batch, chunk.side)
    return found


def _uncovered(model: MetaEmbed, loss: MMRLoss, chunk: Chunk, vectors: torch.Tensor, bf16: bool) -> torch.Tensor:
    """Summed over the inputs of a chunk, by the vectors that the largest group has."""
    most = max(group.r_q if chunk.side == "query" else group.r_c for group in loss.groups)
    with _precision(model, bf16):
        content, present = model.content(chunk.batch)
    return uncovered(vectors[:, :most], content, present).sum()


@contextmanager
def _precision(model: MetaEmbed, bf16: bool) -> Iterator[None]:
    """Autocast brings what an adapter reads to bfloat16; peft would bring it to float32 before."""
    as_it_is: Any = nullcontext()
    if bf16 and hasattr(model.backbone, "peft_config"):
        from peft.helpers import disable_input_dtype_casting

        as_it_is = disable_input_dtype_casting(model.backbone)
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16), as_it_is:
        yield


def _in_order(chunks: Sequence[Chunk], vectors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The vectors of all chunks, each where its input was."""
    places = torch.tensor([place for chunk in chunks for place in chunk.places], device=vectors[0].device)
    return torch.cat(list(vectors))[places.argsort()]
