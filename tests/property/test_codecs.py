"""Codecs by token edge and early copies, for any data: what is exact stays exact, budgets are truncated copies."""

from __future__ import annotations

import tempfile

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from metaindex import MetaIndex
from tests.property.test_search import cases
from tests.tolerances import score_tolerance

# The last edge lies beyond the documents, so these are also what an open number of tokens does.
KEPT = st.sampled_from([{2: "int8", None: "float16"}, {1: "float32", 4: "int8", 8: "bfloat16"}, {64: "float16", None: "int8"}])
MAIN = st.sampled_from(["float32", "float16", "bfloat16", {4: "float16", None: "float32"}])


def built(documents, **arguments):
    index = MetaIndex(**arguments)
    half = len(documents) // 2
    index.add(documents[:half])
    index.add(documents[half:])
    return index


@settings(max_examples=30, deadline=None)
@given(case=cases(), kept=KEPT, data=st.data())
def test_a_budget_scores_the_truncated_copy(case, kept, data):
    documents, queries = case
    sides = max(map(len, queries)), max(map(len, documents))
    r_q, r_c = data.draw(st.tuples(st.integers(1, sides[0]), st.integers(1, sides[1])))
    whole = built(documents, codec=kept)
    cut = built([document[:r_c] for document in documents], codec=kept)
    for scorer in ("cpu", "reference"):
        found = whole.score(queries, range(len(documents)), (r_q, r_c), scorer=scorer)
        expected = cut.score([query[:r_q] for query in queries], range(len(documents)), scorer="reference")
        np.testing.assert_allclose(found, expected, **score_tolerance(expected))


@settings(max_examples=30, deadline=None)
@given(case=cases(), kept=KEPT, k=st.integers(1, 12))
def test_searches_of_several_codecs_answer_like_the_reference(case, kept, k):
    documents, queries = case
    index = built(documents, codec=kept)
    found, expected = index.search(queries, k), index.search(queries, k, scorer="reference")
    assert found.exact
    present = np.isfinite(expected.scores)
    np.testing.assert_array_equal(np.isfinite(found.scores), present)
    np.testing.assert_allclose(found.scores, expected.scores, **score_tolerance(expected.scores[present]))
    explained = index.explain(queries[0], found.ids[0, 0])
    np.testing.assert_allclose(explained.score, found.scores[0, 0], **score_tolerance(expected.scores[present]))


@settings(max_examples=30, deadline=None)
@given(case=cases(), codec=MAIN, data=st.data())
def test_an_early_copy_changes_no_exact_answer(case, codec, data):
    documents, queries = case
    count, k = len(documents), data.draw(st.integers(1, 5))
    plain, early = built(documents, codec=codec), built(documents, codec=codec, early="int8")
    expected = plain.search(queries, k)
    for search in ({}, {"plan": f"(1,1):int8>{count + 6} (*,*):int8>{count + 5} (*,*)"}):
        found = early.search(queries, k, **search)
        assert found.exact
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_array_equal(found.scores, expected.scores)
    for id_, document in enumerate(plain.get(range(count))):
        np.testing.assert_array_equal(early.get([id_])[0].tokens, document.tokens)


@settings(max_examples=30, deadline=None)
@given(case=cases(), codec=MAIN, data=st.data())
def test_an_early_stage_keeps_what_an_index_of_that_codec_finds(case, codec, data):
    documents, queries = case
    removed = data.draw(st.lists(st.integers(0, len(documents) - 1), max_size=2, unique=True))
    stays = len(documents) - len(removed)
    if stays < 2:
        return
    keep, on_disk = data.draw(st.integers(1, stays - 1)), data.draw(st.booleans())
    r_c = data.draw(st.integers(1, max(map(len, documents))))
    with tempfile.TemporaryDirectory() as folder:
        early = built(documents, codec=codec, early="int8", path=f"{folder}/index" if on_disk else None)
        small = built(documents, codec="int8")
        for index in (early, small):
            index.remove(removed)
        if data.draw(st.booleans()):
            early.compact()
        kept = small.search(queries, keep, budget=(1, r_c))
        for limit in (None, 1 << 20) if on_disk else (None,):
            index = MetaIndex.open(f"{folder}/index", memory_limit=limit) if on_disk else early
            plan = f"(1,{r_c}):int8>{keep} (*,*)"
            found = index.search(queries, keep, plan=plan)
            assert not found.exact
            assert sorted(map(tuple, np.sort(found.ids).tolist())) == sorted(map(tuple, np.sort(kept.ids).tolist()))
            expected = index.rerank(queries, kept.ids.tolist())
            np.testing.assert_array_equal(found.ids, expected.ids)
            np.testing.assert_array_equal(found.scores, expected.scores)
            assert found.stats[0].stage == f"(1,{r_c}):int8>{keep}"
            lost = index.why_not(queries[0], kept.ids[0, -1], plan, keep)
            assert lost.verdict == "found"
