"""The loss of Matryoshka Multi-Vector Retrieval (arXiv 2509.18095): one contrastive loss for each budget.

``s(q, d; r_q, r_c) = sum_{i < r_q} max_{j < r_c} <q_i, d_j>``, ``S = s / temperature``, and for each group of budgets
``-mean_u log(exp(S_uu) / (sum_v exp(S_uv) + sum_h exp(S_uh)))`` over the documents ``v`` of the batch and the query's own hard
negatives ``h``. Scores are not divided by r_q.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from metaindex.errors import ShapeError
from metaindex.training import processes
from metaindex.types import Budget

GROUPS = ((1, 1), (2, 4), (4, 8), (8, 16), (16, 64))
_SIMILARITIES = 1 << 25  # held at a time: 128 MiB in float32


def groups_of(query_tokens: int, doc_tokens: int) -> tuple[Budget, ...]:
    """The paper's groups that queries of R and documents of T tokens have, and everything as the last one."""
    fitting = [Budget(*group) for group in GROUPS if group[0] <= query_tokens and group[1] <= doc_tokens]
    whole = Budget(query_tokens, doc_tokens)
    return tuple(fitting if whole in fitting else [*fitting, whole])


class MMRLoss(nn.Module):
    """The loss of queries [B, R, d] and their documents [B, T, d], which are each other's negatives.

    Similarities are computed once for all groups, in float32 whatever autocast says, and at most 128 MiB of them are held at a
    time. With torch.distributed, documents of all processes are negatives. Each process returns the loss of its own queries;
    the mean over processes, of losses and of the gradients of weights, is that of one process with all of the batch.

    Args:
        groups: budgets (r_q, r_c), each with a loss of its own; by default the paper's, for 16 and 64 tokens.
        weights: of the groups; 1 by default.
        temperature: what scores are divided by; several are one for each group. Scores are sums over r_q vectors, so
            ``[0.05 * r_q for r_q, _ in groups]`` looks at means, and large budgets learn from what they nearly got right too.
        reduction: "sum" over the groups, as in the paper, or their weighted "mean".
        gather: take the documents of other processes as negatives.

    Raises:
        ValueError: no group, a group below (1, 1), weights that do not fit or are not positive, a temperature that is not
            positive, an unknown reduction.
    """

    def __init__(
        self,
        groups: Sequence[tuple[int, int]] = GROUPS,
        weights: Sequence[float] | None = None,
        temperature: float | Sequence[float] = 0.03,
        reduction: str = "sum",
        *,
        gather: bool = True,
    ) -> None:
        super().__init__()
        self.groups = tuple(Budget(*group) for group in groups)
        if not self.groups or any(min(group) < 1 for group in self.groups):
            raise ValueError(f"groups: expected budgets (r_q, r_c) of at least (1, 1), got {list(groups)}")
        self.weights = (1.0,) * len(self.groups) if weights is None else tuple(map(float, weights))
        if len(self.weights) != len(self.groups) or not all(0 < weight < float("inf") for weight in self.weights):
            raise ValueError(f"weights: expected {len(self.groups)} numbers above 0, one for each group, got {weights}")
        several = tuple(temperature) if isinstance(temperature, Sequence) else (temperature,) * len(self.groups)
        self.temperatures = tuple(map(float, several))
        if len(several) != len(self.groups) or not all(0 < each < float("inf") for each in self.temperatures):
            raise ValueError(f"temperature: expected a number above 0, or {len(self.groups)} of them, got {temperature}")
        if reduction not in ("sum", "mean"):
            raise ValueError(f"reduction: expected 'sum' or 'mean', got {reduction!r}")
        self.reduction, self.gather = reduction, gather

    def extra_repr(self) -> str:
        return f"groups={' '.join(map(str, self.groups))}, temperatures={self.temperatures}, reduction={self.reduction!r}"

    def forward(
        self,
        queries: torch.Tensor,
        documents: torch.Tensor,
        negatives: torch.Tensor | None = None,
        *,
        present: torch.Tensor | None = None,
        ids: torch.Tensor | None = None,
        negative_ids: torch.Tensor | None = None,
        query_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss of all groups, a scalar, float32 (float64 of float64 vectors).

        Args:
            queries: [B, R, d]. documents: [B, T, d], the right one of each query; B is the same in every process.
            negatives: [B, H, T, d], hard negatives of each query, which are no negatives of others.
            present: bool [B, H], where queries have fewer than H of them.
            ids: integers [B] that tell documents apart. A document with the id of a query's right one is no negative of it.
            negative_ids: the same of the hard negatives, [B, H]. One with the id of the query's right document does not count.
            query_ids: integers [B] that tell queries apart. The right document of an equal query is no negative either, be it
                in the batch as a document or, which takes all three ids, as a hard negative.

        Raises:
            ShapeError: shapes do not fit each other, or a group is larger than the vectors.
        """
        about = {"present": present, "ids": ids, "negative_ids": negative_ids, "query_ids": query_ids}
        return self.total(self.by_group(queries, documents, negatives, **about))

    def total(self, losses: torch.Tensor) -> torch.Tensor:
        """What ``forward`` returns of the losses [G] of ``by_group``."""
        total = (losses * losses.new_tensor(self.weights)).sum()
        return total if self.reduction == "sum" else total / sum(self.weights)

    def by_group(
        self,
        queries: torch.Tensor,
        documents: torch.Tensor,
        negatives: torch.Tensor | None = None,
        *,
        present: torch.Tensor | None = None,
        ids: torch.Tensor | None = None,
        negative_ids: torch.Tensor | None = None,
        query_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss of each group [G], before weights. Arguments and errors as ``forward``."""
        self._check(queries, documents, negatives)
        own, every, first = documents, documents, 0
        if self.gather:
            every, first = processes.gathered(documents), processes.rank() * len(own)
        right = torch.arange(len(queries), device=queries.device) + first
        own_place = right[:, None] == torch.arange(len(every), device=queries.device)
        all_ids, all_query_ids = self._of_all(ids), self._of_all(query_ids)
        asked = own_place if query_ids is None else own_place | (query_ids[:, None] == all_query_ids)
        hidden = (asked if ids is None else asked | (ids[:, None] == all_ids)) & ~own_place
        if negatives is not None:
            absent = torch.zeros(negatives.shape[:2], dtype=torch.bool, device=right.device) if present is None else ~present
            if ids is not None and negative_ids is not None:
                absent = absent | ((negative_ids[:, :, None] == all_ids) & asked[:, None]).any(dim=2)
            hidden = torch.cat([hidden, absent], dim=1)
        with torch.autocast(queries.device.type, enabled=False):
            dtype = torch.promote_types(queries.dtype, torch.float32)
            hard = None if negatives is None else negatives.to(dtype)
            scores = self._blocks(queries.to(dtype), every.to(dtype), hard)
            logits = (scores / scores.new_tensor(self.temperatures)[:, None, None]).masked_fill(hidden, -torch.inf)
            chosen = logits.gather(2, right.expand(len(self.groups), -1)[..., None]).squeeze(2)
            return (logits.logsumexp(dim=2) - chosen).mean(dim=1)

    def _blocks(self, queries: torch.Tensor, documents: torch.Tensor, negatives: torch.Tensor | None) -> torch.Tensor:
        """Scores [G, B, N + H], block by block of queries where similarities are many; a backward pass computes them again."""
        hard = 0 if negatives is None else negatives.shape[1]
        rows = max(1, _SIMILARITIES // ((len(documents) + hard) * queries.shape[1] * documents.shape[1]))
        if rows >= len(queries):
            return self._scores(queries, documents, negatives)
        scores = []
        for start in range(0, len(queries), rows):
            of = slice(start, start + rows)
            block = (queries[of], documents, None if negatives is None else negatives[of])
            if torch.is_grad_enabled():
                scores.append(checkpoint(self._scores, *block, use_reentrant=False, preserve_rng_state=False))
            else:
                scores.append(self._scores(*block))
        return torch.cat(scores, dim=1)

    def _scores(self, queries: torch.Tensor, documents: torch.Tensor, negatives: torch.Tensor | None) -> torch.Tensor:
        r_q, r_c = (max(sizes) for sizes in zip(*self.groups))
        queries = queries[:, :r_q]
        found = self._by_group(torch.einsum("bqd,ncd->bnqc", queries, documents[:, :r_c]))
        if negatives is None:
            return found
        hard = self._by_group(torch.einsum("bqd,bhcd->bhqc", queries, negatives[:, :, :r_c]))
        return torch.cat([found, hard], dim=2)

    def _by_group(self, similarities: torch.Tensor) -> torch.Tensor:
        """[B, N, R, T] to scores [G, B, N]: what a larger budget adds to the maxima is its further document tokens only."""
        edges = sorted({group.r_c for group in self.groups})
        widths = [after - before for before, after in zip([0, *edges], edges)]
        best: dict[int, torch.Tensor] = {}
        for edge, part in zip(edges, torch.split_with_sizes(similarities, widths, dim=3)):
            # Unlike amax, max keeps places for its gradient, not the similarities.
            here = part.max(dim=3).values
            best[edge] = torch.maximum(best[max(best)], here) if best else here
        return torch.stack([best[group.r_c][..., : group.r_q].sum(dim=2) for group in self.groups])

    def _of_all(self, ids: torch.Tensor | None) -> torch.Tensor | None:
        """Those of all processes, whose hard negatives may differ: so all of them gather, with hard negatives and without."""
        return processes.gathered(ids) if ids is not None and self.gather else ids

    def _check(self, queries: torch.Tensor, documents: torch.Tensor, negatives: torch.Tensor | None) -> None:
        if queries.ndim != 3 or documents.ndim != 3 or queries.shape[::2] != documents.shape[::2]:
            raise ShapeError(
                f"queries, documents: expected [B, R, d] and [B, T, d], got {tuple(queries.shape)} and {tuple(documents.shape)}"
            )
        if negatives is not None and (negatives.ndim != 4 or negatives.shape[::2] != (len(queries), documents.shape[1])):
            raise ShapeError(f"negatives: expected [B, H, T, d] beside {tuple(documents.shape)}, got {tuple(negatives.shape)}")
        largest = Budget(max(group.r_q for group in self.groups), max(group.r_c for group in self.groups))
        tokens = Budget(queries.shape[1], documents.shape[1])
        if largest.r_q > tokens.r_q or largest.r_c > tokens.r_c:
            raise ShapeError(
                f"groups: expected at most {tokens}, which queries and documents have, got {largest}; "
                f"metaindex.training.groups_of({tokens.r_q}, {tokens.r_c}) gives groups that fit"
            )
