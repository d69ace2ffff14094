"""Two processes are one process with the batches of both."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason="transformers is not installed")
import torch
from torch import distributed

from metaindex.training import MMRLoss, TrainingOptions, train
from metaindex.training.processes import average_gradients, averaged
from tests import tolerances
from tests.training.tiny import R, T, examples, gradients, model, weights

GROUPS = ((1, 1), (2, 3), (4, 6))


def linear():
    torch.manual_seed(0)
    return torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 8)  # nobody uses the second one's gradient everywhere


def batch():
    drawn = np.random.default_rng(0)
    shapes = [(8, 4, 8), (8, 6, 8), (8, 2, 6, 8)]
    vectors = [torch.from_numpy(drawn.standard_normal(shape)).float() for shape in shapes]
    vectors[1][5] = vectors[1][2]  # one document in the batches of both processes
    ids, negative_ids = torch.tensor([0, 1, 2, 3, 4, 2, 6, 7]), torch.arange(100, 116).reshape(8, 2)
    negative_ids[0, 1] = 0
    query_ids = torch.tensor([0, 1, 2, 3, 4, 5, 1, 7])  # and one query
    present = torch.from_numpy(drawn.random((8, 2)) < 0.7)
    present[1, 0], negative_ids[1, 0] = True, 6  # right for it in the other process
    return [*vectors, present, ids, negative_ids, query_ids]


def losses_and_gradients(rows: slice, lone: bool):
    used, seldom = linear()
    queries, documents, negatives, present, ids, negative_ids, query_ids = (each[rows] for each in batch())

    def unit(vectors):
        return torch.nn.functional.normalize(used(vectors), dim=-1)

    about = {"present": present, "ids": ids, "negative_ids": negative_ids, "query_ids": query_ids}
    losses = MMRLoss(GROUPS).by_group(unit(queries), unit(documents), unit(negatives), **about)
    total = losses.sum()
    if lone:
        total = total + seldom.weight.sum()
    total.backward()
    parameters = [*used.parameters(), *seldom.parameters()]
    average_gradients(parameters)
    return averaged(losses), [each.grad for each in parameters]


def trained(size: int):
    options = TrainingOptions(epochs=2, batch_size=size, chunk_size=3, cache_gradients=True, learning_rate=1e-2, by_length=True)
    made = model()
    log = train(made, examples(16, hard=1), options, loss=MMRLoss(((1, 1), (R, T))), evaluation=examples(9, seed=9))
    found = {group: values["loss"] for line in log for group, values in line.get("evaluation", {}).items()}
    return weights(made), [line for line in log if "loss" in line][-1]["losses"], found


def work(rank: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    losses, found = losses_and_gradients(slice(4 * rank, 4 * rank + 4), lone=rank == 0)
    torch.save((losses, found, *trained(4)), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_losses_and_gradients(two):
    expected, (used, seldom, unused) = losses_and_gradients(slice(None), lone=False)
    assert seldom is None
    assert unused is None
    for losses, found, *_ in two:
        np.testing.assert_allclose(losses.detach(), expected.detach(), **tolerances.MMR_LOSS)
        np.testing.assert_allclose(found[0], used, rtol=tolerances.MMR_GRADIENT, atol=tolerances.MMR_GRADIENT)
        np.testing.assert_array_equal(found[1], np.full((8, 8), 0.5, np.float32))  # of one process, so half of it
        assert found[2] is None


def test_training(two):
    expected, logged, evaluated = trained(8)
    (_, _, first, *logs), (_, _, second, _, nothing) = two
    for name, values in expected.items():
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        if not name.endswith("key.bias"):  # softmax does not see it, so all its gradient is rounding
            np.testing.assert_allclose(first[name], values, atol=tolerances.TRAINED_WEIGHT, err_msg=name)
    for found, known in zip(logs, (logged, evaluated)):
        assert found.keys() == known.keys()
        np.testing.assert_allclose(list(found.values()), list(known.values()), rtol=tolerances.TRAINED_LOSS)
    assert nothing == {}  # the first process evaluates for all


def test_one_process_gathers_nothing():
    made = model()
    assert gradients(made) == {}
    assert averaged(torch.ones(3)).tolist() == [1, 1, 1]
