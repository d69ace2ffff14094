"""How good a model is at every budget."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch

from metaindex.checks import integer
from metaindex.encoders.metaembed import MetaEmbed
from metaindex.evaluation import ndcg_at_k
from metaindex.index import MetaIndex
from metaindex.training.chunks import arguments, documents_of
from metaindex.training.examples import Example, check_examples, identifier, without_right_negatives
from metaindex.training.loss import MMRLoss
from metaindex.types import Budget

_DEPTH = 10


def evaluate(
    model: MetaEmbed,
    examples: Sequence[Example],
    loss: MMRLoss,
    *,
    batch_size: int = 32,
    chunk_size: int = 32,
    bf16: bool = False,
) -> dict[str, dict[str, float]]:
    """nDCG@10 and loss at each group of ``loss``: ``{"(1,1)": {"ndcg@10": 0.4, "loss": 2.5}, ...}``.

    All documents of the examples, hard negatives among them, are searched for every query; equal texts and images are one
    document, and one query with several right ones. Losses are of batches of ``batch_size`` examples in their order, as in
    training; fewer than that at the end are left out where there is a whole batch. Inputs are encoded ``chunk_size`` at a time.

    Raises:
        ValueError: no example, or sizes below 1. TypeError: an example that ``Example.of`` has not made.
    """
    check_examples("examples", examples)
    if not examples:
        raise ValueError("examples: expected at least one, got none")
    integer("batch_size", batch_size)
    examples = without_right_negatives(examples)
    queries = {identifier(each.query): each.query for each in examples}
    documents = {identifier(each): each for each in documents_of(examples)}
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
        asked = model.encode_query(list(queries.values()), chunk_size, convert_to_tensor=True)
        searched = model.encode_document(list(documents.values()), chunk_size, convert_to_tensor=True)
    query_rows = {key: row for row, key in enumerate(queries)}
    document_rows = {key: row for row, key in enumerate(documents)}
    alone, size, losses = _alone(loss), min(batch_size, len(examples)), []
    for start in range(0, len(examples) - size + 1, size):
        batch = examples[start : start + size]
        vectors = (
            asked[[query_rows[identifier(each.query)] for each in batch]],
            searched[[document_rows[identifier(each)] for each in documents_of(batch)]],
        )
        losses.append(alone.by_group(**arguments(batch, *vectors)))
    right: list[dict[Hashable, float]] = [{} for _ in queries]
    for each in examples:
        right[query_rows[identifier(each.query)]][document_rows[identifier(each.positive)]] = 1.0
    quality = _quality(loss.groups, asked, searched, right)
    means = torch.stack(losses).mean(dim=0).tolist()
    return {str(group): {f"ndcg@{_DEPTH}": found, "loss": mean} for group, found, mean in zip(loss.groups, quality, means)}


def _quality(
    groups: Sequence[Budget], queries: torch.Tensor, documents: torch.Tensor, right: Sequence[Mapping[Hashable, float]]
) -> list[float]:
    with MetaIndex(codec="float32", nested=True, device="cpu") as index:
        index.add(documents.cpu().numpy())
        asked = queries.cpu().numpy()
        found = [index.search(asked, min(_DEPTH, len(documents)), budget=group).ids for group in groups]
    return [float(ndcg_at_k(ids, right, _DEPTH).mean()) for ids in found]


def _alone(loss: MMRLoss) -> MMRLoss:
    """The same loss without other processes: one evaluates while the others wait."""
    return MMRLoss(loss.groups, loss.weights, loss.temperatures, loss.reduction, gather=False)
