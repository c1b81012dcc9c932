"""Chat models of providers, by name, with the settings under which guards can rely on them.

    chat_model("openai:gpt-5-mini")                                    OPENAI_API_KEY, as LangChain reads it
    chat_model("anthropic:claude-haiku-4-5", temperature=0)
    chat_model(ModelSettings("azure:gpt-5-mini", deployment="mini-eu", base_url="https://….openai.azure.com", …))
    chat_model({"model": "openai:qwen3", "base_url": "http://10.0.0.7:8000/v1"})    any OpenAI-compatible endpoint

What they have in common: usage in streams, no retries of their own (a failover decides about these), timeouts for
connecting, the first token, between tokens and in all, streams that must come to their end, and HTTP clients that last
longer than a run. They are LangChain's own classes; their packages are the extras `openai` and `anthropic`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any, Final, cast

from langchain_core.language_models import BaseChatModel

from waystation_guards.providers.clients import HttpClients, HttpTimes, http_clients, http_timeout
from waystation_guards.providers.whole_streams import StreamRules, with_whole_streams

_NO_KEY: Final = "none"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a model may take, in seconds. `whole_s` also bounds an answer that is not streamed."""

    connect_s: float = 5.0
    first_token_s: float = 60.0
    between_tokens_s: float = 30.0
    whole_s: float = 600.0

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ValueError(f"timeouts.{one.name} is {value!r}; expected are seconds, more than zero")

    @property
    def longest_silence_s(self) -> float:
        """How long nothing may come in a stream, wherever it is."""
        return max(self.first_token_s, self.between_tokens_s)


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """A model and how to reach it.

    `model`: `<provider>:<name>`; providers are `openai` (and everybody compatible), `azure`, `anthropic`, and those of
    LangChain's `init_chat_model`. `base_url`: the provider's own where it is empty; Azure's endpoint. `api_key_env`:
    the variable that holds the key; the provider's usual one where it is empty, but none with a `base_url`, so that no
    key goes to strangers. `deployment`, `api_version`: Azure's. `stream_usage`: False for the few compatible endpoints
    that refuse `stream_options`. `needs_end`: whether a stream without a finish reason is an error; None for what is
    known of the provider. `params`: anything else that the model's class takes.
    """

    model: str
    base_url: str = ""
    api_key_env: str = ""
    deployment: str = ""
    api_version: str = ""
    stream_usage: bool = True
    needs_end: bool | None = None
    timeouts: Timeouts = Timeouts()
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        provider, colon, name = self.model.partition(":")
        if not (provider and colon and name):
            raise ValueError(f"model is {self.model!r}; expected is <provider>:<name>, such as openai:gpt-5-mini")

    @property
    def provider(self) -> str:
        return _ALIASES.get(found := self.model.partition(":")[0], found)

    @property
    def name(self) -> str:
        return self.model.partition(":")[2]

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> ModelSettings:
        """Settings from JSON values.

        Raises:
            ValueError: a key is unknown or a value is none that is expected; the message names it.
        """
        _check_keys("model", given, cls)
        made = dict(given)
        if "model" not in made:
            raise ValueError("model is missing; expected is <provider>:<name>, such as openai:gpt-5-mini")
        if "timeouts" in made:
            _check_keys("timeouts", made["timeouts"], Timeouts)
            made["timeouts"] = Timeouts(**made["timeouts"])
        for one in ("model", "base_url", "api_key_env", "deployment", "api_version"):
            if not isinstance(made.get(one, ""), str):
                raise ValueError(f"{one} is {made[one]!r}; expected is a string")
        return cls(**made)


def chat_model(given: str | ModelSettings | Mapping[str, Any], **params: Any) -> BaseChatModel:
    """The chat model for a name or settings. `params` are the model class's own and win over those of the settings.

    Raises:
        ValueError: the name or a setting is none, the key's variable is empty, or the provider's package is missing;
            the message says which.
    """
    if isinstance(given, str):
        settings = ModelSettings(given)
    else:
        settings = given if isinstance(given, ModelSettings) else ModelSettings.from_mapping(given)
    make = _MAKERS.get(settings.provider, _other)
    return make(settings, {**settings.params, **params})


def _openai(settings: ModelSettings, params: Mapping[str, Any]) -> BaseChatModel:
    package = _package("langchain_openai", "openai")
    made = package.ChatOpenAI(
        **{
            "model": settings.name,
            **_key(settings),
            **({"base_url": settings.base_url} if settings.base_url else {}),
            **_openai_params(settings),
            **params,
        }
    )
    return _whole(made, settings, "openai")


def _azure(settings: ModelSettings, params: Mapping[str, Any]) -> BaseChatModel:
    package = _package("langchain_openai", "openai")
    made = package.AzureChatOpenAI(
        **{
            "model": settings.name,
            "azure_deployment": settings.deployment or settings.name,
            **_key(settings, without=None),
            **({"azure_endpoint": settings.base_url} if settings.base_url else {}),
            **({"api_version": settings.api_version} if settings.api_version else {}),
            **_openai_params(settings),
            **params,
        }
    )
    return _whole(made, settings, "openai")


def _anthropic(settings: ModelSettings, params: Mapping[str, Any]) -> BaseChatModel:
    package = _package("langchain_anthropic", "anthropic")
    made = package.ChatAnthropic(
        **{
            "model": settings.name,
            **_key(settings),
            **({"base_url": settings.base_url} if settings.base_url else {}),
            "stream_usage": settings.stream_usage,
            "max_retries": 0,
            "timeout": settings.timeouts.whole_s,
            **params,
        }
    )
    _give_clients(made, settings)
    return _whole(made, settings, "anthropic")


def _other(settings: ModelSettings, params: Mapping[str, Any]) -> BaseChatModel:
    """A provider that only LangChain knows: without retries where it has such a setting, and with whole streams."""
    init: Any = _package("langchain.chat_models", "agents").init_chat_model
    given = {**_key(settings, without=None), **({"base_url": settings.base_url} if settings.base_url else {}), **params}
    try:
        made = init(settings.name, model_provider=settings.provider, **given)
    except ImportError as error:
        raise ValueError(f"the package for {settings.provider} is not installed: {error}") from error
    model = cast("BaseChatModel", made)
    known = type(model).model_fields
    unasked = {"max_retries": 0} if "max_retries" in known and "max_retries" not in given else {}
    if unasked:
        model = cast("BaseChatModel", init(settings.name, model_provider=settings.provider, **given, **unasked))
    return with_whole_streams(model, _rules(settings))


_ALIASES: Final = {"azure_openai": "azure"}
_MAKERS: Final[Mapping[str, Callable[[ModelSettings, Mapping[str, Any]], BaseChatModel]]] = {
    "openai": _openai,
    "azure": _azure,
    "anthropic": _anthropic,
}


def _openai_params(settings: ModelSettings) -> dict[str, Any]:
    clients = http_clients("openai", _times(settings))
    return {
        "stream_usage": settings.stream_usage,
        "max_retries": 0,
        "stream_chunk_timeout": None,  # whole streams have a timeout of their own, which also counts the first token
        "timeout": http_timeout("openai", _times(settings)),
        "http_client": clients.blocking,
        "http_async_client": clients.awaited,
    }


def _give_clients(model: Any, settings: ModelSettings) -> None:
    """ChatAnthropic takes no HTTP clients; it makes its own when it first needs them, and keeps them here."""
    package: Any = import_module("anthropic")
    clients: HttpClients = http_clients("anthropic", _times(settings))
    given = {**model._client_params, "timeout": http_timeout("anthropic", _times(settings))}
    model.__dict__["_client"] = package.Anthropic(**given, http_client=clients.blocking)
    model.__dict__["_async_client"] = package.AsyncAnthropic(**given, http_client=clients.awaited)


def _whole(model: BaseChatModel, settings: ModelSettings, sdk: str) -> BaseChatModel:
    silence = HttpTimes(settings.timeouts.connect_s, settings.timeouts.longest_silence_s)
    return with_whole_streams(model, _rules(settings), stream_params={"timeout": http_timeout(sdk, silence)})


def _rules(settings: ModelSettings) -> StreamRules:
    times = settings.timeouts
    return StreamRules(times.first_token_s, times.between_tokens_s, times.whole_s, settings.needs_end)


def _times(settings: ModelSettings) -> HttpTimes:
    return HttpTimes(settings.timeouts.connect_s, settings.timeouts.whole_s)


def _key(settings: ModelSettings, *, without: str | None = _NO_KEY) -> dict[str, str]:
    """`without`: what is sent to an address that no key is named for; None for the provider's usual variable."""
    if settings.api_key_env:
        key = os.environ.get(settings.api_key_env, "")
        if not key:
            raise ValueError(f"api_key_env names {settings.api_key_env}, which is not set")
        return {"api_key": key}
    return {"api_key": without} if settings.base_url and without is not None else {}


def _package(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"{name} is not installed; it comes with the extra: waystation[{extra}]") from error


def _check_keys(where: str, given: Any, kind: type[Any]) -> None:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is {given!r}; expected is an object")
    known = [one.name for one in fields(kind)]
    for name in cast("Mapping[str, Any]", given):
        if name not in known:
            raise ValueError(f"{where}.{name} is unknown; expected is one of {', '.join(known)}")
