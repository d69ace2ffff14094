"""MetaIndex: what its users do with it."""

import threading
import warnings

import numpy as np
import pytest

import metaindex
from metaindex import MetaIndex, Retriever
from metaindex.errors import ClosedError, NonFiniteError, ShapeError
from tests.tolerances import score_tolerance

RNG = np.random.default_rng(5)


def documents(count=12, tokens=8, dim=6):
    return RNG.standard_normal((count, tokens, dim)).astype(np.float32)


def test_the_shortest_program():
    vectors = documents()
    index = MetaIndex()
    assert index.add(vectors).tolist() == list(range(12))
    scores, ids = index.search(vectors[7, :4], k=3, budget=8)
    assert ids[0, 0] == 7
    assert scores.dtype == np.float32
    assert ids.dtype == np.int64
    assert scores.shape == ids.shape == (1, 3)


def test_lists_iterators_and_torch_give_the_same_index():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    vectors, query = documents(), documents(1, 4)[0]
    sources = [
        vectors,
        list(vectors),
        iter([vectors[:5], list(vectors[5:])]),
        torch.from_numpy(vectors),
        [torch.from_numpy(each) for each in vectors],
    ]
    answers = []
    for source in sources:
        index = MetaIndex()
        index.add(source)
        answers.append(index.search(query, 12))
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer.ids, answers[0].ids)
        np.testing.assert_array_equal(answer.scores, answers[0].scores)


def test_torch_in_torch_out():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    index = MetaIndex(codec="bfloat16")
    index.add(torch.from_numpy(documents()).to(torch.bfloat16))
    scores, ids = index.search(torch.zeros(2, 3, 6, dtype=torch.bfloat16), 4)
    assert isinstance(scores, torch.Tensor)
    assert scores.dtype == torch.float32
    assert ids.dtype == torch.int64
    assert isinstance(index.score(torch.zeros(3, 6), [0, 1]), torch.Tensor)


def test_results_in_all_their_forms():
    vectors = documents()
    index = MetaIndex()
    index.add(vectors[:3], ids=["a", "b", "c"])
    result = index.search(vectors[:2, :4], k=4)
    assert len(result) == 2
    assert result.exact
    assert result.plan == "(4,8)"
    lists = result.to_list()
    assert [len(hits) for hits in lists] == [3, 3]
    assert lists[0][0]["id"] == "a"
    assert isinstance(lists[0][0]["score"], float)
    run = result.to_run([10, 20])
    assert set(run) == {"10", "20"}
    assert set(run["10"]) == {"a", "b", "c"}
    with pytest.raises(ValueError, match="query_ids: expected 2"):
        result.to_run(["only"])
    assert "2 queries x 4 hits, exact" in repr(result)


def test_stats_tell_rows_and_bytes():
    index = MetaIndex(codec="int8")
    index.add(documents(100, 8, 6))
    query = documents(1, 4)[0]
    (stage,) = index.search(query, 5, budget=(4, 4)).stats
    assert (stage.rows, stage.bytes, stage.scorer) == (100, 100 * 4 * (6 + 4), "cpu")
    result = index.search(query, 5, plan="(1,1)>20 (4,8)")
    assert [(stage.rows, stage.bytes) for stage in result.stats] == [(100, 1000), (20, 20 * 8 * 10)]
    assert result.plan == "(1,1)>20 (4,8)"
    assert not result.exact
    printed = index.plan(5, plan="(1,1)>20 (4,8)", query_tokens=4)
    assert [(stage.cost.rows, stage.cost.nbytes) for stage in printed.stages] == [(100, 1000), (20, 1600)]
    assert "cpu" in str(printed)
    assert index.search(query, 5, plan=printed).plan == "(1,1)>20 (4,8)"


def test_candidates_scan_level_0_first():
    index = MetaIndex()
    index.add(documents(100))
    result = index.search(documents(1, 4)[0], 5, candidates=30)
    assert result.plan == "(4,1)>30 (4,8)"
    assert not result.exact
    assert index.search(documents(1, 4)[0], 5, candidates=100).exact


def test_documents_of_different_lengths_grow_levels():
    index = MetaIndex()
    index.add([documents(1, tokens)[0] for tokens in (3, 1, 2)])
    assert index.schema.levels.edges == (1, 2, 3)
    index.add(documents(2, 9))
    assert index.schema.levels.edges == (1, 2, 3, 6, 9)
    assert [len(document.tokens) for document in index.get(range(5))] == [3, 1, 2, 9, 9]
    with pytest.raises(ShapeError, match="T <= 4"):
        MetaIndex(doc_tokens=4).add(documents(1, 5))


def test_order_of_addition_decides_ties_whatever_the_lengths():
    token = np.ones((1, 4), np.float32)
    index = MetaIndex()
    index.add([token, np.repeat(token, 5, 0), np.repeat(token, 3, 0)], ids=[30, 10, 20])
    index.add([np.repeat(token, 7, 0)], ids=[5])
    assert index.search(token, 4).ids.tolist() == [[30, 10, 20, 5]]
    index.upsert([token], ids=[30])
    assert index.search(token, 4).ids.tolist() == [[10, 20, 5, 30]]
    assert list(index) == [10, 20, 5, 30]


def test_many_small_adds_answer_like_one_large_one():
    vectors = documents(300, 5)
    bulk, small = MetaIndex(), MetaIndex()
    bulk.add(vectors)
    for each in vectors:
        small.add(each[None])
    assert len(small._store.snapshot.segments) <= 25
    query = documents(1, 4)[0]
    np.testing.assert_array_equal(bulk.search(query, 300).ids, small.search(query, 300).ids)
    np.testing.assert_array_equal(bulk.search(query, 300).scores, small.search(query, 300).scores)


def test_a_search_keeps_its_snapshot():
    index = MetaIndex()
    index.add(documents(5))
    before = index._store.snapshot
    index.remove([0, 1])
    index.add(documents(3))
    assert len(before) == 5
    assert before.rows == 5
    assert len(index) == 6


def test_ids_are_never_used_again():
    index = MetaIndex()
    index.add(documents(3))
    index.remove([2])
    assert index.add(documents(1)).tolist() == [3]
    index.add(documents(1), ids=[100])
    assert index.add(documents(1)).tolist() == [101]
    assert 2 not in index
    assert 101 in index
    assert "text" not in index
    assert None not in index


def test_get_and_metadata():
    vectors = documents(3)
    index = MetaIndex(codec="float32")
    index.add(vectors, ids=["x", "y", "z"], metadata=[{"lang": "en"}, None, {"n": [1, 2]}])
    found = index.get(["z", "x", "y"])
    assert [document.id for document in found] == ["z", "x", "y"]
    assert [document.metadata for document in found] == [{"n": [1, 2]}, {"lang": "en"}, None]
    np.testing.assert_array_equal(found[0].tokens, vectors[2])


def test_rerank_and_score():
    vectors = documents()
    index = MetaIndex(codec="float32")
    index.add(vectors)
    queries = documents(2, 4)
    scores = index.score(queries, [3, 1, 3])
    assert scores.shape == (2, 3)
    np.testing.assert_array_equal(scores[:, 0], scores[:, 2])
    result = index.rerank(queries, [3, 1, 3], 2)
    assert [set(row) for row in result.ids.tolist()] == [{1, 3}, {1, 3}]
    each = index.rerank(queries, [[1, 2], [5]], budget=(2, 2))
    assert set(each.ids[0].tolist()) == {1, 2}
    assert each.ids[1].tolist() == [5, -1]
    assert index.rerank(queries, [], 3).ids.tolist() == [[-1] * 3] * 2


def test_explain_adds_up():
    vectors = documents()
    index = MetaIndex(codec="float32")
    index.add(vectors)
    query = documents(1, 4)[0]
    explanation = index.explain(query, 5, (3, 6))
    assert len(explanation.tokens) == len(explanation.similarities) == 3
    np.testing.assert_allclose(explanation.score, index.score(query, [5], (3, 6))[0, 0], rtol=1e-5)
    np.testing.assert_allclose(explanation.similarities.sum(), explanation.score, rtol=1e-5)
    assert [reached.budget for reached in explanation.build_up] == [(3, 1), (3, 2), (3, 4), (3, 6)]
    assert explanation.build_up[-1].score == explanation.score
    assert "chose document token" in str(explanation)


def test_explain_builds_up_as_the_budgets_score():
    vectors = [*documents(5), *documents(2, 3)]
    index = MetaIndex(codec="int8")
    index.add(vectors)
    query = documents(1, 4)[0]
    for id_, edges in ((2, [1, 2, 4, 8]), (6, [1, 2, 3])):
        explanation = index.explain(query, id_)
        assert [reached.budget.r_c for reached in explanation.build_up] == edges
        for reached in explanation.build_up:
            expected = index.score(query, [id_], reached.budget)[0, 0]
            np.testing.assert_allclose(reached.score, expected, **score_tolerance(expected))
            fewer = index.score(query, [id_], (2, reached.budget.r_c))[0, 0]
            np.testing.assert_allclose(reached.similarities[:2].sum(), fewer, **score_tolerance(fewer))
            tokens = index.get([id_])[0].tokens[: reached.budget.r_c]
            alone = index.explain(query, id_, reached.budget)
            np.testing.assert_array_equal(reached.tokens, alone.tokens)
            assert reached.tokens.max() < len(tokens)
        assert f"{explanation.score:.4f}" in str(explanation).splitlines()[-1]


def test_an_explanation_of_many_levels_fits_a_line():
    index = MetaIndex(levels=range(1, 31))
    index.add(documents(2, 30))
    lines = str(index.explain(documents(1, 4)[0], 1)).splitlines()
    assert "(4,1)" in lines[2]
    assert lines[2].endswith("(4,30)")
    assert max(map(len, lines)) < 140


def test_normalize():
    vectors = documents() * 7
    index = MetaIndex(normalize=True, codec="float32")
    index.add(vectors)
    np.testing.assert_allclose(np.linalg.norm(index.get([0])[0].tokens, axis=1), 1, rtol=1e-6)
    assert index.score(vectors[0, :1] * 3, [0])[0, 0] == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda index: index.search(np.ones((2, 6)), budget=1),
        lambda index: index.score(np.ones((2, 6)), [1], budget=1),
        lambda index: index.explain(np.ones((2, 6)), 1, budget=1),
        lambda index: index.why_not(np.ones((2, 6)), 1, budget=1),
        lambda index: index.plan(budget=(1, 1)),
        lambda index: Retriever(lambda texts: [np.ones((2, 6)) for _ in texts], index).search("a text", budget=1),
    ],
)
def test_the_warning_points_at_who_called(call):
    index = MetaIndex(nested=False)
    index.add(documents())
    with pytest.warns(UserWarning, match="not nested") as told:
        call(index)
    assert [warning.filename for warning in told] == [__file__]


def test_truncating_what_is_not_nested_warns_once():
    index = MetaIndex(nested=False)
    index.add(documents())
    query = documents(1, 4)[0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        index.search(query)
        assert not caught
        index.search(query, budget=2)
        index.search(query, budget=2)
    assert len(caught) == 1
    assert "metaindex.nest" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_estimate_is_what_memory_says():
    estimate = MetaIndex.estimate(50, 8, 6, "int8")
    assert estimate.vectors == 50 * 8 * 10
    index = MetaIndex(codec="int8")
    index.add(documents(50))
    assert sum(level["ram"] for level in index.memory()["levels"]) == estimate.vectors
    assert "total" in str(estimate)


def test_save_and_open(tmp_path):
    vectors, query = documents(), documents(1, 4)[0]
    index = MetaIndex()
    index.add(vectors, metadata=[{"n": n} for n in range(12)])
    index.remove([3])
    index.save(tmp_path / "saved")
    with pytest.raises(FileExistsError):
        index.save(tmp_path / "saved")
    with MetaIndex.open(tmp_path / "saved") as opened:
        np.testing.assert_array_equal(opened.search(query, 12).scores, index.search(query, 12).scores)
        np.testing.assert_array_equal(opened.search(query, 12).ids, index.search(query, 12).ids)
        assert opened.get([7])[0].metadata == {"n": 7}
        assert 3 not in opened
    with MetaIndex.open(tmp_path / "saved", "r+") as writable:
        assert writable.add(vectors[:1]).tolist() == [12]
    assert len(MetaIndex.open(tmp_path / "saved")) == 12


def test_a_path_is_durable_without_save(tmp_path):
    with MetaIndex(path=tmp_path / "index", codec="int8") as index:
        index.add(documents(4))
        index.add(documents(2), metadata=[{"a": 1}, None])
    with pytest.raises(FileExistsError):
        MetaIndex(path=tmp_path / "index")
    assert len(MetaIndex.open(tmp_path / "index")) == 6


def test_use_after_close():
    index = MetaIndex()
    index.add(documents(2))
    index.close()
    index.close()
    assert repr(index) == "MetaIndex(closed)"
    for call in (lambda: index.add(documents(1)), lambda: index.search(documents(1, 4)[0]), lambda: len(index)):
        with pytest.raises(ClosedError):
            call()


def test_repr_tells_the_state():
    index = MetaIndex(codec="int8")
    assert "0 documents" in repr(index)
    index.add(documents())
    assert "12 documents, levels 1|2|4|8, d = 6, int8" in repr(index)
    assert "in memory" in repr(index)


def test_searches_beside_a_writer_see_whole_commits():
    index = MetaIndex()
    index.add(documents(4))
    query = documents(1, 4)[0]
    wrong: list[int] = []
    stop = threading.Event()

    def search():
        while not stop.is_set():
            found = int((index.search(query, 200).ids >= 0).sum())
            if found % 4:
                wrong.append(found)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        index.add(documents(4))
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(index) == 124


def test_what_can_be_made_can_be_opened_again(tmp_path):
    for number, arguments in enumerate([{"levels": range(1, 100)}, {"nested": 1}, {"nested": np.True_}, {"dim": 1 << 17}]):
        index = MetaIndex(**arguments)
        index.save(tmp_path / str(number))
        assert MetaIndex.open(tmp_path / str(number)).schema == index.schema
    for arguments in [{"levels": range(1, 101)}, {"dim": (1 << 17) + 1}, {"doc_tokens": 1 << 33}, {"num_threads": 1 << 40}]:
        with pytest.raises(ValueError, match=next(iter(arguments))):
            MetaIndex(path=tmp_path / "new", **arguments)
        assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="path"):
        MetaIndex(path="")


def test_levels_do_not_grow_past_what_can_be_stored():
    index = MetaIndex(levels=range(1, 100))
    with pytest.raises(ValueError, match="levels: expected at most 99 edges"):
        index.add(documents(1, 300))
    assert len(index) == 0


def test_the_largest_numbers_accepted_do_not_overflow():
    index = MetaIndex(codec="float32")
    index.add(np.array([[[1e15, -1e15]], [[1e15, 1e15]], [[1, 0]]], np.float32))
    result = index.search(np.full((16, 2), 1e15, np.float32), 3)
    assert np.isfinite(result.scores).all()
    assert result.ids.tolist() == [[1, 2, 0]]


def test_a_plan_of_a_search_to_come():
    index = MetaIndex(codec="int8")
    index.add(documents(20))
    assert str(index.plan(5, (4, 8)).stages[0].step) == "(4,8)>5"
    assert index.plan(5, plan="(1,1)>10 (3,8)").stages[1].step.budget == (3, 8)
    with pytest.raises(ValueError, match="query_tokens"):
        index.plan(5)
    index.add([documents(1, 1)[0] for _ in range(180)])
    planned = index.plan(5, plan="(1,1)>10 (4,8)").stages[1].cost
    assert planned.rows == 10
    assert planned.nbytes < 10 * 8 * 10


def test_stats_of_a_filtered_scan_count_what_was_compared():
    index = MetaIndex(codec="int8")
    index.add(documents(50))
    mask = np.arange(50) < 10
    (stage,) = index.search(documents(1, 4)[0], 5, filter=mask).stats
    assert (stage.rows, stage.bytes) == (10, 10 * 8 * 10)


def test_a_stage_that_ranks_like_the_next_one_does_not_run():
    index = MetaIndex()
    index.add(documents(100))
    result = index.search(documents(1, 4)[0], 5, budget=(4, 1), candidates=20)
    assert result.exact
    assert result.plan == "(4,1)"


def test_results_go_back_in():
    index = MetaIndex()
    index.add(documents(3), ids=["a", "b", "c"])
    queries = documents(2, 4)
    found = index.search(queries, 5)
    again = index.rerank(queries, found.ids)
    assert again.ids.tolist() == found.ids.tolist()
    scores = index.score(queries, found.ids)
    np.testing.assert_array_equal(scores, found.scores)
    numbers = MetaIndex()
    numbers.add(documents(3))
    padded = numbers.search(queries, 5)
    np.testing.assert_array_equal(numbers.score(queries, padded.ids), padded.scores)


def test_normalize_takes_what_the_codec_alone_would_not():
    index = MetaIndex(normalize=True, codec="float16")
    index.add(documents() * 1e6)
    np.testing.assert_allclose(np.linalg.norm(index.get([0])[0].tokens, axis=1), 1, rtol=1e-3)


def test_torch_views_and_scalars():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    index = MetaIndex()
    vectors = torch.from_numpy(documents()).requires_grad_()
    index.add(vectors)
    query = torch.complex(torch.zeros(4, 6), vectors.detach()[5, :4]).conj().imag
    result = index.search(-query.neg().neg(), 3)
    assert index.explain(vectors[5, :4], result.ids[0, 0]).score != 0
    assert result.ids[0, 0] in index
    assert len(index.get(list(result.ids[0]))) == 3
    with pytest.raises(TypeError, match="queries: expected a dense torch tensor"):
        index.search(torch.zeros(4, 6).to_sparse())


def test_a_search_under_way_survives_close(monkeypatch):
    from metaindex.execution import executor

    index = MetaIndex()
    index.add(documents())
    run = executor.run

    def closing(*arguments):
        index.close()
        return run(*arguments)

    monkeypatch.setattr(executor, "run", closing)
    assert index.search(documents(1, 4)[0], 3).ids.shape == (1, 3)
    with pytest.raises(ClosedError):
        assert 1 in index


def test_public_names():
    assert metaindex.__version__
    assert all(hasattr(metaindex, name) for name in metaindex.__all__)


@pytest.mark.parametrize("codec", ["float32", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("ragged", [False, True], ids=["batch", "list"])
def test_float16_documents_are_kept_as_their_float32_values_are(codec: str, ragged: bool) -> None:
    numbers = np.random.default_rng(4).integers(0, 0x7C00, (5, 6, 8)).astype(np.uint16)
    numbers[0, 0, :4] = [0, 1, 0x3FF, 0x7BFF]  # zero, the least and the largest subnormal, the largest number
    narrow = (numbers | (np.arange(8, dtype=np.uint16) % 2 << 15)).view(np.float16)  # every second one negative
    given = [narrow, narrow.astype(np.float32), np.asfortranarray(narrow), narrow.astype(">f2")]
    kept = []
    for vectors in given:
        index = MetaIndex(codec=codec, levels=(1, 4, 8))
        index.add([tokens[: 2 + n] for n, tokens in enumerate(vectors)] if ragged else vectors)
        kept.append([document.tokens for document in index.get(range(5))])
        index.search(vectors[:1])
    for other in kept[1:]:
        for ours, theirs in zip(kept[0], other):
            np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))


@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7C01, 0x7FFF, 0xFC01, 0xFFFF])
def test_float16_infinity_and_nan_of_any_bits_are_refused(bits: int) -> None:
    vectors = np.ones((3, 2, 4), np.float16)
    vectors.view(np.uint16)[1, 1, 2] = bits
    index = MetaIndex()
    with pytest.raises(NonFiniteError, match=r"\(1, 1, 2\)"):
        index.add(vectors)
    assert len(index) == 0
