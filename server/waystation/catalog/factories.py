"""Graph factories: what a user's function asks for, and how to get a graph out of what it returns.

A factory may take nothing, the config, a `ServerRuntime`, or both by annotation; be sync or async; and return a graph,
a builder, or a context manager of either kind that is left when the run or the request is over. Sync code of the user
runs in a thread, so that it neither holds up the other runs of the process nor is forbidden to call `asyncio.run`.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, is_dataclass
from types import UnionType
from typing import Annotated, Any, Literal, TypeGuard, TypeVar, Union, cast, get_args, get_origin

from langchain_core.runnables import RunnableConfig
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph.store.base import BaseStore
from langgraph_sdk.auth.types import BaseUser
from langgraph_sdk.runtime import (
    AccessContext,
    ServerRuntime,
    _ExecutionRuntime,  # pyright: ignore[reportPrivateUsage]  # what a server has to construct has no public name
    _ReadRuntime,  # pyright: ignore[reportPrivateUsage]  # likewise
)
from pydantic import BaseModel

from waystation.errors import ConfigError

Graph = Pregel[Any, Any, Any, Any]
Builder = StateGraph[Any, Any, Any, Any]
Wants = Literal["config", "runtime"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Access:
    """Why a graph is opened and for whom; what a factory may ask for."""

    access_context: AccessContext
    config: RunnableConfig
    store: BaseStore
    user: BaseUser | None = None
    context: object = None


@dataclass(frozen=True, slots=True)
class Factory:
    """A user's function and the parameters that it wants filled. `context_type` is the T of `ServerRuntime[T]`."""

    function: Callable[..., Any]
    wants: tuple[tuple[inspect.Parameter, Wants], ...]
    context_type: object = None

    @asynccontextmanager
    async def open(self, access: Access, *, executor: Executor) -> AsyncGenerator[Graph | Builder]:
        """What the factory makes, until the block is left; an error inside the block always leaves it.

        Raises:
            Whatever the user's function raises, and TypeError when it makes something that is no graph.
        """
        error: BaseException | None = None
        async with AsyncExitStack() as stack:
            made = await self._enter(await self._call(access, executor), stack, executor)
            try:
                yield made
            except BaseException as e:
                error = e
                raise
        if error is not None:  # the user's context manager swallowed it; a failed or cancelled run must not look fine
            raise error

    async def _call(self, access: Access, executor: Executor) -> object:
        args: list[object] = []
        kwargs: dict[str, object] = {}
        for parameter, wanted in self.wants:
            value = _config(access) if wanted == "config" else _runtime(access, self.context_type)
            if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                args.append(value)
            else:
                kwargs[parameter.name] = value
        inner = inspect.unwrap(self.function)
        if (
            inspect.iscoroutinefunction(inner)
            or inspect.isgeneratorfunction(inner)
            or inspect.isasyncgenfunction(inner)
        ):
            return self.function(*args, **kwargs)  # only makes the coroutine or the context manager
        return await in_thread(executor, lambda: self.function(*args, **kwargs))

    async def _enter(self, made: object, stack: AsyncExitStack, executor: Executor) -> Graph | Builder:
        while True:
            if isinstance(made, Pregel | StateGraph):
                return cast(Graph | Builder, made)
            if inspect.isawaitable(made):
                made = await made
            elif isinstance(made, AbstractAsyncContextManager):
                made = await stack.enter_async_context(cast(AbstractAsyncContextManager[object], made))
            elif isinstance(made, AbstractContextManager):
                made = await stack.enter_async_context(_in_thread(cast(AbstractContextManager[object], made), executor))
            else:
                raise TypeError(not_a_graph(made))


def is_factory(found: object) -> TypeGuard[Callable[..., Any]]:
    """Whether to call `found` for a graph. Of classes only those whose instances are context managers."""
    if isinstance(found, type):
        return hasattr(found, "__aenter__") or hasattr(found, "__enter__")
    return callable(found)


def read_factory(function: Callable[..., Any]) -> Factory:
    """See what `function` asks for.

    Raises:
        ConfigError: it has a required parameter that is neither the config nor the runtime.
    """
    parameters = [p for p in _parameters(function) if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = [p for p in parameters if p.default is p.empty]
    wants: list[tuple[inspect.Parameter, Wants]] = []
    for parameter in parameters:
        wanted = _wanted(parameter)
        if wanted is None and required == [parameter] and _may_be_config(parameter.annotation):
            wanted = "config"
        if wanted is not None:
            wants.append((parameter, wanted))
        elif parameter in required:
            raise ConfigError(
                f"the factory's parameter {parameter.name!r} cannot be filled: expected no parameter, "
                "`config: RunnableConfig`, `runtime: ServerRuntime`, or both with these annotations"
            )
    context = next((_context_type(p.annotation) for p, wanted in wants if wanted == "runtime"), None)
    return Factory(function, tuple(wants), context)


async def in_thread(executor: Executor, function: Callable[[], T]) -> T:
    """Call `function` in a thread of `executor`, with this task's context variables."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(executor, lambda: context.run(function))


def not_a_graph(made: object) -> str:
    """What to say when something is not a graph."""
    hint = ""
    if inspect.isgenerator(made) or inspect.isasyncgen(made):
        hint = "; put @contextlib.contextmanager or @contextlib.asynccontextmanager on the function"
    kind = f"the class {made.__name__}" if isinstance(made, type) else f"a {type(made).__name__}"
    return f"{kind} is no graph: expected a compiled graph or a StateGraph{hint}"


@asynccontextmanager
async def _in_thread(manager: AbstractContextManager[T], executor: Executor) -> AsyncGenerator[T]:
    """A sync context manager whose `__enter__` and `__exit__` run in threads."""
    value = await in_thread(executor, manager.__enter__)
    try:
        yield value
    except BaseException as error:
        swallowed = await in_thread(executor, lambda e=error: manager.__exit__(type(e), e, e.__traceback__))
        if not swallowed:
            raise
    else:
        await in_thread(executor, lambda: manager.__exit__(None, None, None))


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function, eval_str=True).parameters.values())
    except ValueError:  # a callable without a signature, such as some builtins
        return []
    except Exception:  # an annotation that does not evaluate (TYPE_CHECKING imports): its text will do
        return list(inspect.signature(function).parameters.values())


def _wanted(parameter: inspect.Parameter) -> Wants | None:
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return "config" if parameter.name == "config" else None
    if isinstance(annotation, str):
        words = {"RunnableConfig": "config", "ServerRuntime": "runtime"}
        return next((cast(Wants, wanted) for word, wanted in words.items() if word in annotation), None)
    members = _members(annotation)
    if any(m is ServerRuntime or get_origin(m) is ServerRuntime or _is_runtime(m) for m in members):
        return "runtime"
    return "config" if RunnableConfig in members or parameter.name == "config" else None


def _may_be_config(annotation: Any) -> bool:
    return annotation in (inspect.Parameter.empty, Any, dict) or get_origin(annotation) is dict


def _members(annotation: object) -> list[object]:
    """The types an annotation allows: itself, or those of an `Annotated` or a union."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [member for arg in get_args(annotation) for member in _members(arg)]
    return [annotation]


def _is_runtime(annotation: object) -> bool:
    return (get_origin(annotation) or annotation) in (_ExecutionRuntime, _ReadRuntime)


def _context_type(annotation: object) -> object:
    for member in _members(annotation):
        if (arguments := get_args(member)) and not isinstance(arguments[0], TypeVar):
            return arguments[0]
    return None


def _config(access: Access) -> RunnableConfig:
    """A copy that the factory may change, without what is between the library and us."""
    configurable = access.config.get("configurable") or {}
    return {
        **access.config,
        "configurable": {k: v for k, v in configurable.items() if not k.startswith("__pregel_")},
    }


def _runtime(access: Access, context_type: object) -> object:
    # Without type arguments: Python 3.11 cannot make an instance of a subscripted generic class with slots.
    shared: dict[str, Any] = {"access_context": access.access_context, "user": access.user, "store": access.store}
    if access.access_context != "threads.create_run":
        return cast(object, _ReadRuntime(**shared))
    return cast(object, _ExecutionRuntime(**shared, context=_as_context(access.context, context_type)))


def _as_context(context: object, context_type: object) -> object:
    """The run's context as the class that the factory's annotation names, as the library does for nodes."""
    if not isinstance(context, dict) or not isinstance(context_type, type):
        return cast(object, context)
    if is_dataclass(context_type) or issubclass(context_type, BaseModel):
        return cast(Callable[..., object], context_type)(**cast(dict[str, Any], context))
    return cast(object, context)
