"""The project's `langgraph_sdk.Auth` object: its handlers, run where user code runs, and what they say in our terms.

Handlers are the project's code and not the client's: what they raise without saying a status keeps the caller out and
is logged, for the operator to mend.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar, cast

from langgraph_sdk import Auth
from langgraph_sdk.auth.types import AuthContext, BaseUser, StudioUser
from starlette.exceptions import HTTPException as StarletteHTTPException

from waystation.auth.arrival import PARAMETERS, Arrival
from waystation.auth.filters import UnusableFilter, compile_filter
from waystation.auth.principal import ANYTHING, Principal, Resource
from waystation.auth.user import User, user_from
from waystation.errors import ConfigError, Forbidden, Refused, Unauthorized, Unavailable, WaystationError

T = TypeVar("T")

DEADLINE_S = 30.0
"""How long a handler may take; then the client is told to come back."""

log = logging.getLogger(__name__)


class RunThere(Protocol):
    """Runs something on the loop where user code runs, and brings back the result."""

    async def __call__(self, work: Callable[[], Awaitable[T]], /) -> T: ...


class Handlers:
    """What an `Auth` object decides. Called from the API's loop."""

    def __init__(self, auth: Auth, run_there: RunThere, *, deny_by_default: bool = False) -> None:
        self._run_there = run_there
        self._deny_by_default = deny_by_default
        # The SDK has no public way to what was registered.
        self._authenticate = cast("Callable[..., Any] | None", auth._authenticate_handler)  # pyright: ignore[reportPrivateUsage]
        self._by_name = cast("dict[tuple[str, str], list[Callable[..., Any]]]", auth._handlers)  # pyright: ignore[reportPrivateUsage]
        self._for_all = cast("list[Callable[..., Any]]", auth._global_handlers)  # pyright: ignore[reportPrivateUsage]
        self._names = frozenset[str]() if self._authenticate is None else _names(self._authenticate)

    @property
    def authenticates(self) -> bool:
        """Whether there is an `authenticate` handler."""
        return self._authenticate is not None

    @property
    def has_rules(self) -> bool:
        """Whether anything is asked before something is done."""
        return bool(self._by_name or self._for_all) or self._deny_by_default

    async def authenticate(self, arrival: Arrival) -> User:
        """Who it is.

        Raises:
            Refused: with the status that the handler chose.
            Unauthorized: the handler failed, or what it returned has no identity.
        """
        if "body" in self._names:
            await arrival.read_ahead()
        handler = cast("Callable[..., Any]", self._authenticate)

        async def ask() -> User:
            with _Boundary("authenticate", Unauthorized("Authentication failed")):
                return user_from(await _called(handler, arrival.arguments(self._names)))

        return await self._ask(ask)

    async def check(self, caller: Principal, resource: Resource, action: str, value: dict[str, Any]) -> str:
        """As `Rules.check`; the most specific handler is asked."""
        handler = self._handler_for(resource, action)
        if handler is None:
            if self._deny_by_default:
                raise Forbidden("Forbidden")
            return ANYTHING

        async def ask() -> str:
            with _Boundary(f"on {resource}.{action}", Forbidden("Forbidden")):
                context = AuthContext(
                    permissions=caller.permissions,
                    user=_seen(caller),
                    resource=cast(Any, resource),
                    action=cast(Any, action),
                )
                return _narrowing(await _called(handler, {"ctx": context, "value": value}))

        return await self._ask(ask)

    def _handler_for(self, resource: str, action: str) -> Callable[..., Any] | None:
        for name in ((resource, action), (resource, "*"), ("*", action)):
            if found := self._by_name.get(name):
                return found[-1]
        return self._for_all[-1] if self._for_all else None

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self._run_there(ask)
        except TimeoutError:
            raise Unavailable(
                f"The project's auth did not answer within {DEADLINE_S:g} s", headers={"Retry-After": "5"}
            ) from None


class _Boundary:
    """Around user code: what it raises becomes an error of ours. `otherwise` is for what says no status."""

    def __init__(self, what: str, otherwise: WaystationError) -> None:
        self._what = what
        self._otherwise = otherwise

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        match error:
            case None | WaystationError() | asyncio.CancelledError():
                return
            case Auth.exceptions.HTTPException() | StarletteHTTPException():
                raise refused(error) from None
            case AssertionError() if isinstance(self._otherwise, Forbidden):
                # How many projects say it: `assert ctx.user.identity in value["namespace"], "not yours"`.
                raise Forbidden(str(error) or "Forbidden") from None
            case UnusableFilter():
                log.error("A filter of the project's auth cannot be used: %s", error, extra={"handler": self._what})
            case _:  # user code, which must not end this loop either
                log.error("A handler of the project's auth failed", exc_info=error, extra={"handler": self._what})
        raise self._otherwise from None


def refused(error: Any) -> Refused:
    """What an `HTTPException` of the project says, as far as HTTP takes it."""
    status: int = error.status_code if 400 <= error.status_code <= 599 else 403
    given: Mapping[str, str] = error.headers or {}
    headers = {str(k): str(v) for k, v in given.items() if _is_header(str(k), str(v))}
    return Refused(status, str(error.detail), headers=headers)


def _is_header(name: str, value: str) -> bool:
    plain = name.isascii() and value.isascii() and (name + value).isprintable()
    return plain and name.lower() not in ("content-type", "content-length", "transfer-encoding")


async def _called(handler: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    if inspect.iscoroutinefunction(handler):
        return await handler(**arguments)
    made = await asyncio.to_thread(lambda: handler(**arguments))
    return await made if inspect.isawaitable(made) else made


def _names(handler: Callable[..., Any]) -> frozenset[str]:
    parameters = inspect.signature(handler).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return frozenset(PARAMETERS)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    unknown = [name for name in needed if name not in PARAMETERS]
    if unknown:
        raise ConfigError(
            f"auth.path: the authenticate handler asks for {unknown[0]!r}: expected some of {', '.join(PARAMETERS)}"
        )
    return frozenset(p.name for p in parameters if p.name in PARAMETERS)


def _seen(caller: Principal) -> BaseUser:
    if caller.is_studio:
        return cast(BaseUser, StudioUser(caller.identity, is_authenticated=True))
    return cast(BaseUser, caller.seen or User(caller.user or {"identity": caller.identity}))


def _narrowing(answer: object) -> str:
    match answer:
        case None | True:
            return ANYTHING
        case False:
            raise Forbidden("Forbidden")
        case Mapping():
            return compile_filter(cast("Mapping[str, Any]", answer))
        case _:
            raise UnusableFilter(f"expected None, a truth value or an object, got a {type(answer).__name__}")
