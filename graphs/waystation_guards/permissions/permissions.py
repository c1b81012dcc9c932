"""Tool permissions: which roles may call which tools with which arguments, and which calls a person has to approve.

    permissions = Permissions(
        ToolRule(("search_*",)),
        ToolRule(("refund",), roles=("service",), arguments=(ArgumentRule("amount", maximum=1000),)),
        ToolRule(("refund",), "approve", roles=("service",), arguments=(ArgumentRule("amount", minimum=100),)),
    )
    await graph.ainvoke(input, watched(config, [ToolGuard(permissions)]))

    a `deny` rule covers the call  ─▶ refused
    an `approve` rule covers it    ─▶ a person is asked
    an `allow` rule covers it      ─▶ made
    some `allow` rule names the tool, for whomever ─▶ refused; no rule does ─▶ as `default` says

Of middleware (`middleware/permissions.py`) and tool nodes (`permissions_node.py`) the core is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, cast, get_args

from waystation_guards.audit.audit import AuditEntry, audit
from waystation_guards.calls import CallSite
from waystation_guards.errors import NotPermitted
from waystation_guards.permissions.arguments import ArgumentRule, Holds
from waystation_guards.permissions.asking import approved
from waystation_guards.watching.watcher import Made, ModelCall, ToolCall

Effect = Literal["allow", "deny", "approve"]
Decision = Literal["approve", "edit", "reject", "respond"]

_WHY: Final = {
    "deny": "{} is not allowed like this",
    "approve": "{} needs approval",
    "allow": "",
    "default": "{} is not among the tools that are allowed",
}


@dataclass(frozen=True, slots=True)
class ToolRule:
    """What holds for some tools.

    `tools`: names, `*` for any part of one. `roles`: whom it is about; empty for everybody. `arguments`: what the
    call's arguments have to be for the rule to cover it. A call whose arguments cannot be judged is covered by `deny`
    and `approve` and not by `allow`. `decisions`: what may be answered where somebody is asked.
    """

    tools: tuple[str, ...]
    effect: Effect = "allow"
    roles: tuple[str, ...] = ()
    arguments: tuple[ArgumentRule, ...] = ()
    reason: str = ""
    decisions: tuple[Decision, ...] = ("approve", "edit", "reject")

    def __post_init__(self) -> None:
        for name in ("tools", "roles", "arguments", "decisions"):
            given = getattr(self, name)
            if isinstance(given, str):
                raise ValueError(f"{name} of a tool rule is {given!r}; expected is a list")
            object.__setattr__(self, name, tuple(given))
        if not self.tools:
            raise ValueError("tools of a tool rule is empty; expected are names of tools")
        if self.effect not in get_args(Effect):
            raise ValueError(f"effect of a tool rule is {self.effect!r}; expected is allow, deny or approve")
        if not self.decisions or not set(self.decisions) <= set(get_args(Decision)):
            raise ValueError(f"decisions of a tool rule are {self.decisions!r}; expected are approve, edit, reject")

    def names(self, tool: str) -> bool:
        """Whether the rule is about this tool."""
        return any(fnmatchcase(tool, pattern) for pattern in self.tools)

    def is_for(self, roles: Sequence[str]) -> bool:
        """Whether the rule is about a caller with these roles."""
        return not self.roles or any(role in roles or f"role:{role}" in roles for role in self.roles)

    def covers(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the arguments are what the rule is about."""
        if self.effect == "allow":
            return all(rule.all_hold(arguments) is Holds.YES for rule in self.arguments)
        return all(rule.any_holds(arguments) is not Holds.NO for rule in self.arguments)

    def failing(self, arguments: Mapping[str, Any]) -> ArgumentRule | None:
        """The first argument for which an `allow` rule does not cover the call."""
        return next((rule for rule in self.arguments if rule.all_hold(arguments) is not Holds.YES), None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done with a call, and why. `reason` may be shown to the model and to the user."""

    effect: Effect
    reason: str = ""
    decisions: tuple[Decision, ...] = ("approve", "edit", "reject")


@dataclass(frozen=True, slots=True, init=False)
class Permissions:
    """Rules for all tools of a program. `default` is for tools that no `allow` rule names."""

    rules: tuple[ToolRule, ...]
    default: Literal["deny", "allow"] = "deny"
    _by_tool: dict[str, tuple[ToolRule, ...]] = field(
        default_factory=dict[str, tuple[ToolRule, ...]], repr=False, compare=False
    )

    def __init__(self, *rules: ToolRule, default: Literal["deny", "allow"] = "deny") -> None:
        if default not in ("deny", "allow"):
            raise ValueError(f"default of permissions is {default!r}; expected is deny or allow")
        object.__setattr__(self, "rules", rules)
        object.__setattr__(self, "default", default)
        object.__setattr__(self, "_by_tool", {})

    def judge(self, tool: str, arguments: Mapping[str, Any], *, roles: Sequence[str] = ()) -> Verdict:
        """What is to be done with a call of a tool by a caller with these roles."""
        about = self._about(tool)
        covering = [rule for rule in about if rule.is_for(roles) and rule.covers(arguments)]
        for effect in ("deny", "approve", "allow"):
            rule = next((rule for rule in covering if rule.effect == effect), None)
            if rule is not None:
                return Verdict(effect, rule.reason or _WHY[effect].format(tool), rule.decisions)
        allowing = [rule for rule in about if rule.effect == "allow"]
        if allowing:
            return Verdict("deny", _why_not(tool, [rule for rule in allowing if rule.is_for(roles)], arguments))
        return Verdict(self.default, _WHY["default"].format(tool))

    def shows(self, tool: str, *, roles: Sequence[str] = ()) -> bool:
        """Whether a caller with these roles may call the tool with any arguments at all."""
        about = self._about(tool)
        mine = [rule for rule in about if rule.is_for(roles)]
        if any(rule.effect == "deny" and not rule.arguments for rule in mine):
            return False
        if any(rule.effect != "deny" for rule in mine):
            return True
        return self.default == "allow" and not any(rule.effect == "allow" for rule in about)

    def _about(self, tool: str) -> tuple[ToolRule, ...]:
        """The rules that name a tool. Models make names up, so that only so many are remembered."""
        found = self._by_tool.get(tool)
        if found is None:
            found = tuple(rule for rule in self.rules if rule.names(tool))
            if len(self._by_tool) < 1000:
                self._by_tool[tool] = found
        return found


def permissions_of(given: Mapping[str, Any]) -> Permissions:
    """Permissions from plain JSON values.

    `{"default": "deny", "rules": [{"tools": ["refund"], "roles": ["service"], "effect": "approve", "reason": "…",
    "arguments": {"amount": {"minimum": 100}}}]}`

    Raises:
        ValueError: a member is wrong; the message names it.
    """
    _only(given, {"default", "rules"}, "permissions")
    rules: Any = given.get("rules", [])
    if not isinstance(rules, (list, tuple)):
        raise ValueError(f"rules of permissions is {rules!r}; expected is a list")
    made = [_rule_of(rule, f"rules.{number}") for number, rule in enumerate(cast("Sequence[Any]", rules))]
    return Permissions(*made, default=given.get("default", "deny"))


def _rule_of(given: Any, where: str) -> ToolRule:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is {given!r}; expected is an object")
    rule = dict(cast("Mapping[str, Any]", given))
    _only(rule, {"tools", "effect", "roles", "arguments", "reason", "decisions"}, where)
    arguments: Any = rule.pop("arguments", None) or {}
    if not isinstance(arguments, Mapping):
        raise ValueError(f"{where}.arguments is {arguments!r}; expected is an object of paths")
    try:
        made = [
            ArgumentRule(path, **conditions)
            for path, conditions in cast("Mapping[str, dict[str, Any]]", arguments).items()
        ]
        members: dict[str, Any] = {**rule, "tools": rule.get("tools") or (), "arguments": tuple(made)}
        return ToolRule(**members)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {str(error).removeprefix('ArgumentRule.__init__() ')}") from None


def _only(given: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(set(given) - known):
        raise ValueError(f"{where} has {unknown[0]!r}; expected are {', '.join(sorted(known))}")


class ToolGuard:
    """The guard (`watching.Guard`) of permissions: for graphs that nobody edited, through callbacks.

    A call that needs approval becomes an interrupt where the graph has a checkpointer, else it is refused. Arguments
    cannot be changed from here, so that what may be answered is approve and reject.
    """

    def __init__(self, permissions: Permissions, *, asks: bool = True) -> None:
        """`asks`: False refuses what needs approval instead of asking."""
        self.permissions = permissions
        self._asks = asks

    async def before_model(self, call: ModelCall) -> None:
        """Nothing: what a model is shown cannot be changed from here."""

    async def after_model(self, call: ModelCall, made: Made) -> None: ...

    async def before_tool(self, call: ToolCall) -> None:
        """Let a call through, ask for it, or refuse it.

        Raises:
            NotPermitted: it is not allowed, was rejected, or needs approval and nobody can be asked.
            GraphInterrupt: it waits for an answer; LangGraph's own.
        """
        verdict = self.permissions.judge(call.name, call.arguments, roles=call.site.roles)
        if verdict.effect == "allow":
            return
        if verdict.effect == "approve" and self._asks:
            answer = await approved(call.name, call.arguments, reason=verdict.reason)
            outcome = "approved" if answer is None else "rejected"
            await audit(call.ports, entry_of(call.site, f"tool.{outcome}", call.name, call.arguments, reason=answer))
            if answer is None:
                return
            raise NotPermitted(f"{call.name} was rejected{f': {answer}' if answer else ''}")
        raise NotPermitted(f"{call.name} was refused: {verdict.reason}")

    async def after_tool(self, call: ToolCall, made: Made) -> None: ...


def entry_of(
    site: CallSite, action: str, tool: str, arguments: Mapping[str, Any], *, reason: str | None = None
) -> AuditEntry:
    """What is written to the audit log about a tool call."""
    outcome = "refused" if action in ("tool.refused", "tool.rejected") else "allowed"
    detail = {"reason": reason} if reason else {}
    return AuditEntry.at(site, action, outcome=outcome, tool=tool, arguments=arguments, detail=detail)


def _why_not(tool: str, allowing: Sequence[ToolRule], arguments: Mapping[str, Any]) -> str:
    for rule in allowing:
        if (failing := rule.failing(arguments)) is not None:
            return rule.reason or f"{tool} is allowed only with {failing.text}"
    return f"{tool} is not allowed for your role"
