"""The two message modes: one LangGraph stream of `(message, metadata)`, told in two ways.

    messages-tuple   every chunk as it comes:   messages  [chunk, metadata]
    messages         the text so far:           messages/metadata  once per message
                                                messages/partial   [the whole message so far], after every chunk
                                                messages/complete  [message], for one that did not stream

A message's metadata is the same for each of its chunks, and larger than most of them: it is encoded once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import orjson
from langchain_core.messages import AIMessageChunk, BaseMessage, BaseMessageChunk, message_chunk_to_message

from waystation.worker.publisher import WireEvent
from waystation_db.json import dumps

_MAX_CACHED: Final = 64
_CHUNK_ONLY: Final = frozenset({"tool_call_chunks", "chunk_position"})


class EncodedOnce:
    """JSON of dictionaries that come again and again as the same object: those of the latest few dozen calls."""

    def __init__(self) -> None:
        self._encoded: OrderedDict[int, tuple[Mapping[str, Any], bytes]] = OrderedDict()

    def __call__(self, value: Mapping[str, Any]) -> bytes:
        # The dictionary is kept beside its bytes: as long as it lives, no other object has its id.
        kept = self._encoded.get(id(value))
        if kept is not None:
            return kept[1]
        data = dumps(value)
        self._encoded[id(value)] = value, data
        if len(self._encoded) > _MAX_CACHED:
            self._encoded.popitem(last=False)
        return data


class TupleMessages:
    """Mode `messages-tuple`."""

    def __init__(self, metadata_json: EncodedOnce) -> None:
        self._metadata_json = metadata_json

    def encode(self, message: BaseMessage, metadata: Mapping[str, Any], suffix: str) -> list[WireEvent]:
        """`suffix`: the namespace part of the event's name."""
        data = b"".join((b"[", dumps(message), b",", self._metadata_json(metadata), b"]"))
        return [(f"messages{suffix}", data, "messages-tuple")]


class GrowingMessages:
    """Mode `messages`. Its events carry no namespace in their names; it is in the metadata."""

    def __init__(self, metadata_json: EncodedOnce) -> None:
        self._metadata_json = metadata_json
        self._announced: set[str] = set()
        self._growing: dict[str, BaseMessageChunk] = {}

    def encode(self, message: BaseMessage, metadata: Mapping[str, Any], _suffix: str) -> list[WireEvent]:
        events: list[WireEvent] = []
        message_id = message.id or ""
        if message_id not in self._announced:
            self._announced.add(message_id)
            data = b'{%b:{"metadata":%b}}' % (dumps(message_id), self._metadata_json(metadata))
            events.append(("messages/metadata", data, "messages"))
        if isinstance(message, BaseMessageChunk):
            events.append(("messages/partial", dumps([self._grown(message_id, message)]), "messages"))
        else:
            events.append(("messages/complete", dumps([message]), "messages"))
        return events

    def _grown(self, message_id: str, chunk: BaseMessageChunk) -> Any:
        """The message up to and with this chunk, as the message it will be."""
        whole = self._growing.get(message_id)
        if whole is None:
            whole = chunk.model_copy()
        elif _adds_only_text(chunk, whole):
            # LangChain's own sum parses all tool calls again and validates the message anew; this is 20 times faster.
            whole.content = f"{whole.content}{chunk.content}"
        else:
            whole = whole + chunk
        self._growing[message_id] = whole
        if getattr(chunk, "chunk_position", None) == "last":
            del self._growing[message_id]
        if type(whole) is AIMessageChunk and not whole.__pydantic_extra__:
            return {**{k: v for k, v in whole.__dict__.items() if k not in _CHUNK_ONLY}, "type": "ai"}
        return message_chunk_to_message(whole)


def _adds_only_text(chunk: BaseMessageChunk, whole: BaseMessageChunk) -> bool:
    if type(chunk) is not AIMessageChunk or type(whole) is not AIMessageChunk:
        return False
    if type(chunk.content) is not str or type(whole.content) is not str:
        return False
    if chunk.chunk_position is not None and whole.tool_call_chunks:  # the last chunk has the calls parsed once more
        return False
    return not (
        chunk.tool_call_chunks
        or chunk.tool_calls
        or chunk.invalid_tool_calls
        or chunk.usage_metadata
        or chunk.additional_kwargs
        or chunk.response_metadata
        or chunk.__pydantic_extra__
    )


def with_metadata_once(event: Mapping[str, Any], metadata_json: EncodedOnce) -> bytes:
    """JSON of a runnable event (mode `events`), its metadata encoded once per call."""
    return dumps({**event, "metadata": orjson.Fragment(metadata_json(event["metadata"]))})
