"""How good a ranking is: nDCG and MRR against judgements, recall against the exact result."""

from metaindex.evaluation.metrics import mrr_at_k, ndcg_at_k, recall_at_k

__all__ = ["mrr_at_k", "ndcg_at_k", "recall_at_k"]
