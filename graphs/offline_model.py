"""A chat model without a language model: streams tokens, calls tools, reports usage, needs no key and no network.

It exists so that the whole server can be tried and tested. `offline_rules` decides what it says; here it is made to
look on the wire like any other chat model. Token counts are word counts, and marked as estimated.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import agenerate_from_stream, generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from offline_rules import Reply, decide


class OfflineChatModel(BaseChatModel):
    """Answers by fixed rules, one word at a time.

    `token_delay_s` is the pause before each chunk, in seconds; a real model needs about as long.
    """

    token_delay_s: float = 0.0
    model_name: str = "waystation-offline"

    @property
    def _llm_type(self) -> str:
        return "waystation-offline"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Tools are known by name (see `offline_rules`); `tool_choice` is accepted and changes nothing."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages, kwargs):
            time.sleep(self.token_delay_s)
            if run_manager:
                run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages, kwargs):
            # Also without a delay: between two tokens of a real model others always get their turn.
            await asyncio.sleep(self.token_delay_s)
            if run_manager:
                await run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
            yield chunk

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, None, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(self._astream(messages, stop, None, **kwargs))

    def _chunks(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> list[ChatGenerationChunk]:
        tools = [str(tool["function"]["name"]) for tool in kwargs.get("tools", ())]
        reply = decide(messages, tools)
        parts = _tool_call_parts(reply) if reply.tool_calls else _text_parts(reply)
        # Only the last chunk carries these, and nothing else, as providers send it: merging adds counts up and glues
        # texts together, and a piece of a tool call in it would be taken for the whole.
        parts.append(
            AIMessageChunk(
                content="",
                usage_metadata=_usage(messages, reply),
                response_metadata={
                    "model_name": self.model_name,
                    "model_provider": "waystation",
                    "finish_reason": "tool_calls" if reply.tool_calls else "stop",
                    "usage_is_estimated": True,
                },
                chunk_position="last",
            )
        )
        return [ChatGenerationChunk(message=part) for part in parts]


def _text_parts(reply: Reply) -> list[AIMessageChunk]:
    words: list[str] = re.findall(r"\s*\S+|\s+$", reply.text)
    return [AIMessageChunk(content=word) for word in words]


def _tool_call_parts(reply: Reply) -> list[AIMessageChunk]:
    """As providers stream them: name and id first, then the arguments as pieces of JSON."""
    parts: list[AIMessageChunk] = []
    for index, call in enumerate(reply.tool_calls):
        args = json.dumps(call["args"])
        head = tool_call_chunk(name=call["name"], args="", id=call["id"], index=index)
        pieces = [tool_call_chunk(args=args[at : at + 24], index=index) for at in range(0, len(args), 24)]
        parts += [AIMessageChunk(content="", tool_call_chunks=[piece]) for piece in (head, *pieces)]
    return parts


def _usage(messages: Sequence[BaseMessage], reply: Reply) -> UsageMetadata:
    words_in = sum(len(str(message.text).split()) for message in messages)
    words_out = len(reply.text.split()) + sum(len(json.dumps(call["args"]).split()) for call in reply.tool_calls)
    return UsageMetadata(input_tokens=words_in, output_tokens=words_out, total_tokens=words_in + words_out)
