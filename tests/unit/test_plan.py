"""Plans: parsed, printed, refused."""

import numpy as np
import pytest

from metaindex.errors import PlanError
from metaindex.planning.plan import Coarse, Exact, Plan, Stage, Step
from metaindex.types import Budget


@pytest.mark.parametrize(
    "text",
    [
        "(16,64)",
        "(*,*)",
        "(1,1)>4000 (4,8)>400 (16,64)",
        "coarse>1000 (*,8)>400 (*,*)",
        "coarse(nprobe=16,efSearch=64)>4000 (16,*)",
        "(1,1):int8>4000 (4,8):int8>400 (4,8)>40 (*,*)",
        "coarse>1000 (*,*):float16>400 (*,*)",
    ],
)
def test_a_plan_prints_as_it_parses(text):
    plan = Plan.parse(text)
    assert str(plan) == text
    assert Plan.parse(str(plan)) == plan
    assert eval(repr(plan), {"Plan": Plan}) == plan


def test_white_space_does_not_matter():
    assert Plan.parse("  ( 1 , 1 ) > 40   (2,*) ") == Plan([Stage(Exact(1, 1), 40), Stage(Exact(2, None))])


def test_coarse_parameters_are_read():
    assert Plan.parse("coarse( nprobe = 16 )>9 (1,1)").stages[0].source == Coarse((("nprobe", 16),))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "at least one stage"),
        ("   ", "at least one stage"),
        ("(1,1)>10", "the last keeps"),
        ("(1,1) (2,2)", "needs >keep"),
        ("(1,1)>5 (2,2)>6 (3,3)", "rows may not grow"),
        ("(1,1)>0 (2,2)", "at least 1"),
        ("(0,1)", "at least 1"),
        ("(4,4)>9 (1,8)", "budgets may not shrink"),
        ("(1,1)>5(2,2)", "can't read"),
        ("(1,1)>5 two", "can't read 'two'"),
        ("(1.5,2)", "can't read"),
        ("(1,1):>5 (2,2)", "can't read"),
        ("(1,1):8>5 (2,2)", "can't read"),
        ("(1,1)>5 (2,2):int8", "the last stage ranks by the vectors as they are"),
        ("(4,4):int8>9 (1,8)", "budgets may not shrink"),
        ("(-1,2)", "can't read"),
        ("coarse", "coarse can only be the first"),
        ("(1,1)>5 coarse>5 (2,2)", "coarse can only be the first"),
        ("coarse(nprobe)>5 (2,2)", "coarse parameter"),
        ("coarse(nprobe=1,nprobe=2)>5 (2,2)", "a parameter twice"),
    ],
)
def test_what_is_no_plan_is_refused_with_the_reason(text, reason):
    with pytest.raises(PlanError, match="plan") as refused:
        Plan.parse(text)
    assert reason in str(refused.value)


def test_steps_fill_in_the_sides_and_k():
    steps = Plan.parse("(1,1)>40 (*,8)>20 (*,*)").steps(16, 64, 10)
    assert steps == (Step(Budget(1, 1), 40), Step(Budget(16, 8), 20), Step(Budget(16, 64), 10))


def test_a_stage_reads_the_copy_that_there_is():
    plan = Plan.parse("(1,1):int8>40 (*,*)")
    first, last = plan.steps(16, 64, 10, early="int8")
    assert (first.early, first.source, str(first)) == ("int8", "(1,1):int8", "(1,1):int8>40")
    assert last.early is None
    with pytest.raises(PlanError, match=r"reads a copy, and this index has no early copy; make one with MetaIndex\(early="):
        plan.steps(16, 64, 10)
    with pytest.raises(PlanError, match="this index has an early copy in float16"):
        plan.steps(16, 64, 10, early="float16")


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("coarse>40 (*,*)", (16, 2)),
        ("coarse>40 (4,8)>20 (8,64)", (8, 2)),  # the query tokens of the last stage
        ("coarse(r_q=3,nprobe=7)>40 (4,1)", (3, 1)),  # of a document no more than the next stage sees
    ],
)
def test_a_coarse_stage_goes_by_the_query_tokens_of_the_last(text, budget):
    plan = Plan.parse(text)
    first, *rest = plan.steps(16, 64, 10, coarse_tokens=2)
    assert (first.budget, first.keep, first.coarse) == (Budget(*budget), 40, plan.coarse)
    assert str(first) == text.split()[0]
    assert all(step.coarse is None for step in rest)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(17,1)", "more than the 16 query"),
        ("(1,65)", "64 document tokens"),
        ("(1,1)>9 (2,2)", "fewer than k = 10"),
        ("coarse>40 (2,2)", "no coarse stage"),
        ("(*,1)>40 (4,4)", "budgets may not shrink"),
        ("coarse>9 (2,2)", "fewer than k = 10"),
        ("coarse(r_q=17)>40 (*,*)", "expected r_q in 1..16"),
        ("coarse(r_q=0)>40 (*,*)", "expected r_q in 1..16"),
        ("coarse>40 (17,2)", "more than the 16 query"),
    ],
)
def test_steps_refuse_what_an_index_can_not_run(text, reason):
    with pytest.raises(PlanError) as refused:
        Plan.parse(text).steps(16, 64, 10, None if reason == "no coarse stage" else 1)
    assert reason in str(refused.value)


def test_only_text_parses():
    with pytest.raises(TypeError, match="plan: expected text"):
        Plan.parse(7)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Plan("(1,1)"), TypeError, "plan: expected stages, got '(1,1)'; Plan.parse takes text"),
        (lambda: Plan([Exact()]), TypeError, "plan: expected stages, got (Exact("),
        (lambda: Plan(5), TypeError, "plan: expected stages, got 5"),
        (lambda: Stage("(1,1)", 5), TypeError, "stage: expected Exact or Coarse, got '(1,1)'"),
        (lambda: Coarse({"nprobe": 3}), TypeError, "coarse: expected pairs of name and number, such as (('nprobe', 16),)"),
        (lambda: Coarse((("nprobe", "a"),)), TypeError, "coarse nprobe: expected an integer, got 'a'"),
        (lambda: Coarse((("nprobe", 1.5),)), TypeError, "coarse nprobe: expected an integer, got 1.5"),
        (lambda: Coarse((("nprobe", True),)), TypeError, "coarse nprobe: expected an integer, got True"),
        (lambda: Coarse((("nprobe", 2**31),)), PlanError, "coarse nprobe: expected at most 2147483647"),
        (lambda: Coarse((("nprobe", -1),)), PlanError, "coarse nprobe: expected at least 0"),
        (lambda: Plan.parse("(9,9)").steps(9, 8, 1), PlanError, "(9,9) asks for more than the 8 document tokens there are"),
        (lambda: Budget.resolve((100, 100), 100, 8), ValueError, "budget: expected r_c in 1..8, got (100, 100)"),
    ],
)
def test_values_are_checked_where_they_are_made(make, error, message):
    with pytest.raises(error) as refused:
        make()
    assert message in str(refused.value)


def test_numbers_of_numpy_are_numbers():
    assert Coarse([("nprobe", np.int64(4))]) == Coarse((("nprobe", 4),)) == Coarse.parse("coarse(nprobe=4)")
