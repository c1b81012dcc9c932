"""Which chat model the reference graphs talk to.

`WAYSTATION_MODEL` names it as `provider:name` (`openai:gpt-5-mini`, `ollama:qwen3`); the provider's package has to be
installed and its key set, as LangChain's `init_chat_model` wants it. Without the variable the offline model answers.
"""

import os

from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel

from offline_model import OfflineChatModel

DEFAULT_DELAY_MS = 15.0


def chat_model() -> BaseChatModel:
    """The model that the environment names, or the offline one.

    `WAYSTATION_OFFLINE_DELAY_MS` is the offline model's pause before each word, in milliseconds.

    Raises:
        ValueError: when one of the two variables cannot be understood; the message names it.
    """
    name = os.environ.get("WAYSTATION_MODEL", "").strip()
    if not name:
        return OfflineChatModel(token_delay_s=_delay_ms() / 1000)
    provider, _, model = name.partition(":")
    if not provider or not model:
        raise ValueError(f"WAYSTATION_MODEL is {name!r}; expected provider:name, for example openai:gpt-5-mini")
    return init_chat_model(model, model_provider=provider)


def _delay_ms() -> float:
    value = os.environ.get("WAYSTATION_OFFLINE_DELAY_MS", "").strip()
    try:
        delay_ms = float(value) if value else DEFAULT_DELAY_MS
    except ValueError:
        delay_ms = -1.0
    if not 0 <= delay_ms <= 10_000:
        raise ValueError(f"WAYSTATION_OFFLINE_DELAY_MS is {value!r}; expected milliseconds from 0 to 10000")
    return delay_ms
