"""Limits of requests: what the configuration may say, whose requests count together, and what answers tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from waystation.api.request_limits import classes_of
from waystation.app import operations
from waystation.auth import Principal
from waystation.catalog.keys_http_limits import Allowed, HttpLimitKeys
from waystation.errors import TooManyRequests, Unavailable
from waystation.guarding.http_limit_rules import Asker, Window, asker_of
from waystation.guarding.http_limit_scope import INSIDE, LIMITED
from waystation.guarding.http_limit_windows import windows_in_memory
from waystation.guarding.http_limits import HttpLimits
from waystation_guards.memory.state import MemoryState
from waystation_guards.ports import Drawn, PortUnavailable

pytestmark = pytest.mark.anyio

READS, RUNS = frozenset(("reads",)), frozenset(("writes", "runs"))
STREAMS = frozenset(("reads", "streams"))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Door:
    """Limits over a state in memory, with a clock that is turned by hand."""

    def __init__(self, keys: dict[str, Any], state: MemoryState | None = None) -> None:
        self.clock = Clock()
        self.state = state or MemoryState(self.clock)
        self.limits = HttpLimits(
            HttpLimitKeys.model_validate(keys), state_of=lambda _: self.state, windows=windows_in_memory()
        )

    async def ask(
        self, caller: Principal | None = None, classes: frozenset[str] = READS, *, address: str = "192.0.2.1"
    ) -> dict[str, str]:
        """The headers of an answer. Raises what the request is refused with."""
        scope: dict[str, Any] = {"client": (address, 1)}
        await self.limits.arrive(scope, classes)
        await self.limits.admit(scope, caller, classes)
        return {name.decode(): value.decode() for name, value in scope.get(LIMITED, ())}

    @asynccontextmanager
    async def stream(self, caller: Principal | None = None) -> AsyncGenerator[None]:
        scope: dict[str, Any] = {"client": ("192.0.2.1", 1)}
        try:
            await self.limits.admit(scope, caller, STREAMS)
            yield
        finally:
            await self.limits.leave(scope)


def someone(tenant: str = "a", user: str = "", key: str | None = None, *roles: str) -> Principal:
    permissions = tuple(f"role:{role}" for role in roles)
    return Principal(tenant, user, permissions, None if key is None else {"api_key": key})


def per(what: str, rate: str = "2/hour", **more: Any) -> dict[str, Any]:
    return {"limits": [{"per": what, "rate": rate, **more}]}


class TestConfiguration:
    @pytest.mark.parametrize(
        ("text", "means"),
        [
            ("100/minute", Allowed(100, 60)),
            ("5/10 seconds", Allowed(5, 10)),
            ("1 per day", Allowed(1, 86_400)),
            (" 7 / 2 Hours ", Allowed(7, 7200)),
        ],
    )
    def test_rates_are_amounts_and_times(self, text: str, means: Allowed) -> None:
        assert HttpLimitKeys.model_validate(per("key", text)).limits[0].rate == means

    @pytest.mark.parametrize("text", ["", "fast", "0/minute", "-1/minute", "1/0 seconds", "1.5/minute", "9/year", 7])
    def test_other_rates_stop_the_start(self, text: Any) -> None:
        with pytest.raises(ValidationError, match="should be an amount and a time"):
            HttpLimitKeys.model_validate(per("key", text))

    @pytest.mark.parametrize(
        ("keys", "told"),
        [
            (per("planet"), "per"),
            (per("key", routes=["everything"]), "routes"),
            (per("key", algorithm="sliding_window", burst=1), "a sliding window has none"),
            (per("key", burst=3), "more than the rate's own 2"),
            (per("key", name="a b"), "name"),
            (per("key", speed=1), "speed"),
            ({"limits": [*per("key")["limits"], *per("key")["limits"]]}, "two limits are called key"),
            ({"open_streams": [{"per": "key", "limit": 0}]}, "limit"),
            ({"exempt": {"addresses": ["office"]}}, "addresses"),
        ],
    )
    def test_what_makes_no_sense_stops_the_start(self, keys: dict[str, Any], told: str) -> None:
        with pytest.raises(ValidationError, match=told):
            HttpLimitKeys.model_validate(keys)


class TestClasses:
    def test_every_operation_reads_or_writes_but_those_about_the_server(self) -> None:
        for operation in operations():
            classes = classes_of(operation)
            if "System" in operation.tags:
                assert classes == frozenset(), operation.path
            else:
                assert len(classes & {"reads", "writes"}) == 1, operation.path

    @pytest.mark.parametrize(
        ("method", "path", "classes"),
        [
            ("POST", "/runs", {"writes", "runs"}),
            ("POST", "/runs/batch", {"writes", "runs"}),
            ("POST", "/threads/{thread_id}/runs/stream", {"writes", "runs", "streams"}),
            ("POST", "/runs/wait", {"writes", "runs", "streams"}),
            ("GET", "/threads/{thread_id}/runs/{run_id}/join", {"reads", "streams"}),
            ("GET", "/threads/{thread_id}/stream", {"reads", "streams"}),
            ("POST", "/threads/{thread_id}/stream/events", {"reads", "streams"}),
            ("POST", "/threads/{thread_id}/commands", {"writes", "runs"}),
            ("POST", "/threads/search", {"reads"}),
            ("POST", "/threads/{thread_id}/history", {"reads"}),
            ("DELETE", "/threads/{thread_id}", {"writes"}),
            ("POST", "/runs/crons", {"writes"}),
            ("PUT", "/store/items", {"writes", "store"}),
            ("POST", "/store/items/search", {"reads", "store"}),
            ("POST", "/mcp", {"writes", "runs", "streams"}),
            ("POST", "/v1/chat/completions", {"writes", "runs", "streams"}),
            ("POST", "/a2a/{assistant_id}", {"writes", "runs", "streams"}),
            ("POST", "/webhooks/deliveries/{delivery_id}/replay", {"writes", "admin"}),
            ("POST", "/guards/kill", {"writes", "admin"}),
            ("GET", "/ok", set[str]()),
            ("GET", "/metrics", set[str]()),
        ],
    )
    def test_an_operation_has_the_classes_that_the_documentation_says(
        self, method: str, path: str, classes: set[str]
    ) -> None:
        (found,) = [one for one in operations() if one.path == path and method in (one.methods or ())]
        assert classes_of(found) == classes


class TestWhose:
    async def test_keys_users_and_tenants_are_counted_for_themselves(self) -> None:
        for what, callers in {
            "key": (someone(key="k1"), someone(key="k2")),
            "user": (someone(user="kim"), someone(user="lee")),
            "tenant": (someone("a", "kim"), someone("b", "kim")),
        }.items():
            door = Door(per(what))
            for caller in callers:
                await door.ask(caller)
                await door.ask(caller)
                with pytest.raises(TooManyRequests):
                    await door.ask(caller)

    async def test_the_same_name_in_two_tenants_is_two(self) -> None:
        for what in ("key", "user"):
            door = Door(per(what))
            for tenant in ("a", "b"):
                await door.ask(someone(tenant, "kim", "k"))
                await door.ask(someone(tenant, "kim", "k"))

    async def test_one_tenants_crowd_costs_another_nothing(self) -> None:
        door = Door(per("tenant"))
        await door.ask(someone("a"))
        await door.ask(someone("a"))
        for _ in range(10):
            with pytest.raises(TooManyRequests):
                await door.ask(someone("a"))
        await door.ask(someone("b"))

    async def test_who_shows_nothing_is_counted_by_address(self) -> None:
        for what in ("key", "user", "address"):
            door = Door(per(what))
            await door.ask(address="192.0.2.1")
            await door.ask(address="192.0.2.1")
            with pytest.raises(TooManyRequests):
                await door.ask(address="192.0.2.1")
            await door.ask(address="192.0.2.2")

    async def test_addresses_of_one_ipv6_network_are_one(self) -> None:
        door = Door(per("address"))
        await door.ask(address="2001:db8::1")
        await door.ask(address="2001:db8::2:3")
        with pytest.raises(TooManyRequests):
            await door.ask(address="2001:db8::4")
        await door.ask(address="2001:db8:0:1::4")

    def test_an_ipv4_address_may_come_as_ipv6(self) -> None:
        assert asker_of(("::ffff:192.0.2.7", 1), None).address == "192.0.2.7"

    def test_a_key_that_is_called_like_a_user_is_not_that_user(self) -> None:
        assert Asker("x", key="kim").owner("key") != Asker("x", user="kim").owner("key")

    async def test_named_owners_have_rates_of_their_own(self) -> None:
        door = Door(per("tenant", "1/hour", rates={"gold": "3/hour"}))
        for _ in range(3):
            await door.ask(someone("gold"))
        with pytest.raises(TooManyRequests, match="3 in 3600 s"):
            await door.ask(someone("gold"))
        await door.ask(someone("other"))
        with pytest.raises(TooManyRequests, match="1 in 3600 s"):
            await door.ask(someone("other"))

    @pytest.mark.parametrize(
        "exempt", [{"roles": ["admin"]}, {"tenants": ["a"]}, {"addresses": ["192.0.2.0/24", "2001:db8::/32"]}]
    )
    async def test_the_exempt_are_not_counted(self, exempt: dict[str, Any]) -> None:
        door = Door({**per("tenant"), "exempt": exempt})
        for _ in range(5):
            assert await door.ask(someone("a", "kim", None, "admin")) == {}

    async def test_what_graphs_ask_their_own_process_is_not_counted(self) -> None:
        door = Door(per("tenant", "1/hour"))
        for _ in range(3):
            await door.limits.admit({"client": ("127.0.0.1", 0), INSIDE: True}, someone(), RUNS)


class TestCounting:
    async def test_a_limit_counts_the_routes_of_its_classes_only(self) -> None:
        door = Door(per("tenant", "1/hour", routes=["runs"]))
        await door.ask(classes=READS)
        await door.ask(classes=RUNS)
        await door.ask(classes=READS)
        with pytest.raises(TooManyRequests, match="Too many requests to runs"):
            await door.ask(classes=RUNS)

    @pytest.mark.parametrize("algorithm", ["token_bucket", "sliding_window"])
    async def test_a_request_that_one_limit_refuses_counts_in_none(self, algorithm: str) -> None:
        door = Door(
            {
                "limits": [
                    {"per": "tenant", "rate": "3/hour", "algorithm": algorithm},
                    {"per": "user", "rate": "1/hour"},
                ]
            }
        )
        await door.ask(someone("a", "kim"))
        for _ in range(5):
            with pytest.raises(TooManyRequests, match="for each user"):
                await door.ask(someone("a", "kim"))
        await door.ask(someone("a", "lee"))
        await door.ask(someone("a", "max"))
        with pytest.raises(TooManyRequests, match="for each tenant"):
            await door.ask(someone("a", "sam"))

    async def test_a_burst_is_refilled_at_the_rate(self) -> None:
        door = Door(per("tenant", "60/minute", burst=2))
        await door.ask()
        await door.ask()
        with pytest.raises(TooManyRequests) as refused:
            await door.ask()
        assert refused.value.headers == {"Retry-After": "1"}
        door.clock.now += 1
        await door.ask()
        with pytest.raises(TooManyRequests):
            await door.ask()

    async def test_a_request_that_does_more_counts_as_more(self) -> None:
        door = Door(
            {"limits": [{"per": "tenant", "rate": "5/hour", "routes": ["runs"]}, *per("user", "9/hour")["limits"]]}
        )
        scope: dict[str, Any] = {"client": ("192.0.2.1", 1)}
        await door.limits.admit(scope, None, RUNS)
        await door.limits.charge(scope, None, 3)
        with pytest.raises(TooManyRequests, match="to runs"):
            await door.limits.charge(scope, None, 3)
        await door.ask(classes=RUNS)
        with pytest.raises(TooManyRequests):
            await door.ask(classes=RUNS)

    async def test_parallel_requests_never_pass_a_window(self) -> None:
        door = Door(per("tenant", "10/hour", algorithm="sliding_window"))
        outcomes = await asyncio.gather(*(door.ask() for _ in range(40)), return_exceptions=True)
        assert sum(isinstance(one, dict) for one in outcomes) == 10
        assert all(isinstance(one, dict | TooManyRequests) for one in outcomes)


class TestHeaders:
    async def test_answers_tell_all_limits_and_the_closest_one(self) -> None:
        door = Door({"limits": [*per("user", "10/minute")["limits"], *per("tenant", "3/hour")["limits"]]})
        assert await door.ask() == {
            "ratelimit-policy": '"user";q=10;w=60, "tenant";q=3;w=3600',
            "ratelimit": '"user";r=9;t=6, "tenant";r=2;t=1200',
            "ratelimit-limit": "3",
            "ratelimit-remaining": "2",
            "ratelimit-reset": "1200",
        }

    async def test_limits_by_address_are_told_beside_the_others(self) -> None:
        door = Door({"limits": [*per("address", "10/minute")["limits"], *per("tenant", "3/hour")["limits"]]})
        assert (await door.ask())["ratelimit-policy"] == '"address";q=10;w=60, "tenant";q=3;w=3600'

    async def test_a_refusal_tells_how_long_to_wait(self) -> None:
        door = Door(per("tenant", "1/minute"))
        await door.ask()
        door.clock.now += 20
        scope: dict[str, Any] = {"client": ("192.0.2.1", 1)}
        with pytest.raises(TooManyRequests, match="try again in 40 s") as refused:
            await door.limits.admit(scope, None, READS)
        assert refused.value.headers["Retry-After"] == "40"
        headers = dict(scope[LIMITED])
        assert headers[b"ratelimit-remaining"] == b"0"
        assert headers[b"ratelimit-reset"] == b"40"

    async def test_a_window_tells_what_is_left_of_it(self) -> None:
        door = Door(per("tenant", "3/hour", algorithm="sliding_window"))
        left = [(await door.ask())["ratelimit-remaining"] for _ in range(3)]
        assert left == ["2", "1", "0"]

    async def test_they_can_be_left_out(self) -> None:
        assert await Door({**per("tenant"), "headers": False}).ask() == {}

    @pytest.mark.parametrize("seconds", [1, 60, 3600])
    async def test_who_waits_as_long_as_told_is_let_through_by_a_window(
        self, seconds: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [1_000_000.0]
        monkeypatch.setattr("time.time", lambda: now[0])
        windows, window = windows_in_memory(), Window("w", 7, seconds)
        passed = 0
        for _ in range(200):
            level = await windows.level(window)
            if level.wait_s == 0:
                assert await windows.take(window)
                passed += 1
            else:
                assert not await windows.take(window)
                assert level.wait_s <= 2 * seconds
                now[0] += level.wait_s * 0.98
                assert not await windows.take(window)
                now[0] += level.wait_s * 0.02 + 0.002
                assert (await windows.level(window)).wait_s == 0
        assert passed > 90


class TestOpenStreams:
    async def test_no_more_are_open_than_allowed_and_a_closed_one_makes_room(self) -> None:
        door = Door({"open_streams": [{"per": "key", "limit": 2}]})
        caller = someone(key="k")
        async with door.stream(caller):
            async with door.stream(caller):
                with pytest.raises(TooManyRequests, match="this key may have 2 at a time"):
                    async with door.stream(caller):
                        pass
                async with door.stream(someone(key="other")):
                    pass
            async with door.stream(caller):
                pass

    async def test_who_is_refused_a_second_place_gives_back_the_first(self) -> None:
        door = Door({"open_streams": [{"per": "tenant", "limit": 2}, {"per": "user", "limit": 1}]})
        async with door.stream(someone("a", "kim")):
            for _ in range(3):
                with pytest.raises(TooManyRequests, match="this user"):
                    async with door.stream(someone("a", "kim")):
                        pass
            async with door.stream(someone("a", "lee")):
                pass

    async def test_other_requests_take_no_place(self) -> None:
        door = Door({"open_streams": [{"per": "tenant", "limit": 1}]})
        async with door.stream():
            await door.ask(classes=READS)


class AwayState(MemoryState):
    async def draw(self, draws: Any, *, patience_s: float = 0.0) -> Drawn:
        raise PortUnavailable("away")

    async def enter(self, name: str, *, limit: int, holder: str, ttl_s: float) -> bool:
        raise PortUnavailable("away")

    async def leave(self, name: str, *, holder: str) -> None:
        raise PortUnavailable("away")


class TestAway:
    KEYS: ClassVar[dict[str, Any]] = {**per("tenant"), "open_streams": [{"per": "tenant", "limit": 1}]}

    async def test_failing_open_lets_requests_through_uncounted(self) -> None:
        door = Door(self.KEYS, AwayState())
        for _ in range(5):
            assert await door.ask() == {}
        async with door.stream():
            pass

    async def test_failing_closed_answers_that_it_cannot_count(self) -> None:
        door = Door({**self.KEYS, "fail": "closed"}, AwayState())
        with pytest.raises(Unavailable) as refused:
            await door.ask()
        assert refused.value.headers == {"Retry-After": "2"}
