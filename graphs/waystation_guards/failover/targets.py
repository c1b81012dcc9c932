"""Where a failover may send a call: a chat model, and the provider, model, region and deployment that it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from waystation_guards.failover.policy import Patience


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One target. `name` is that of its breaker, shared with all targets of that name; made of the rest if empty.

    `patience`: where it differs from the policy's. `prefill`: the model goes on with an assistant message whose
    beginning it is given. `runnable`: the model with what is bound to it.
    """

    model: BaseChatModel
    name: str = ""
    provider: str = ""
    region: str = ""
    deployment: str = ""
    patience: Patience | None = None
    prefill: bool = False
    runnable: Runnable[Any, Any] = field(default=cast("Runnable[Any, Any]", None), repr=False, compare=False)

    def __post_init__(self) -> None:
        params = cast("Any", self.model)._get_ls_params()
        provider = self.provider or str(params.get("ls_provider") or "")
        model = str(params.get("ls_model_name") or type(self.model).__name__)
        where = f"@{self.region}" if self.region else ""
        which = f"#{self.deployment}" if self.deployment else ""
        object.__setattr__(self, "provider", provider)
        object.__setattr__(self, "name", self.name or f"{provider}/{model}{where}{which}")
        if cast("Any", self.runnable) is None:
            object.__setattr__(self, "runnable", self.model)

    def with_tools(self, tools: Sequence[Any], **params: Any) -> Target:
        """The target with tools bound to it, in its provider's form."""
        return replace(self, runnable=self.model.bind_tools(tools, **params))


Named = Target | BaseChatModel | str | Mapping[str, Any]

_OWN: Final = ("name", "region", "prefill")


def target_of(given: Named) -> Target:
    """A target from a chat model, a provider's name (`openai:gpt-5-mini`), or JSON values: those of
    `providers.ModelSettings`, and `name`, `region` and `prefill` as here.

    Raises:
        ValueError: a name or setting is none, or the provider's package is not installed; the message says which.
    """
    if isinstance(given, Target):
        return given
    if isinstance(given, BaseChatModel):
        return Target(given)
    if not isinstance(cast("Any", given), (str, Mapping)):
        raise ValueError(
            f"a target is a {type(given).__name__}; expected is a chat model, its name, settings, or a Target"
        )
    from waystation_guards.providers.models import chat_model  # loads no provider's package, but takes its time

    if isinstance(given, str):
        return Target(chat_model(given))
    own = {name: given[name] for name in _OWN if name in given}
    settings = {name: value for name, value in given.items() if name not in _OWN}
    return Target(chat_model(settings), deployment=str(given.get("deployment") or ""), **own)
