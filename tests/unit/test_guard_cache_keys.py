"""Which calls are the same call, and whose an answer is."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import BaseModel

from cached_calls import ANY, Says, World
from scripted_calls import USAGE, ScriptedModel
from waystation_guards.caching.keys import key_of, question_of
from waystation_guards.caching.model import CachedModel
from waystation_guards.caching.responses import ResponseCache
from waystation_guards.calls import CallSite

pytestmark = pytest.mark.anyio

# What is the same call


async def test_ids_of_messages_and_of_tool_calls_make_no_difference() -> None:
    def conversation(number: int) -> list[Any]:
        call: Any = {"name": "look", "args": {}, "id": f"call-{number}"}
        return [
            HumanMessage("hi", id=f"m-{number}"),
            AIMessage("", tool_calls=[call], id=f"a-{number}", response_metadata={"at": number}, usage_metadata=USAGE),
            ToolMessage("seen", tool_call_id=f"call-{number}"),
        ]

    world = World()
    await world.model.ainvoke(conversation(1))
    await world.model.ainvoke(conversation(2))
    assert world.calls == 1


@pytest.mark.parametrize(
    "other",
    [
        [HumanMessage("hi ")],
        [SystemMessage("be brief"), HumanMessage("hi")],
        [HumanMessage("hi", name="ada")],
        [HumanMessage([{"type": "text", "text": "hi"}, {"type": "image", "url": "http://localhost/x.png"}])],
        [AIMessage("hi")],
    ],
)
async def test_other_messages_are_another_call(other: Any) -> None:
    world = World()
    await world.model.ainvoke("hi")
    await world.model.ainvoke(other)
    assert world.calls == 2


async def test_a_text_is_the_same_as_its_only_block_whether_marked_for_the_provider_or_not() -> None:
    world = World()
    await world.model.ainvoke("hi")
    block = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    await world.model.ainvoke([HumanMessage([cast("Any", block)])])
    assert world.calls == 1


@pytest.mark.parametrize(
    "kwargs", [{"temperature": 0.1}, {"tools": [{"name": "x"}]}, {"max_tokens": 5}, {"stop": ["."]}, {"seed": 1}]
)
async def test_other_parameters_are_another_call(kwargs: Any) -> None:
    world = World()
    await world.model.ainvoke("hi")
    await world.model.ainvoke("hi", **kwargs)
    await world.model.ainvoke("hi", **kwargs)
    assert world.calls == 2


@pytest.mark.parametrize("kwargs", [{"user": "ada"}, {"safety_identifier": "ada"}, {"prompt_cache_key": "x"}])
async def test_parameters_that_change_no_answer_make_no_difference(kwargs: Any) -> None:
    world = World()
    await world.model.ainvoke("hi")
    await world.model.ainvoke("hi", **kwargs)
    assert world.calls == 1


async def test_other_models_and_other_settings_of_a_model_are_other_calls() -> None:
    digests = {
        question_of(model, [HumanMessage("hi")], None, {}).digest
        for model in (
            ScriptedModel(calls=[]),
            ScriptedModel(calls=[], model="other"),
            ScriptedModel(calls=[], pause_s=0.5),
            Says(answers=[]),
        )
    }
    assert len(digests) == 4


async def test_the_key_of_a_provider_is_the_same_with_another_api_key_and_not_with_another_address() -> None:
    from langchain_openai import ChatOpenAI

    def digest(**settings: Any) -> str:
        given: Any = {"model": "gpt-4o-mini", "temperature": 0, "api_key": "a", **settings}
        model = ChatOpenAI(**given)
        return question_of(model, [HumanMessage("hi")], None, {}).digest

    assert digest() == digest(api_key="b") == digest(timeout=3, max_retries=9)
    assert len({digest(), digest(model="gpt-4o"), digest(temperature=1), digest(base_url="http://localhost:1")}) == 4


class Answer(BaseModel):
    """A structured answer."""

    text: str


async def test_tools_and_structured_output_go_through_the_cache() -> None:
    from langchain_openai import ChatOpenAI

    call: Any = {"name": "Answer", "args": {"text": "yes"}, "id": "call_1"}

    class Structured(ChatOpenAI):
        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
            asked.append(kwargs)
            message = AIMessage("", tool_calls=[call], response_metadata={"finish_reason": "tool_calls"})
            return ChatResult(generations=[ChatGeneration(message=message)])

    asked: list[Any] = []
    inner = Structured(model="gpt-4o-mini", temperature=0, api_key=cast("Any", "x"))
    model = CachedModel(inner=inner, answers=ResponseCache())
    for raw in (False, True):
        structured = model.with_structured_output(Answer, method="function_calling", include_raw=raw)
        for _ in range(2):
            found: Any = await asyncio.to_thread(structured.invoke, "hi")
            assert (found["parsed"] if raw else found) == Answer(text="yes")
    bound = model.bind_tools([Answer])
    assert cast("Any", await asyncio.to_thread(bound.invoke, "hi")).tool_calls[0]["args"] == {"text": "yes"}
    assert len(asked) == 2
    assert asked[0]["tools"][0]["function"]["name"] == "Answer"


# Whose an answer is


async def test_a_tenant_is_not_given_another_ones_answers() -> None:
    world = World()
    await world.ask(tenant="acme")
    await world.ask(tenant="globex")
    assert world.calls == 2
    await world.ask(tenant="globex")
    assert world.calls == 2


async def test_users_share_their_tenants_answers_unless_they_should_not() -> None:
    world, private = World(), World(replace(ANY, scope="user"))
    for user in ("ada", "bob", "ada"):
        await world.ask(user_id=user)
        await private.ask(user_id=user)
    assert (world.calls, private.calls) == (1, 2)


async def test_what_is_of_a_user_is_not_cached_for_who_is_none() -> None:
    world = World(replace(ANY, scope="user"))
    await world.ask()
    await world.ask()
    assert world.calls == 2
    assert world.happened == ["skipped"] * 2


async def test_only_what_is_shared_on_purpose_is_shared() -> None:
    world = World(replace(ANY, scope="shared"))
    await world.ask(tenant="acme")
    await world.ask(tenant="globex")
    assert world.calls == 1


def test_keys_of_tenants_and_users_are_not_mixed_up() -> None:
    sites = [CallSite(tenant="a", user="b"), CallSite(tenant="b", user="a"), CallSite(tenant="ab", user="")]
    keys = {key_of("answer", site, scope, "d") for site in sites for scope in ("tenant", "user")}
    assert len(keys) == 6
    assert not any(key.startswith("shared:") for key in keys)
    assert {key_of("answer", site, "shared", "d") for site in sites} == {key_of("answer", sites[0], "shared", "d")}
