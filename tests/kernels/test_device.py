"""What GPU scorers share, on plain operations: tables, blocks, thresholds, keys, placement. No GPU, no kernel."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
import weakref

import numpy as np
import pytest
import torch

from metaindex.codecs import CODECS, codec
from metaindex.device import keys, pinned
from metaindex.device.devices import resolved
from metaindex.device.encode import encode
from metaindex.device.residency import Residency, checked_placement
from metaindex.device.table import tile_runs
from metaindex.errors import BackendError, CapacityError
from metaindex.scoring import device
from metaindex.scoring.device import DeviceScorer, to_device
from metaindex.scoring.reference import ReferenceScorer
from tests import builders
from tests.kernels import hollow
from tests.kernels.big import Big, encoded
from tests.kernels.plain import PlainOperations
from tests.tolerances import score_tolerance


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def plain(**placement):
    return DeviceScorer(PlainOperations(), Residency("cpu", **placement))


def assert_same(scorer, request):
    expected, expected_rows = run(ReferenceScorer(), request)
    scores, rows = run(scorer, request)
    np.testing.assert_allclose(scores, expected, **score_tolerance(expected[np.isfinite(expected)]))
    if request.k is not None:
        assert (rows == expected_rows).all()


def run(scorer, request):
    scores = np.full(request.output_shape, np.nan, np.float32)
    rows = np.full(request.output_shape, -77, np.int64)
    scorer.score(request, scores, None if request.k is None else rows)
    return scores, rows


@pytest.mark.parametrize("kind", CODECS)
def test_requests_of_every_kind(rng, kind):
    docs = builders.documents(rng, rng.integers(1, 12, 40), 9)
    stored = builders.snapshot(docs, kind, segments=3, sequence=rng.permutation(40))
    asked = builders.queries(builders.documents(rng, [5, 0, 3], 9), kind)
    candidates, allow = rng.integers(-1, 40, (3, 30)), rng.random(40) < 0.7
    scorer = plain()
    for which, mask, k, budget in itertools.product(
        (None, candidates, candidates[:1]), (None, allow), (None, 1, 7, 60), (None, (2, 3))
    ):
        assert_same(scorer, builders.request(asked, stored, kind, budget, candidates=which, allow=mask, k=k))


@pytest.mark.parametrize("room", [1, 3, 8])
def test_blocks_and_thresholds_change_nothing(rng, monkeypatch, room):
    monkeypatch.setattr(device, "_FIRST_ROWS", 2)
    stored = builders.snapshot(builders.documents(rng, rng.integers(1, 5, 40), 4), "float32", segments=2)
    asked = builders.queries(builders.documents(rng, [2, 3], 4), "float32")
    for k in (1, 4, 50):
        monkeypatch.setattr(device, "_HIT_BYTES", 8 * 2 * (room + k))
        assert_same(plain(), builders.request(asked, stored, "float32", k=k))
        assert_same(plain(), builders.request(asked, stored, "float32", k=k, candidates=np.arange(40)[None]))


def test_spans_cover_every_row_once():
    for total, room, first in itertools.product((0, 1, 7, 100), (1, 6, 200), (1, 5, 40)):
        found = list(device.spans(total, room, first))
        assert [row for start, stop in found for row in range(start, stop)] == list(range(total))
        assert all(0 < stop - start <= room for start, stop in found)


def test_spans_repeat_from_k_to_k():
    assert [device.rounded(number) for number in (0, 1, 7, 8, 9, 15, 16, 1023, 1024)] == [0, 1, 7, 8, 8, 14, 16, 896, 1024]

    class Recorded(PlainOperations):
        def maxsim_scan(self, table, queries, r_c, span, allow, out):
            asked.add(span)

    asked: set[tuple[int, int]] = set()
    table = hollow.table("float16", 8, 4, 3_000_000)
    for k in (1, 10, 100, 1000):
        device.Step(Recorded(), table, hollow.queries("float16", 64, 2, 8), 4).best(k)
    assert len(asked) < 40


def test_keys_order_like_results(rng):
    scores = torch.tensor([*rng.standard_normal(50), 0.0, -0.0, -np.inf, 3e38, -3e38, 1e-40, -1e-40], dtype=torch.float32)
    found, places = keys.decode(keys.encode(scores, torch.arange(len(scores))))
    assert (found == scores).all()
    assert places.tolist() == list(range(len(scores)))
    order = keys.encode(scores[:50], torch.arange(50)).sort(descending=True).indices
    assert order.tolist() == np.lexsort((np.arange(50), -scores[:50].numpy())).tolist()
    tied = keys.encode(torch.ones(4), torch.tensor([3, 1, keys.LAST_PLACE, 0])).sort(descending=True).indices
    assert tied.tolist() == [3, 1, 0, 2]
    assert (keys.encode(torch.tensor([torch.nan, -torch.inf]), torch.zeros(2)) > keys.MISSING).all()
    assert keys.decode(torch.tensor([keys.MISSING]))[0].item() == -torch.inf


def test_negative_zero_ties_with_zero():
    both = keys.encode(torch.tensor([-0.0, 0.0]), torch.tensor([0, 1]))
    assert both[0] > both[1]


@pytest.mark.parametrize("kind", CODECS)
def test_codes_are_those_of_the_host(rng, kind):
    """Bit for bit, with tokens of all magnitudes, zeros, halves between codes, and scales that underflow."""
    tokens = rng.standard_normal((5, 40, 17)).astype(np.float32)
    tokens *= np.float32(2) ** rng.integers(-24, 14, (5, 40, 1)).astype(np.float32)
    tokens[0, 0], tokens[1, 1], tokens[2, 2, 3:] = 0, 1e-45, 0
    tokens[3, 3] = np.arange(17) + 0.5
    tokens[3, 3, 0] = 127
    expected = codec(kind).encode(tokens)
    codes = torch.full(tokens.shape, 7).to(getattr(torch, kind))
    scales = torch.full((5, 40), torch.nan) if codec(kind).scaled else None
    encode(kind, torch.from_numpy(tokens), codes, scales)
    assert torch.equal(codes.view(torch.uint8), to_device(expected.codes, "cpu", kind).view(torch.uint8))
    if scales is not None:
        np.testing.assert_array_equal(scales.numpy(), expected.scales)


def test_tiles_stay_within_a_segment():
    assert tile_runs([5, 0, 3], 2, (0, 8)).tolist() == [[0, 0, 2], [0, 2, 2], [0, 4, 1], [2, 0, 2], [2, 2, 1]]
    assert tile_runs([5, 0, 3], 2, (3, 6)).tolist() == [[0, 3, 2], [2, 0, 1]]
    assert tile_runs([], 2, (0, 0)).shape == (0, 3)


def test_placement_follows_the_limit(rng):
    stored = builders.snapshot([np.ones((4, 8), np.float32)] * 10, "float32")  # levels of 1, 1 and 2 tokens
    asked = builders.queries(builders.documents(rng, [2], 8), "float32")
    each = 10 * 8 * 4
    for limit, on_device in (
        (0, {}),
        (each, {0: each}),
        (3 * each, {0: each, 1: each}),
        (4 * each, {0: each, 1: each, 2: 2 * each}),
    ):
        scorer = plain(limit=limit)
        assert_same(scorer, builders.request(asked, stored, "float32", k=3))
        assert scorer.residency.memory()["device"] == on_device
    with pytest.raises(CapacityError, match="device_memory_limit"):
        run(plain(limit=each, placement="device"), builders.request(asked, stored, "float32"))
    with pytest.raises(CapacityError, match="tokens 1 on"):
        run(plain(limit=each, placement=2), builders.request(asked, stored, "float32"))
    scorer = plain(placement=1)
    assert_same(scorer, builders.request(asked, stored, "float32"))
    assert scorer.residency.memory() == {"device": {0: each}, "pinned": {1: each, 2: 2 * each}}
    assert not scorer.residency.table(stored, codec("float32"), 8, 4).resident


@pytest.mark.parametrize("kind", CODECS)
def test_levels_that_are_on_the_device_already(rng, kind):
    stored = builders.snapshot(builders.documents(rng, [4, 3, 1, 4], 8), kind)
    asked = builders.queries(builders.documents(rng, [2], 8), kind)
    ghost = builders.snapshot(builders.documents(rng, [4, 3, 1, 4], 8), kind)  # the same shape, other numbers
    scorer = plain(limit=0)
    tensors = {}
    for level, there in zip(ghost.segments[0].levels, stored.segments[0].levels):
        codes, scales = (None if part is None else torch.from_numpy(part.copy()) for part in there.parts)
        scorer.residency.adopt(level, codes, scales)
        tensors[level.start] = codes.nbytes + (0 if scales is None else scales.nbytes)
    found, _ = run(scorer, builders.request(asked, ghost, kind))
    expected, _ = run(ReferenceScorer(), builders.request(asked, stored, kind))
    np.testing.assert_allclose(found, expected, **score_tolerance(expected))
    assert scorer.residency.memory() == {"device": tensors, "pinned": {}}


@pytest.mark.parametrize("kind", CODECS)
def test_documents_that_are_made_on_the_device(kind):
    """What tests/gpu/test_big.py does with larger ones."""
    queries = torch.randn((2, 3, 8), generator=torch.Generator().manual_seed(4))
    big = Big.random(kind, 50, 4, 8, torch.device("cpu"), {49: 2 * queries[0], 7: 2 * queries[1]})
    asked = encoded(kind, queries)
    for r_c in (4, 3):
        step = device.Step(PlainOperations(), big.table(r_c), asked, r_c)
        expected = torch.cat([scores for _, scores in big.expected(asked, r_c)], dim=1).numpy()
        np.testing.assert_allclose(step.all_scores().numpy(), expected, **score_tolerance(expected))
        assert step.best(5)[1][:, 0].tolist() == [49, 7]


def test_shallow_levels_push_deep_ones_out(rng):
    first = builders.snapshot([np.ones((4, 8), np.float32)] * 10, "float32")
    second = builders.snapshot([np.ones((4, 8), np.float32)] * 10, "float32")
    asked = builders.queries(builders.documents(rng, [2], 8), "float32")
    scorer = plain(limit=4 * 10 * 8 * 4)
    assert_same(scorer, builders.request(asked, first, "float32"))
    assert_same(scorer, builders.request(asked, second, "float32", (2, 1)))
    assert scorer.residency.memory()["device"] == {0: 640, 1: 320}
    assert_same(scorer, builders.request(asked, first, "float32"))
    del first
    assert_same(scorer, builders.request(asked, second, "float32"))


def test_devices_without_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert resolved("auto") == resolved("cpu") == resolved(torch.device("cpu")) == "cpu"
    for name in ("cuda", "cuda:0", "cuda:3"):
        with pytest.raises(BackendError, match="no NVIDIA driver"):
            resolved(name)
    for wrong in ("gpu", "cuda:x", ""):
        with pytest.raises(ValueError, match="device: expected"):
            resolved(wrong)
    with pytest.raises(TypeError, match="device: expected"):
        resolved(3)


def test_placement_is_checked():
    assert [checked_placement(one) for one in ("auto", "device", "host", 8)] == ["auto", "device", "host", 8]
    with pytest.raises(ValueError, match="placement"):
        checked_placement("gpu")
    with pytest.raises(ValueError, match="placement"):
        checked_placement(-1)


class Queued(Residency):
    """Work on it is done when its event's ``done`` says so, or when somebody waits."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.events = []

    def _event(self):
        self.events.append(Event())
        return self.events[-1]


class Event:
    done = waited = False

    def query(self):
        return self.done

    def synchronize(self):
        self.done = self.waited = True


def test_what_a_search_reads_is_held_until_it_is_done(rng):
    """Though its snapshot is gone; then the next search lets go of it."""
    residency = Queued()
    scorer = DeviceScorer(PlainOperations(), residency)
    asked = builders.queries(builders.documents(rng, [2], 4), "float16")

    def search():
        stored = builders.snapshot(builders.documents(rng, [3, 3], 4), "float16")
        run(scorer, builders.request(asked, stored, "float16"))
        return weakref.ref(residency.table(stored, codec("float16"), 4, 3))

    first, second = search(), search()
    gc.collect()
    assert first() is not None
    residency.events[0].done = True
    search()
    gc.collect()
    assert first() is None
    assert second() is not None
    assert not any(event.waited for event in residency.events)


def test_a_level_leaves_when_nobody_reads_it(rng):
    """A shallow level that needs the room of deeper ones waits for the search that reads them."""
    docs = builders.documents(rng, [4] * 8, 16)
    deep, other = (builders.snapshot(docs, "float16", edges=(1, 4)) for _ in range(2))
    residency = Queued(limit=deep.segments[0].levels[1].nbytes + deep.segments[0].levels[0].nbytes)
    scorer = DeviceScorer(PlainOperations(), residency)
    asked = builders.queries(builders.documents(rng, [2], 16), "float16")
    run(scorer, builders.request(asked, deep, "float16"))
    assert not residency.events[0].waited
    run(scorer, builders.request(asked, other, "float16", budget=(2, 1)))
    assert residency.events[0].waited


def test_a_level_waits_for_searches_that_hold_its_room(rng):
    """Of documents that are gone: it neither stays in pinned memory nor is it an error."""
    residency = Queued(limit=640, placement="device")
    scorer = DeviceScorer(PlainOperations(), residency)
    asked = builders.queries(builders.documents(rng, [2], 8), "float32")
    for number in range(3):
        stored = builders.snapshot([np.ones((2, 8), np.float32)] * 10, "float32")  # levels of 1 and 1 tokens, 640 bytes
        assert_same(scorer, builders.request(asked, stored, "float32"))
        assert residency.memory()["device"] == {0: 320, 1: 320}
        assert [event.waited for event in residency.events] == [True] * number + [False]
        del stored
        gc.collect()


def test_levels_that_others_hold_are_counted(rng):
    """As captured searches do: they are not in the index any more, but where they lie is no room."""
    first, second = (builders.snapshot([np.ones((1, 8), np.float32)] * 10, "float32") for _ in range(2))
    residency = Residency("cpu", limit=320)
    held = residency.table(first, codec("float32"), 8, 1)
    del first
    gc.collect()
    assert not residency.table(second, codec("float32"), 8, 1).resident
    assert residency.memory() == {"device": {0: 320}, "pinned": {0: 320}}
    del held
    residency.forget()
    assert residency.table(second, codec("float32"), 8, 1).resident
    assert residency.memory() == {"device": {0: 320}, "pinned": {}}


def test_levels_move_back_where_there_is_room_again(rng, monkeypatch):
    stored = builders.snapshot([np.ones((2, 8), np.float32)] * 10, "float32")
    residency = Residency("cpu", limit=320)
    first = residency.table(stored, codec("float32"), 8, 2)
    assert not first.resident
    residency.limit = 640
    assert residency.table(stored, codec("float32"), 8, 2) is first  # nobody has looked yet
    monkeypatch.setattr("metaindex.device.residency._LOOK_SECONDS", 0.0)
    residency._look = 0.0
    assert residency.table(stored, codec("float32"), 8, 2).resident
    again = residency.table(stored, codec("float32"), 8, 2)
    assert again is residency.table(stored, codec("float32"), 8, 2)


def test_what_runs_is_held_though_the_index_is_gone(rng):
    stored = builders.snapshot(builders.documents(rng, [3, 3], 4), "float16")
    residency = Queued()
    asked = builders.queries(builders.documents(rng, [2], 4), "float16")
    run(DeviceScorer(PlainOperations(), residency), builders.request(asked, stored, "float16"))
    (event,) = residency.events
    assert not event.waited
    del residency
    gc.collect()
    assert event.waited


class Runtime:
    """Stands in for torch.cuda.cudart()."""

    def __init__(self, code: int) -> None:
        self.code, self.calls = code, []

    def cudaHostRegister(self, address, nbytes, flags):  # noqa: N802
        self.calls.append((address, nbytes, flags))
        return self.code

    def cudaHostUnregister(self, address):  # noqa: N802
        self.calls.append(address)
        return 0


def failing_once_more(*_, **__):
    raise RuntimeError("CUDA error: out of memory")


@pytest.mark.parametrize("code", [0, 2])
def test_pinned_memory_is_registered_as_long_as_it_is_used(monkeypatch, code):
    runtime = Runtime(code)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch, "ones", failing_once_more)
    made = pinned._registered(10_000, torch.device("cuda:0"))
    ((address, nbytes, flags),) = runtime.calls
    assert (nbytes, flags, address % 4096) == (10_000, 3, 0)
    assert (made is None) == (code != 0)
    if made is not None:
        assert (made.data_ptr(), made.shape) == (address, (10_000,))
        view = made.view(torch.float32)[5:]
        del made
        view.fill_(1.5)
        assert len(runtime.calls) == 1
        del view
    assert runtime.calls[1:] == ([] if code else [address])


def test_the_mask_of_what_stands_is_uploaded_once(rng, monkeypatch):
    stored = dataclasses.replace(builders.snapshot(builders.documents(rng, [3] * 9, 4), "float16"), removed=np.array([2, 5]))
    asked = builders.queries(builders.documents(rng, [2], 4), "float16")
    scorer, masks = plain(), []
    monkeypatch.setattr(device, "to_device", lambda array, *rest: masks.append(rest[1]) or to_device(array, *rest))
    for k, budget in ((3, None), (9, (2, 1)), (None, None)):
        assert_same(scorer, builders.request(asked, stored, "float16", budget, allow=stored.alive, k=k))
    assert "bool" not in masks
    assert_same(scorer, builders.request(asked, stored, "float16", allow=np.arange(9) % 2 == 0, k=4))
    assert "bool" in masks
