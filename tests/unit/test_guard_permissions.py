"""Permissions: what rules say about calls, and what becomes of calls in agents, tool nodes and graphs nobody edited."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waystation_guards.permissions.arguments import ArgumentRule, Holds, has_host, is_below
from waystation_guards.permissions.permissions import Permissions, ToolRule, permissions_of


def effect(permissions: Permissions, tool: str, *roles: str, **arguments: Any) -> str:
    return permissions.judge(tool, arguments, roles=roles).effect


def test_what_no_rule_names_is_as_the_default_says() -> None:
    assert effect(Permissions(), "search") == "deny"
    assert effect(Permissions(default="allow"), "search") == "allow"


def test_roles_decide() -> None:
    permissions = Permissions(ToolRule(("drop_*",), roles=("admin",)), ToolRule(("search",)))
    assert effect(permissions, "drop_table", "role:admin") == "allow"
    assert effect(permissions, "drop_table", "admin") == "allow"
    assert effect(permissions, "drop_table", "role:user") == "deny"
    assert effect(permissions, "search") == "allow"
    assert permissions.judge("drop_table", {}).reason == "drop_table is not allowed for your role"


def test_a_tool_that_is_allowed_to_some_is_refused_to_others_also_where_all_is_allowed_by_default() -> None:
    permissions = Permissions(ToolRule(("refund",), roles=("service",)), default="allow")
    assert effect(permissions, "refund", "role:user") == "deny"
    assert effect(permissions, "search", "role:user") == "allow"


def test_arguments_decide_and_the_reason_names_them() -> None:
    permissions = Permissions(ToolRule(("refund",), arguments=(ArgumentRule("amount", maximum=100),)))
    assert effect(permissions, "refund", amount=100) == "allow"
    assert permissions.judge("refund", {"amount": 101}).reason == "refund is allowed only with amount: at most 100"
    assert effect(permissions, "refund") == "deny"


def test_deny_wins_over_approve_and_approve_over_allow() -> None:
    permissions = Permissions(
        ToolRule(("refund",)),
        ToolRule(("refund",), "approve", arguments=(ArgumentRule("amount", minimum=100),)),
        ToolRule(("refund",), "deny", arguments=(ArgumentRule("amount", minimum=1000),), reason="too much"),
    )
    assert [effect(permissions, "refund", amount=amount) for amount in (99, 100, 1000)] == ["allow", "approve", "deny"]


@pytest.mark.parametrize("odd", [None, True, "a lot", [200], {"value": 1}, float("nan")])
def test_what_cannot_be_judged_counts_against_the_call(odd: Any) -> None:
    amount = (ArgumentRule("amount", maximum=100),)
    assert effect(Permissions(ToolRule(("refund",), arguments=amount)), "refund", amount=odd) == "deny"
    denied = Permissions(
        ToolRule(("refund",), "deny", arguments=(ArgumentRule("amount", minimum=100),)), default="allow"
    )
    assert effect(denied, "refund", amount=odd) == "deny"


def test_a_number_in_a_text_is_the_number_that_a_tool_will_make_of_it() -> None:
    permissions = Permissions(ToolRule(("refund",), arguments=(ArgumentRule("amount", maximum=100),)))
    assert effect(permissions, "refund", amount="100") == "allow"
    assert effect(permissions, "refund", amount="1e3") == "deny"


def test_a_word_that_a_tool_may_read_as_true_does_not_get_round_a_rule() -> None:
    permissions = Permissions(
        ToolRule(("rm",), "deny", arguments=(ArgumentRule("force", equals=True),)), default="allow"
    )
    assert [effect(permissions, "rm", force=one) for one in (True, "true", 1, "yes")] == ["deny"] * 4
    assert effect(permissions, "rm", force=False) == "allow"
    assert effect(permissions, "rm") == "allow"


def test_a_path_leads_into_objects_lists_and_every_element() -> None:
    each = ArgumentRule("order.items.*.price", maximum=10)
    cheap, dear = {"items": [{"price": 1}, {"price": 2}]}, {"items": [{"price": 1}, {"price": 20}]}
    assert each.all_hold({"order": cheap}) is Holds.YES
    assert each.all_hold({"order": dear}) is Holds.NO
    assert ArgumentRule("order.items.*.price", minimum=11).any_holds({"order": dear}) is Holds.YES
    assert ArgumentRule("order.items.1.price", equals=20).all_hold({"order": dear}) is Holds.YES
    assert ArgumentRule("a\\.b", equals=1).all_hold({"a.b": 1}) is Holds.YES
    assert each.all_hold({"order": {"items": []}}) is Holds.YES
    assert each.all_hold({"order": {}}) is Holds.NO
    assert ArgumentRule("note", max_length=3, optional=True).all_hold({}) is Holds.YES


@pytest.mark.parametrize(
    ("path", "holds"),
    [
        ("/data/a.txt", Holds.YES),
        ("/data", Holds.YES),
        ("/data/../etc/passwd", Holds.NO),
        ("/database/a", Holds.NO),
        ("//data//a", Holds.YES),
        ("/data/./b/../a", Holds.YES),
        ("data/a", Holds.UNKNOWN),
        ("~/a", Holds.UNKNOWN),
        ("/data/%2e%2e/etc", Holds.UNKNOWN),
        ("/data/..\\etc", Holds.UNKNOWN),
        ("/data/a\x00.txt", Holds.UNKNOWN),
        (7, Holds.UNKNOWN),
    ],
)
def test_a_path_stays_in_its_folder(path: Any, holds: Holds) -> None:
    assert is_below(path, "/data") is holds


@pytest.mark.parametrize(
    ("url", "holds"),
    [
        ("https://api.example.com/x?y=@z", Holds.YES),
        ("http://API.EXAMPLE.COM.:8080", Holds.YES),
        ("https://a.b.example.org/", Holds.YES),
        ("https://example.org/", Holds.NO),
        ("https://api.example.com.evil.net/", Holds.NO),
        ("https://api.example.com@evil.net/", Holds.UNKNOWN),
        ("https://evil.net\\@api.example.com/", Holds.UNKNOWN),
        ("https://api.example.com\t.evil.net", Holds.UNKNOWN),
        ("file:///etc/passwd", Holds.NO),
        ("https://api.example.com:port/", Holds.UNKNOWN),
    ],
)
def test_a_url_is_of_an_allowed_host(url: str, holds: Holds) -> None:
    assert has_host(url, ("api.example.com", "*.example.org")) is holds


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
RULES: Any = st.one_of(
    st.builds(ArgumentRule, st.just("x"), equals=JSON),
    st.lists(JSON, min_size=1, max_size=3).map(lambda values: ArgumentRule("x", one_of=tuple(values))),
    st.floats(allow_nan=False).map(lambda value: ArgumentRule("x", minimum=value)),
    st.floats(allow_nan=False).map(lambda value: ArgumentRule("x", maximum=value)),
    st.text(max_size=5).map(lambda value: ArgumentRule("x", prefix=value)),
    st.text(max_size=5).map(lambda value: ArgumentRule("x", matches=re.escape(value) + ".*")),
    st.integers(0, 10).map(lambda value: ArgumentRule("x", max_length=value)),
    st.sampled_from(["/a", "a", "."]).map(lambda value: ArgumentRule("x", below=value)),
    st.just(ArgumentRule("x", hosts=("example.com",))),
)


@given(rule=RULES, value=JSON, path=st.sampled_from(["x", "x.*", "x.0", "x.a.b"]))
def test_no_value_is_both_allowed_and_passed_by_the_same_denial(rule: ArgumentRule, value: Any, path: str) -> None:
    members = {name: getattr(rule, name) for name in ArgumentRule.__slots__ if not name.startswith("_")}
    rule = ArgumentRule(**cast("Any", {**members, "path": path}))
    arguments = {"x": value}
    allow, deny = ToolRule(("t",), arguments=(rule,)), ToolRule(("t",), "deny", arguments=(rule,))
    if allow.covers(arguments) and rule.any_holds(arguments) is not Holds.NO:
        assert deny.covers(arguments)
    judged = Permissions(allow, deny).judge("t", arguments)
    assert judged.effect == "deny" or not deny.covers(arguments)


@given(amount=st.integers(), limit=st.integers(-1000, 1000))
def test_a_range_is_what_arithmetic_says(amount: int, limit: int) -> None:
    rule = ArgumentRule("amount", maximum=limit)
    assert (rule.all_hold({"amount": amount}) is Holds.YES) == (amount <= limit)


@given(parts=st.lists(st.sampled_from(["..", ".", "a", "b", "", "data"]), max_size=8))
def test_no_path_that_leaves_its_folder_is_let_through(parts: list[str]) -> None:
    depth, lowest = 0, 0
    for part in parts:
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        lowest = min(lowest, depth)
    if lowest == 0:
        assert is_below("/srv/data/" + "/".join(parts), "/srv/data") is Holds.YES
    elif "data" not in parts:
        assert is_below("/srv/data/" + "/".join(parts), "/srv/data") is Holds.NO


def test_tools_that_may_never_be_called_are_not_shown() -> None:
    permissions = Permissions(
        ToolRule(("refund",), roles=("service",), arguments=(ArgumentRule("amount", maximum=5),)),
        ToolRule(("wire",), "approve"),
        ToolRule(("drop",), "deny"),
    )
    assert [permissions.shows(name, roles=("service",)) for name in ("refund", "wire", "drop", "other")] == [
        *(True, True, False, False)
    ]
    assert not permissions.shows("refund", roles=("user",))
    assert Permissions(default="allow").shows("other")


def test_permissions_come_from_json() -> None:
    permissions = permissions_of(
        {
            "default": "allow",
            "rules": [
                {
                    "tools": ["refund"],
                    "effect": "approve",
                    "roles": ["service"],
                    "arguments": {"amount": {"minimum": 5}},
                },
                {"tools": ["drop_*"], "effect": "deny", "reason": "never"},
            ],
        }
    )
    assert permissions.judge("drop_x", {}).reason == "never"
    assert effect(permissions, "refund", "service", amount=6) == "approve"
    assert effect(permissions, "refund", "service", amount=4) == "allow"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"defaults": "deny"}, "permissions has 'defaults'"),
    ({"default": "maybe"}, "default of permissions is 'maybe'"),
    ({"rules": {}}, "rules of permissions is {}"),
    ({"rules": [{}]}, "rules.0: tools of a tool rule is empty"),
    ({"rules": [{"tools": "refund"}]}, "rules.0: tools of a tool rule is 'refund'; expected is a list"),
    ({"rules": [{"tools": ["a"], "role": ["b"]}]}, "rules.0 has 'role'"),
    ({"rules": [{"tools": ["a"], "effect": "ask"}]}, "rules.0: effect of a tool rule is 'ask'"),
    ({"rules": [{"tools": ["a"], "arguments": {"x": {"regex": "b"}}}]}, "rules.0: .*regex"),
    ({"rules": [{"tools": ["a"], "arguments": {"x": {"matches": "("}}}]}, "no regular expression"),
    ({"rules": [{"tools": ["a"], "arguments": {"x": {}}}]}, "asks for nothing"),
    ({"rules": [{"tools": ["a"], "arguments": {"x": {"minimum": "1"}}}]}, "minimum of 'x' is '1'"),
    ({"rules": [{"tools": ["a"], "arguments": ["x"]}]}, "rules.0.arguments is"),
    ({"rules": ["a"]}, "rules.0 is 'a'"),
]


@pytest.mark.parametrize(("wrong", "says"), WRONG)
def test_wrong_json_says_where(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        permissions_of(wrong)
