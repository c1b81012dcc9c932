"""When two calls of a model are the same: whose they are, which model, what it is told, and every parameter that
changes the answer. Ids of messages, of tool calls and of runs are none of it, nor are timeouts, keys and
prompt-cache marks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Literal, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from pydantic import BaseModel

from waystation_guards.calls import CallSite
from waystation_guards.ports import SHARED

CacheScope = Literal["tenant", "user", "shared"]

_NO_MATTER: Final = frozenset(
    (
        "api_key",
        "openai_api_key",
        "anthropic_api_key",
        "google_api_key",
        "azure_ad_token",
        "user",
        "metadata",
        "safety_identifier",
        "store",
        "prompt_cache_key",
        "prompt_cache_retention",
        "cache_control",
        "timeout",
        "request_timeout",
        "default_request_timeout",
        "max_retries",
        "stream",
        "streaming",
        "stream_usage",
        "stream_options",
        "ls_structured_output_format",
        "cache",
        "callbacks",
        "tags",
        "verbose",
        "name",
        "disable_streaming",
        "rate_limiter",
        "profile",
        "custom_get_token_ids",
        "http_client",
        "http_async_client",
        "http_socket_options",
        "include_response_headers",
        "kind",
        "default_headers",
    )
)
"""Parameters that do not change what a model answers."""


@dataclass(frozen=True, slots=True)
class Question:
    """A call as a cache sees it. `setting`: a digest of all but the messages."""

    model: str
    provider: str
    params: Mapping[str, Any]
    setting: str
    messages: Sequence[BaseMessage]

    @property
    def digest(self) -> str:
        """What two calls share that are the same."""
        return digest_of([self.setting, plain_messages(self.messages)])


def question_of(
    model: BaseChatModel, messages: Sequence[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
) -> Question:
    """What is asked of a model with these arguments."""
    tells = cast("Any", model)
    params = tells._get_invocation_params(stop=stop, **kwargs)
    told = tells._get_ls_params(stop=stop, **kwargs)
    name = params.get("model") or params.get("model_name") or told.get("ls_model_name") or params.get("_type") or ""
    provider = str(told.get("ls_provider") or "")
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    setting = digest_of([kind, provider, str(name), _settings(model), _matter({**params, **kwargs})])
    return Question(str(name), provider, params, setting, messages)


def key_of(what: str, site: CallSite, scope: CacheScope, digest: str, *, version: str = "") -> str:
    """The name of a value in the cache. Nobody of another tenant (or user) can ask for the same one."""
    owner = {"tenant": [site.tenant], "user": [site.tenant, site.user], "shared": []}[scope]
    name = f"{what}:{digest_of([what, scope, owner, version, digest])}"
    return f"{SHARED}{name}" if scope == "shared" else name


def plain_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Messages as JSON without what is different each time; tool calls are numbered in their order."""
    numbers: dict[str, str] = {}
    for message in messages:
        for call in message.tool_calls if isinstance(message, AIMessage) else ():
            numbers.setdefault(str(call["id"]), f"#{len(numbers)}")
    return [_renumbered(_plain_message(message), numbers) for message in messages]


def digest_of(value: Any) -> str:
    """The same for equal JSON, whatever the order of its members."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain, ensure_ascii=True)
    return sha256(text.encode()).hexdigest()


def _settings(model: BaseChatModel) -> Any:
    """How the model was made."""
    if model.is_lc_serializable():
        return _matter(cast("Any", model)._serialized.get("kwargs") or {})
    fields = ((name, getattr(model, name, None)) for name in type(model).model_fields)
    return _matter({name: value for name, value in fields if isinstance(value, str | int | float | bool)})


def _matter(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name not in _NO_MATTER and value is not None}


def _plain_message(message: BaseMessage) -> dict[str, Any]:
    extra = {name: value for name, value in message.additional_kwargs.items() if name != "tool_calls" and value}
    plain: dict[str, Any] = {
        "type": message.type.removesuffix("MessageChunk").lower(),
        "content": _plain_content(message.content),
        **({"name": message.name} if message.name else {}),
        **({"extra": extra} if extra else {}),
    }
    if isinstance(message, AIMessage) and message.tool_calls:
        plain["calls"] = [[call["id"], call["name"], call["args"]] for call in message.tool_calls]
    if isinstance(message, ToolMessage):
        plain["call"], plain["status"] = message.tool_call_id, message.status
    return plain


def _plain_content(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    blocks = [_plain_block(block) for block in cast("list[Any]", content)]
    only: Any = blocks[0] if len(blocks) == 1 else None
    members = cast("dict[str, Any]", only) if isinstance(only, dict) else {}
    return members["text"] if set(members) == {"type", "text"} else blocks


def _plain_block(block: object) -> Any:
    if not isinstance(block, dict):
        return block
    members = cast("dict[str, Any]", block)
    return {
        name: value
        for name, value in members.items()
        if name not in ("cache_control", "index") and not (name == "id" and str(value).startswith("lc_"))
    }


def _renumbered(value: Any, numbers: Mapping[str, str]) -> Any:
    """The value with every string that is a tool call's id replaced."""
    if isinstance(value, str):
        return numbers.get(value, value)
    if isinstance(value, dict):
        return {name: _renumbered(one, numbers) for name, one in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_renumbered(one, numbers) for one in cast("list[Any]", value)]
    return value


def _plain(value: Any) -> Any:
    """What JSON does not know: a schema's class counts as its schema. Anything else only equals itself."""
    if isinstance(value, type) and issubclass(value, BaseModel):
        return [value.__qualname__, value.model_json_schema()]
    if isinstance(value, BaseModel):
        return [type(value).__qualname__, value.model_dump()]
    if isinstance(value, set | frozenset):
        return sorted(cast("set[str]", value), key=str)
    return repr(cast("object", value))
