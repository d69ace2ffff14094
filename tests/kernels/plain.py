"""The operations of a GPU scorer in plain torch and numpy, on a CPU: what the kernels are held to, one document at a time."""

from __future__ import annotations

import ctypes
import functools

import numpy as np
import torch

from metaindex.codecs import Parts, codec
from metaindex.device import keys
from metaindex.device.operations import DeviceQueries, Hits, Output
from metaindex.device.table import DeviceTable


class PlainOperations:
    name = "plain"

    def maxsim_scan(self, table, queries: DeviceQueries, r_c, span, allow, out: Output) -> None:
        rows = torch.arange(*span)[None].expand(len(queries), -1)
        scores, wanted = _scores(table, queries, r_c, rows, allow)
        if isinstance(out, Hits):
            _append(table, rows, scores, wanted, out)
        else:
            out[:, span[0] : span[1]] = scores

    def maxsim_gather(self, table, queries: DeviceQueries, r_c, candidates, allow, out: Output) -> None:
        rows = candidates.expand(len(queries), -1)
        scores, wanted = _scores(table, queries, r_c, rows, allow)
        if isinstance(out, Hits):
            _append(table, rows, scores, wanted, out)
        else:
            out.copy_(scores)

    def topk(self, hits_keys, counts, k):
        found = torch.full((len(counts), k), keys.MISSING, dtype=torch.int64)
        for b, count in enumerate(counts.tolist()):
            best = hits_keys[b, :count].sort(descending=True).values[:k]
            found[b, : len(best)] = best
        return found


def document(table: DeviceTable, row: int, r_c: int) -> np.ndarray:
    """The decoded first tokens [t, d] of a document, read from the addresses in the table."""
    kind = codec(table.codec)
    segment = int(np.searchsorted(table.first_rows.numpy(), row, side="right")) - 1
    local, tokens = row - int(table.first_rows[segment]), []
    for j in range(min(r_c, int(table.lengths[row]))):
        level = int(table.token_levels[j])
        at = local * int(table.widths[level]) + j - int(table.starts[level])
        codes = _read(int(table.codes[segment, level]) + at * table.dim * kind.dtype.itemsize, kind.dtype, table.dim)
        scale = None if table.scales is None else _read(int(table.scales[segment, level]) + 4 * at, np.dtype(np.float32), 1)[0]
        tokens.append(kind.decode(Parts(codes, None if scale is None else np.float32(scale))))
    return np.stack(tokens)


def _read(address: int, dtype: np.dtype, count: int) -> np.ndarray:
    return np.frombuffer((ctypes.c_char * (dtype.itemsize * count)).from_address(address), dtype)


def _scores(table, queries, r_c, rows, allow) -> tuple[torch.Tensor, torch.Tensor]:
    """The scores of ``rows`` [B, C], NaN counted as -inf, and which of them are wanted."""
    kind = codec(table.codec)
    raw = queries.codes.view(torch.uint16).numpy() if table.codec == "bfloat16" else queries.codes.numpy()
    decoded = kind.decode(Parts(raw, None if queries.scales is None else queries.scales.numpy()))
    tokens_of = functools.cache(lambda row: document(table, row, r_c).astype(np.float64))
    found, wanted = torch.full(rows.shape, -torch.inf), torch.zeros(rows.shape, dtype=torch.bool)
    for b, c in np.ndindex(*rows.shape):
        row = int(rows[b, c])
        if row >= 0 and (allow is None or bool(allow[row])):
            wanted[b, c] = True
            query = decoded[b, : int(queries.lengths[b])].astype(np.float64)
            score = (query @ tokens_of(row).T).max(axis=1).sum() if len(query) else 0.0
            found[b, c] = -np.inf if np.isnan(score) else score
    return found, wanted


def _append(table, rows, scores, wanted, out: Hits) -> None:
    for b, c in zip(*np.nonzero(wanted.numpy())):
        row = int(rows[b, c])
        key = keys.encode(scores[b, c], torch.tensor(row if table.places is None else int(table.places[row])))
        if key > out.thresholds[b]:
            out.keys[b, int(out.counts[b])] = key
            out.counts[b] += 1
