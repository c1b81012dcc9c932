"""The server: routes requests to targets and APIs, in a thread of its own, with a way to control it over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, Final, Self
from urllib.parse import unquote

from .anthropic_messages import Messages
from .bill import DEFAULT_TARIFF, Bill, Tariff
from .openai_chat import ChatCompletions
from .openai_responses import Responses
from .plan import Plan
from .play import Broken, Play
from .target import Seen, Target
from .turn import Api, turn_of
from .wire import Connection, Gone, Request

_CHAT, _RESPONSES, _MESSAGES = ChatCompletions(), Responses(), Messages()

_ROUTES: Final[tuple[tuple[re.Pattern[str], Api], ...]] = (
    (re.compile(r"/openai/deployments/(?P<model>[^/]+)/chat/completions"), _CHAT),
    (re.compile(r"/openai/v1/chat/completions"), _CHAT),
    (re.compile(r"(/openai)?(/v1)?/responses"), _RESPONSES),
    (re.compile(r"(/v1)?/chat/completions"), _CHAT),
    (re.compile(r"/v1/messages"), _MESSAGES),
)
_TARGET: Final = re.compile(r"/t/([^/]+)(/.*)")
_BACKLOG: Final = 4096
"""Beyond it the kernel drops connections, and clients wait for seconds until they try again."""


@dataclass(frozen=True, slots=True)
class Urls:
    """What to give to clients: `base_url` of ChatOpenAI and ChatAnthropic, `azure_endpoint` of AzureChatOpenAI."""

    root: str

    @property
    def openai(self) -> str:
        return f"{self.root}/v1"

    @property
    def anthropic(self) -> str:
        return self.root

    @property
    def azure(self) -> str:
        return self.root


class FaultServer:
    """Providers on 127.0.0.1. See the package's docstring."""

    def __init__(
        self,
        *,
        port: int = 0,
        tariffs: Mapping[str, Tariff] | None = None,
        answers: Callable[[Mapping[str, Any]], str] | None = None,
    ) -> None:
        """`tariffs`: per model; others cost the default one. `answers`: the text for a request's body."""
        self.tariffs = dict(tariffs or {})
        self.answers = answers or _four_words
        self._targets: dict[str, Target] = {}
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", port))
        self._refusing = socket.socket()
        self._refusing.bind(("127.0.0.1", 0))  # bound and never listened on: connecting is refused
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="fault-server", daemon=True)
        self._ready = threading.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self.connections = 0
        """How many clients ever opened."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all connections and the thread."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(10)
        self._listener.close()
        self._refusing.close()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def urls(self, target: str = "") -> Urls:
        """The addresses of a target; the one without a name needs no path."""
        return Urls(f"{self.root}/t/{target}" if target else self.root)

    @property
    def openai(self) -> str:
        return self.urls().openai

    @property
    def anthropic(self) -> str:
        return self.urls().anthropic

    @property
    def azure(self) -> str:
        return self.urls().azure

    @property
    def refused(self) -> Urls:
        """Addresses at which connections are refused."""
        return Urls(f"http://127.0.0.1:{self._refusing.getsockname()[1]}")

    def target(self, name: str = "") -> Target:
        """A target by name, made when it is first spoken of."""
        with self._lock:
            return self._targets.setdefault(name, Target(name))

    def script(self, *plans: str | Mapping[str, Any] | Plan) -> None:
        """`Target.script` of the target without a name."""
        self.target().script(*plans)

    def always(self, plan: str | Mapping[str, Any] | Plan) -> None:
        """`Target.always` of the target without a name."""
        self.target().always(plan)

    @property
    def requests(self) -> list[Seen]:
        """All requests of all targets, in the order in which they came."""
        with self._lock:
            return sorted((seen for one in self._targets.values() for seen in one.seen), key=lambda seen: seen.at)

    @property
    def bill(self) -> Bill:
        """What all targets charge. Ask after `settled` when streams were aborted."""
        with self._lock:
            return Bill([charge for one in self._targets.values() for charge in one.charges])

    def settled(self, *, deadline_s: float = 10.0) -> Self:
        """Wait until no request is open: a client's abort takes a moment to arrive.

        Raises:
            TimeoutError: one is still open.
        """
        until = monotonic() + deadline_s
        while any(seen.ended == "open" for seen in self.requests):
            if monotonic() > until:
                raise TimeoutError("a request is still open")
            sleep(0.005)
        return self

    def reset(self) -> None:
        """Forget all targets."""
        with self._lock:
            self._targets.clear()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._accept, sock=self._listener, backlog=_BACKLOG)
        self._ready.set()
        await self._stopping.wait()
        server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.connections += 1
        task.add_done_callback(self._connections.discard)
        # Connections inherit what the listener was made as, and asyncio does this only for what says that it is TCP.
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(reader, writer)
        try:
            while (request := await connection.request()) is not None:
                await self._handle(connection, request)
        except (Gone, Broken):
            pass
        except asyncio.CancelledError:
            pass  # the server stops; asyncio's stream server would log a cancelled handler as an error
        finally:
            writer.close()
            with suppress(Exception):
                await writer.wait_closed()

    async def _handle(self, connection: Connection, request: Request) -> None:
        if request.path.startswith("/_control/"):
            await self._control(connection, request)
            return
        matched = _TARGET.fullmatch(request.path)
        target = self.target(unquote(matched[1]) if matched else "")
        path = matched[2] if matched else request.path
        found = next(((route, api) for pattern, api in _ROUTES if (route := pattern.fullmatch(path))), None)
        if found is None:
            await _json(connection, 404, {"error": {"message": f"no such path: {path}", "type": "not_found_error"}})
            return
        route, api = found
        try:
            body = request.json()
            asked = api.asked(body, route.groupdict().get("model"))
        except (ValueError, KeyError, TypeError, AttributeError):
            await _json(connection, 400, api.error("bad_request", "The request could not be read."))
            return
        if (refused := _unacceptable(api, path, request)) is not None:
            plan = Plan(refused)
        elif given := request.headers.get("x-fault"):
            plan = Plan.of(json.loads(given) if given.startswith("{") else given)
        else:
            plan = target.next_plan(body)
        seen = Seen(target.name, api.name, path, asked.model, asked.stream, request.headers, request.query, body, plan)
        target.seen.append(seen)
        tariff = self.tariffs.get(asked.model, DEFAULT_TARIFF)
        await Play(connection, api, target, seen, turn_of(asked, plan, self.answers), tariff).run()

    async def _control(self, connection: Connection, request: Request) -> None:
        """`POST /_control/{script,always,allow,reset}`, `GET /_control/{bill,requests}`, with `?target=`."""
        what, target = request.path.rpartition("/")[2], self.target(request.query.get("target", ""))
        match what:
            case "script":
                target.script(*json.loads(request.body))
            case "always":
                target.always(json.loads(request.body))
            case "allow":
                target.allow(**request.json())
            case "reset":
                self.reset()
            case "bill":
                await _json(connection, 200, _bill(self.bill))
                return
            case "requests":
                await _json(connection, 200, [_line(seen) for seen in self.requests])
                return
            case _:
                await _json(connection, 404, {})
                return
        await _json(connection, 200, {})


def _four_words(_: Mapping[str, Any]) -> str:
    return "one two six ten"


def _unacceptable(api: Api, path: str, request: Request) -> str | None:
    """What providers ask of every request: a key, and their versions."""
    headers = request.headers
    key = headers.get("api-key") or headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
    if not key or key == "wrong":
        return "auth"
    if api.name == "anthropic" and "anthropic-version" not in headers:
        return "bad_request"
    if path.startswith("/openai/deployments/") and "api-version" not in request.query:
        return "not_found"
    return None


async def _json(connection: Connection, status: int, body: Any) -> None:
    await connection.answer(status, json.dumps(body).encode(), {"content-type": "application/json"})


def _bill(bill: Bill) -> dict[str, Any]:
    return {
        "nano_usd": str(bill.nano_usd),
        "input_tokens": bill.input_tokens,
        "output_tokens": bill.output_tokens,
        "charges": len(bill.charges),
    }


def _line(seen: Seen) -> dict[str, Any]:
    return {
        "target": seen.target,
        "api": seen.api,
        "model": seen.model,
        "stream": seen.stream,
        "fault": seen.plan.fault,
        "at": seen.at,
        "status": seen.status,
        "sent_tokens": seen.sent_tokens,
        "ended": seen.ended,
    }
