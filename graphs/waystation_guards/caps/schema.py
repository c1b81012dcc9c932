"""Answers that have to fit a schema: checked when they are whole, asked for again with what was wrong, or replaced.

    model = CheckedModel(inner=model, check=OutputCheck(schema=Invoice, retries=2))
    check = OutputCheck({"type": "object", "required": ["total"]}, on_violation="fallback", fallback={"total": 0})

A provider's own structured output comes first where there is one; this is for those that have none, and for what it
does not promise.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from waystation_guards.errors import OutputInvalid
from waystation_guards.models.passing import PassingModel, part, whole

_FENCE = re.compile(r"^\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*$", re.DOTALL)
_LONGEST_COMPLAINT = 1000


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """What an answer has to be, and what happens where it is not.

    `schema`: a pydantic model (or any type pydantic knows), or a JSON schema. Answers that call tools are not checked.
    `on_violation`, after `retries` answers to complaints: `raise` OutputInvalid, or give the `fallback` instead.
    """

    schema: Any
    retries: int = 2
    on_violation: Literal["raise", "fallback"] = "raise"
    fallback: Any = None
    _adapter: TypeAdapter[Any] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if type(self.retries) is not int or self.retries < 0:
            raise ValueError(f"retries is {self.retries!r}; expected is a whole number from zero")
        if self.on_violation not in ("raise", "fallback"):
            raise ValueError(f"on_violation is {self.on_violation!r}; expected is raise or fallback")
        schema: Any = self.schema
        adapter = None if isinstance(schema, Mapping) else TypeAdapter[Any](schema)
        object.__setattr__(self, "_adapter", adapter)
        if adapter is None:
            _validator(self.schema)

    def complaint(self, message: AIMessage) -> str | None:
        """What is wrong with an answer, in words for a model; None where nothing is."""
        if message.tool_calls:
            return None
        fenced = _FENCE.match(message.text)
        text = fenced[1] if fenced else message.text
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return "it is no JSON"
        if self._adapter is None:
            found = next(iter(_validator(self.schema).iter_errors(value)), None)
            return None if found is None else f"{found.json_path}: {found.message}"[:_LONGEST_COMPLAINT]
        try:
            self._adapter.validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            return f"{'.'.join(str(one) for one in first['loc']) or 'the whole'}: {first['msg']}"[:_LONGEST_COMPLAINT]
        return None

    def again(self, messages: Sequence[BaseMessage], answer: AIMessage, complaint: str) -> list[BaseMessage]:
        """The prompt that asks for another answer."""
        ask = (
            f"Your answer does not have the form that is needed: {complaint}. Answer again, with nothing but the JSON."
        )
        return [*messages, answer, HumanMessage(ask)]

    def otherwise(self, complaint: str) -> AIMessage:
        """What is given in place of answers that did not fit. Raises OutputInvalid where that is what is wanted."""
        if self.on_violation == "raise":
            raise OutputInvalid(f"the model's answer does not have the form that is needed: {complaint}")
        value = self.fallback
        text = value.model_dump_json() if isinstance(value, BaseModel) else json.dumps(value)
        return AIMessage(text, response_metadata={"output_check": "fallback"})


class CheckedModel(PassingModel):
    """A chat model whose answers fit a schema. Streams come in one piece: what is not whole cannot be checked."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    check: OutputCheck
    kind: str = "checked"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config, asked, complaint = self.below(run_manager), list(messages), ""
        for _ in range(self.check.retries + 1):
            answer = self.inner.invoke(asked, config, stop=stop, **kwargs)
            if (found := self.check.complaint(answer)) is None:
                return whole(answer)
            asked, complaint = self.check.again(messages, answer, found), found
        return whole(self.check.otherwise(complaint))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config, asked, complaint = self.below(run_manager), list(messages), ""
        for _ in range(self.check.retries + 1):
            answer = await self.inner.ainvoke(asked, config, stop=stop, **kwargs)
            if (found := self.check.complaint(answer)) is None:
                return whole(answer)
            asked, complaint = self.check.again(messages, answer, found), found
        return whole(self.check.otherwise(complaint))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        yield part(self._generate(messages, stop, run_manager, **kwargs).generations[0].message)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        result = await self._agenerate(messages, stop, run_manager, **kwargs)
        yield part(result.generations[0].message)


def _validator(schema: Any) -> Any:
    """A validator of a JSON schema. Raises ValueError where the schema is none."""
    from jsonschema import SchemaError, validators  # an optional dependency of those who use JSON schemas

    kind = validators.validator_for(schema, default=validators.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"schema is no JSON schema: {error.message}") from None
    return kind(schema)
