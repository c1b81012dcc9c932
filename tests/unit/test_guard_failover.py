"""A failover goes from target to target by class of error, and its answer says what happened."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from haste import within_its_time
from scripted_targets import Scripted, Status, until
from waystation_guards.budget.budget import Budget
from waystation_guards.budget.limits import Limit
from waystation_guards.calls import CallSite
from waystation_guards.deadlines import within
from waystation_guards.errors import AllTargetsFailed, BudgetExceeded, DeadlinePassed, GuardUnavailable, RateLimited
from waystation_guards.failover.hedging import Hedge
from waystation_guards.failover.model import FailoverModel
from waystation_guards.failover.policy import Backoff, Decision, FailoverPolicy, Patience
from waystation_guards.failover.targets import Target
from waystation_guards.memory.ports import memory_ports
from waystation_guards.ports import Ports, use_ports
from waystation_guards.watching.watcher import watched

pytestmark = pytest.mark.anyio

QUICK = Backoff(first_s=0.0)


@pytest.fixture(autouse=True)
def ports() -> Ports:
    made = memory_ports()
    use_ports(made)
    return made


def scripted(*scripts: list[Any]) -> Scripted:
    return Scripted(model=f"m-{uuid4()}", scripts=list(scripts))


def good(*words: str) -> Scripted:
    return scripted(list(words or ("fine",)))


def policy(**members: Any) -> FailoverPolicy:
    given: dict[str, Any] = {"backoff": QUICK, **members}
    return FailoverPolicy(**given)


async def ask(model: Any, how: str, config: Any = None) -> AIMessage:
    match how:
        case "ainvoke":
            return await model.ainvoke("hi", config)
        case "invoke":
            return await asyncio.to_thread(model.invoke, "hi", config)
        case "astream":
            return _sum([chunk async for chunk in model.astream("hi", config)])
        case _:
            return _sum(await asyncio.to_thread(lambda: [*model.stream("hi", config)]))


def _sum(chunks: list[AIMessageChunk]) -> AIMessage:
    full: Any = chunks[0]
    for chunk in chunks[1:]:
        full = full + chunk
    return full


HOW = ("ainvoke", "invoke", "astream", "stream")


@pytest.mark.parametrize("how", HOW)
async def test_the_next_target_answers_and_the_answer_says_so(how: str) -> None:
    first, second = scripted([Status(401)]), good("all ", "well")
    answer = await ask(FailoverModel([Target(first, name="a"), Target(second, name="b")], policy()), how)
    assert answer.text == "all well"
    assert answer.response_metadata["failover"] == {
        "target": "b",
        "attempts": 2,
        "failures": [{"target": "a", "class": "auth", "error": "Status"}],
        "hedged": False,
        "continued": 0,
        "restarted": 0,
    }


@pytest.mark.parametrize(
    ("error", "tries", "survives"),
    [
        (Status(429), 2, True),
        (Status(529), 2, True),
        (Status(500), 2, True),
        (TimeoutError(), 1, True),
        (ConnectionResetError(), 2, True),
        (Status(413), 1, True),
        (Status(400, code="content_filter"), 1, True),
        (Status(401), 1, True),
        (Status(400), 1, False),
        (RuntimeError("what?"), 1, True),
    ],
)
async def test_each_class_of_error_is_treated_by_its_row(error: Exception, tries: int, survives: bool) -> None:
    first, second = scripted([error]), good()
    model = FailoverModel([first, second], policy())
    if survives:
        assert (await model.ainvoke("hi")).text == "fine"
    else:
        with pytest.raises(type(error)):
            await model.ainvoke("hi")
    assert (len(first.asked), len(second.asked)) == (tries, int(survives))


@pytest.mark.parametrize(
    ("error", "tries"), [(Status(429), 4), (Status(529), 4), (TimeoutError(), 2), (Status(401), 1), (Status(400), 1)]
)
async def test_the_last_target_is_tried_more_often(error: Exception, tries: int) -> None:
    only = scripted([error])
    with pytest.raises((AllTargetsFailed, Status)):
        await FailoverModel([only], policy()).ainvoke("hi")
    assert len(only.asked) == tries


async def test_a_passing_fault_is_survived_on_the_same_target() -> None:
    first, second = scripted([Status(503)], ["better"]), good()
    assert (await FailoverModel([first, second], policy()).ainvoke("hi")).text == "better"
    assert second.asked == []


async def test_a_row_can_be_overridden() -> None:
    first, second = scripted([Status(400)]), good()
    rows: Any = {"bad_request": Decision(then="next")}
    assert (await FailoverModel([first, second], policy(decisions=rows)).ainvoke("hi")).text == "fine"


async def test_where_no_target_answers_the_error_says_why_and_when_to_try_again() -> None:
    first, second = scripted([Status(429, retry_after_s=40)]), scripted([Status(429, retry_after_s=20)])
    model = FailoverModel([Target(first, name="a"), Target(second, name="b")], policy(backoff=Backoff(0, 1, 1, 1)))
    with pytest.raises(AllTargetsFailed, match=r"no model answered \(too many requests\); .* in 20 s") as refused:
        await model.ainvoke("hi")
    assert refused.value.retry_after_s == 20
    assert [(one["target"], one["class"]) for one in refused.value.failures] == [
        ("a", "rate_limit"),
        ("b", "rate_limit"),
    ]
    assert isinstance(refused.value.__cause__, Status)


async def test_retry_after_is_waited_for_where_it_is_short_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float, *_: Any) -> None:
        waits.append(seconds)

    monkeypatch.setattr("waystation_guards.failover.course.asyncio.sleep", sleep)
    model = FailoverModel([scripted([Status(429, retry_after_s=1.5)], ["fine"]), good("other")], policy())
    assert (await model.ainvoke("hi")).text == "fine"
    assert waits == [1.5]
    model = FailoverModel([scripted([Status(429, retry_after_s=10)], ["fine"]), good("other")], policy())
    assert (await model.ainvoke("hi")).text == "other"
    assert waits == [1.5]
    model = FailoverModel([scripted([Status(429, retry_after_s=10)], ["fine"])], policy())
    assert (await model.ainvoke("hi")).text == "fine"
    assert waits == [1.5, 10]


def test_waits_grow_by_a_factor_with_full_jitter() -> None:
    backoff = Backoff(first_s=1, factor=2, longest_s=5)
    spans = [max(backoff.wait_s(number) for _ in range(300)) for number in range(4)]
    assert all(0.8 * most < span <= most for span, most in zip(spans, (1, 2, 4, 5), strict=True))
    assert min(backoff.wait_s(3) for _ in range(300)) < 1
    assert backoff.wait_s(0, retry_after_s=7) >= 7


async def test_a_guards_refusal_is_nothing_that_another_target_changes() -> None:
    first, second = good(), good()
    budget = Budget(Limit(0, unit="model_calls"))
    with pytest.raises(BudgetExceeded):
        await FailoverModel([first, second], policy()).ainvoke("hi", watched(None, [budget]))
    assert first.asked == second.asked == []


async def test_a_targets_own_limit_on_rates_sends_the_call_to_the_next(ports: Ports) -> None:
    first, second = scripted([RateLimited("later", retry_after_s=60)]), good()
    model = FailoverModel([first, second], policy())
    for _ in range(15):
        assert (await model.ainvoke("hi")).text == "fine"
    assert len(first.asked) == 15  # its breaker never opened


@pytest.mark.parametrize("how", HOW)
async def test_each_try_is_settled_on_its_own_and_the_answer_once(how: str, ports: Ports) -> None:
    usage: Any = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    chunk = AIMessageChunk(content="fine", usage_metadata=usage)
    first, second = scripted([Status(503)]), scripted([chunk])
    budget = Budget(Limit(1e6, "tokens", "tenant"), Limit(100, "model_calls", "tenant"))
    await ask(FailoverModel([first, second], policy()), how, watched(None, [budget]))
    tokens, calls = await budget.standing(ports, CallSite())
    assert (tokens.spent, tokens.held) == (7, 0)
    assert (calls.spent, calls.held) == (1, 0)


@pytest.mark.parametrize("how", ["ainvoke", "astream"])
@within_its_time(0.3)
async def test_a_target_that_says_nothing_is_left_in_time(how: str) -> None:
    first, second = scripted([asyncio.Event()]), good()
    patience = Patience(first_s=0.2, whole_s=0.2)
    model = FailoverModel([first, second], policy(patience=patience, decisions={"timeout": Decision()}))
    answer = await ask(model, how)
    assert answer.text == "fine"
    assert answer.response_metadata["failover"]["failures"][0]["class"] == "timeout"
    assert first.ended == ["cancelled"]


@pytest.mark.parametrize("how", ["invoke", "stream"])
@within_its_time(0.3)
async def test_a_target_that_blocks_is_left_in_time_too(how: str) -> None:
    go = threading.Event()
    first, second = scripted([go, "too late"]), good()
    patience = Patience(first_s=0.2, whole_s=0.2)
    try:
        answer = await ask(FailoverModel([first, second], policy(patience=patience)), how)
    finally:
        go.set()
    assert answer.text == "fine"


async def test_a_blocking_call_on_the_loop_of_the_ports_is_refused_instead_of_waiting_for_ever() -> None:
    made = memory_ports()
    use_ports(Ports(made.ledger, made.state, made.cache, loop=asyncio.get_running_loop()))
    model = FailoverModel([good()], policy())
    with pytest.raises(GuardUnavailable, match="await it"):
        model.invoke("hi")
    with pytest.raises(GuardUnavailable, match="await it"):
        list(model.stream("hi"))
    assert (await ask(model, "invoke")).text == "fine"


@pytest.mark.parametrize("how", ["ainvoke", "astream"])
async def test_a_deadline_bounds_all_tries_and_opens_no_breaker(how: str, ports: Ports) -> None:
    first = scripted([asyncio.Event()])
    model = FailoverModel([Target(first, name="a")], policy())
    at = datetime.now(UTC) + timedelta(seconds=0.05)
    for _ in range(12):
        with pytest.raises(DeadlinePassed):
            await ask(model, how, {"configurable": {"deadline": at}})
        with pytest.raises(DeadlinePassed), within(0.01):
            await ask(model, how)
    with pytest.raises(DeadlinePassed):
        await ask(FailoverModel([Target(first, name="a")], policy(deadline_s=0.02)), how)
    assert (await FailoverModel([Target(good(), name="a")], policy()).ainvoke("hi")).text == "fine"


async def test_a_deadline_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"configurable\.deadline is 'soon'"):
        await FailoverModel([good()]).ainvoke("hi", {"configurable": {"deadline": "soon"}})


async def test_tools_are_bound_to_each_target() -> None:
    @tool
    def search(query: str) -> str:
        """Search."""
        return query

    first, second = scripted([Status(401)]), good()
    model = FailoverModel([first, second], policy()).bind_tools([search], tool_choice="any")
    assert (await model.ainvoke("hi")).text == "fine"
    assert first.tools == second.tools == [["search"]]


async def test_structured_output_comes_from_whoever_answers() -> None:
    class Weather(BaseModel):
        city: str

    call: Any = {"name": "Weather", "args": '{"city": "Ulm"}', "id": "1", "index": 0}
    first, second = scripted([Status(401)]), scripted([AIMessageChunk(content="", tool_call_chunks=[call])])
    model = FailoverModel([first, second], policy()).with_structured_output(Weather)
    assert await model.ainvoke("hi") == Weather(city="Ulm")


@pytest.mark.parametrize("how", HOW)
async def test_an_empty_answer_is_asked_for_once_more_and_then_taken(how: str) -> None:
    first = scripted([""])
    assert (await ask(FailoverModel([first], policy()), how)).text == ""
    assert len(first.asked) == 2


async def test_an_empty_answer_is_asked_for_elsewhere_first() -> None:
    first, second = scripted([""]), good()
    assert (await FailoverModel([first, second], policy()).ainvoke("hi")).text == "fine"
    assert len(first.asked) == 1


@pytest.mark.parametrize("how", ["ainvoke", "astream"])
async def test_a_tool_call_that_stops_in_the_middle_is_no_answer(how: str) -> None:
    cut: Any = {"name": "search", "args": '{"query": "on', "id": "1", "index": 0}
    first, second = scripted([AIMessageChunk(content="", tool_call_chunks=[cut])]), good()
    model = FailoverModel([first, second], policy(decisions={"malformed": Decision()}))
    answer = await ask(model, how)
    assert (answer.text, answer.tool_calls) == ("fine", [])


async def test_several_prompts_fail_over_each_on_its_own() -> None:
    first, second = scripted([Status(401)], ["one"]), good("two")
    result = await FailoverModel([first, second], policy()).agenerate([[HumanMessage("a")], [HumanMessage("b")]])
    assert sorted(some[0].text for some in result.generations) == ["one", "two"]
    assert sorted(one.text for one in await FailoverModel([good("x")]).abatch(["a", "b"])) == ["x", "x"]


async def test_cancelling_the_call_cancels_the_try_and_gives_back_what_it_held(ports: Ports) -> None:
    first = scripted(["a ", asyncio.Event()])
    budget = Budget(Limit(100, "model_calls", "tenant"))
    for how in ("ainvoke", "astream"):
        first.began[0].clear()
        task = asyncio.create_task(ask(FailoverModel([first, good()], policy()), how, watched(None, [budget])))
        await until(lambda: bool(first.began[0].is_set()))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (calls,) = await budget.standing(ports, CallSite())
    assert calls.held == 0
    assert first.ended == ["cancelled", "cancelled"]


async def test_a_reader_that_leaves_ends_the_try_and_gives_back_what_it_held(ports: Ports) -> None:
    first = scripted(["a ", "b ", asyncio.Event()])
    budget = Budget(Limit(100, "model_calls", "tenant"))
    stream: Any = FailoverModel([first, good()], policy()).astream("hi", watched(None, [budget]))
    assert (await anext(stream)).text == "a "
    await stream.aclose()
    (calls,) = await budget.standing(ports, CallSite())
    assert (calls.spent, calls.held) == (1, 0)
    await until(lambda: first.ended == ["cancelled"])


async def test_a_target_that_does_not_stream_is_shown_as_one_piece() -> None:
    call: Any = {"name": "search", "args": '{"query": "x"}', "id": "1", "index": 0}
    whole = scripted([AIMessageChunk(content="look: ", tool_call_chunks=[call])])
    whole.disable_streaming = True
    answer = await ask(FailoverModel([scripted([Status(401)]), whole], policy()), "astream")
    assert (answer.text, [one["args"] for one in answer.tool_calls]) == ("look: ", [{"query": "x"}])


class TestHedges:
    @pytest.mark.parametrize("how", ["ainvoke", "astream"])
    async def test_a_slow_target_is_overtaken_and_its_call_settled_as_cancelled(self, how: str, ports: Ports) -> None:
        slow, quick = scripted([asyncio.Event()]), good("quick")
        model = FailoverModel([slow, quick], policy(hedge=Hedge(after_s=0.02)))
        budget = Budget(Limit(100, "model_calls", "tenant"))
        answer = await ask(model, how, watched(None, [budget]))
        assert answer.text == "quick"
        told = answer.response_metadata["failover"]
        assert (told["hedged"], told["attempts"], told["failures"]) == (True, 2, [])
        assert slow.ended == ["cancelled"]
        (calls,) = await budget.standing(ports, CallSite())
        assert (calls.spent, calls.held) == (2, 0)

    async def test_a_quick_target_is_not_hedged(self) -> None:
        first, second = good("first"), good("second")
        model = FailoverModel([first, second], policy(hedge=Hedge(after_s=30)))
        answer = await model.ainvoke("hi")
        assert (answer.text, second.asked) == ("first", [])
        assert not answer.response_metadata["failover"]["hedged"]

    async def test_where_the_hedge_fails_the_first_is_waited_for(self) -> None:
        go = asyncio.Event()
        slow, broken = scripted([go, "slow"]), scripted([Status(401)])
        model = FailoverModel([slow, broken], policy(hedge=Hedge(after_s=0.0)))
        task = asyncio.create_task(model.ainvoke("hi"))
        await until(lambda: bool(broken.asked))
        go.set()
        answer = await task
        assert answer.text == "slow"
        assert answer.response_metadata["failover"]["failures"][0]["class"] == "auth"

    async def test_where_both_fail_the_rest_is_tried(self) -> None:
        slow = scripted([Status(401)])
        model = FailoverModel([slow, scripted([Status(401)]), good()], policy(hedge=Hedge(after_s=0.0)))
        assert (await model.ainvoke("hi")).text == "fine"

    async def test_blocking_callers_hedge_too(self) -> None:
        model = FailoverModel([good("one"), good("two")], policy(hedge=Hedge(after_s=30)))
        assert (await ask(model, "invoke")).text == "one"


class TestSettings:
    def test_a_policy_comes_from_plain_values(self) -> None:
        made = FailoverPolicy.from_mapping(
            {
                "decisions": {"auth": {"then": "fail"}},
                "breaker": {"minimum": 3},
                "hedge": {"percentile": 0.9},
                "on_break": "restart",
            }
        )
        assert made.decide("auth") == Decision(then="fail")
        assert made.breaker is not None
        assert made.breaker.minimum == 3
        assert FailoverPolicy.from_mapping({"breaker": None}).breaker is None

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"on_brake": "fail"}, "failover.on_brake is unknown"),
            ({"on_break": "panic"}, "on_break of a failover is 'panic'"),
            ({"decisions": {"weather": {}}}, "'weather'; expected is one of rate_limit"),
            ({"decisions": {"auth": {"then": "again"}}}, "then of a decision is 'again'"),
            ({"decisions": {"auth": "fail"}}, "failover.decisions.auth is 'fail'; expected is an object"),
            ({"backoff": {"first": 1}}, "failover.backoff.first is unknown"),
            ({"hedge": {"percentile": 95}}, "percentile of a hedge is 95"),
        ],
    )
    def test_what_is_wrong_is_named(self, given: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said.replace(".", r"\.")):
            FailoverPolicy.from_mapping(given)

    def test_targets_need_names_of_their_own(self) -> None:
        one = Scripted(model="same")
        with pytest.raises(ValueError, match="two targets of a failover are called 'scripted/same'"):
            FailoverModel([one, Scripted(model="same")])
        named = FailoverModel([Target(one, region="eu"), Target(one, region="us", deployment="d1")])
        assert [target.name for target in named.targets] == ["scripted/same@eu", "scripted/same@us#d1"]
        with pytest.raises(ValueError, match="at least one"):
            FailoverModel([])
        with pytest.raises(ValueError, match="a target is a _ChatModelBinding"):
            FailoverModel([one.bind(stop=["x"])])  # pyright: ignore[reportArgumentType]  # what is refused
