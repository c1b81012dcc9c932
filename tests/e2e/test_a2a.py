"""The assistants as A2A agents, through the official client, in both versions of the protocol."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

import httpx
import pytest
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.client import Client as A2AClient
from a2a.types import a2a_pb2 as pb
from a2a.utils.errors import (
    A2AError,
    ContentTypeNotSupportedError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from google.protobuf.json_format import MessageToDict, ParseDict

from eventually import eventually
from live_server import Client, LiveServer

pytestmark = pytest.mark.anyio

VERSIONS = ("1.0", "0.3")
COMPLETED, WORKING = pb.TaskState.TASK_STATE_COMPLETED, pb.TaskState.TASK_STATE_WORKING
ASKING, FAILED = pb.TaskState.TASK_STATE_INPUT_REQUIRED, pb.TaskState.TASK_STATE_FAILED
CANCELED, SUBMITTED = pb.TaskState.TASK_STATE_CANCELED, pb.TaskState.TASK_STATE_SUBMITTED


class Agents:
    """Official clients of one version."""

    def __init__(self, http: httpx.AsyncClient, url: str, version: str) -> None:
        self._http = http
        self._url = url
        self._version = version

    async def card(self, assistant: str) -> pb.AgentCard:
        resolver = A2ACardResolver(self._http, self._url)
        return await resolver.get_agent_card(http_kwargs={"params": {"assistant_id": assistant}})

    async def client(self, assistant: str, *, streaming: bool = False, polling: bool = False) -> A2AClient:
        card = await self.card(assistant)
        kept = [face for face in card.supported_interfaces if face.protocol_version == self._version]
        del card.supported_interfaces[:]
        card.supported_interfaces.extend(kept)
        config = ClientConfig(streaming=streaming, polling=polling, httpx_client=self._http)
        return ClientFactory(config).create(card)


@pytest.fixture(params=VERSIONS)
async def agents(request: pytest.FixtureRequest, live_server: LiveServer) -> AsyncGenerator[Agents]:
    async with httpx.AsyncClient(timeout=60) as http:
        yield Agents(http, live_server.url, request.param)


def said(*parts: str | dict[str, Any] | pb.Part, **message: Any) -> pb.SendMessageRequest:
    made = [_part(part) for part in parts]
    whole = pb.Message(message_id=uuid.uuid4().hex, role=pb.Role.ROLE_USER, parts=made, **message)
    return pb.SendMessageRequest(message=whole)


def _part(part: str | dict[str, Any] | pb.Part) -> pb.Part:
    if isinstance(part, pb.Part):
        return part
    return pb.Part(text=part) if isinstance(part, str) else ParseDict({"data": part}, pb.Part())


async def sent(client: A2AClient, request: pb.SendMessageRequest) -> pb.Task:
    (answer,) = [step async for step in client.send_message(request)]
    return answer.task


async def streamed(client: A2AClient, request: pb.SendMessageRequest) -> list[pb.StreamResponse]:
    return [step async for step in client.send_message(request)]


def texts(parts: Sequence[pb.Part]) -> str:
    return "".join(part.text for part in parts)


def data_of(parts: Sequence[pb.Part]) -> Any:
    return next(cast("Any", MessageToDict(part.data)) for part in parts if part.HasField("data"))


def dialogue(task: pb.Task) -> list[tuple[str, str]]:
    return [(pb.Role.Name(m.role).removeprefix("ROLE_").lower(), texts(m.parts)) for m in task.history]


async def test_the_card_describes_the_assistant(agents: Agents, sdk: Client) -> None:
    assistant = (await sdk.assistants.search(graph_id="agent"))[0]
    for name in ("agent", assistant["assistant_id"]):
        card = await agents.card(name)
        assert (card.name, card.description) == ("agent", "Adds numbers with a tool")
        assert card.capabilities.streaming
        assert not card.capabilities.push_notifications
        assert {face.protocol_version for face in card.supported_interfaces} == {"1.0", "0.3"}
        assert all(face.url.endswith(f"/a2a/{assistant['assistant_id']}") for face in card.supported_interfaces)
        assert [skill.name for skill in card.skills] == ["agent Capabilities"]


async def test_a_message_is_answered_by_a_completed_task(agents: Agents, sdk: Client) -> None:
    client = await agents.client("chat")
    task = await sent(client, said("hello"))
    assert task.status.state == COMPLETED
    assert texts(task.artifacts[0].parts) == "You said: hello"
    assert dialogue(task) == [("user", "hello"), ("agent", "You said: hello")]
    assert {message.task_id for message in task.history} == {task.id}
    thread = await sdk.threads.get(task.context_id)
    assert [m["content"] for m in thread["values"]["messages"]] == ["hello", "You said: hello"]
    runs = await sdk.runs.list(task.context_id)
    assert [f"{task.context_id}:{run['run_id']}" for run in runs] == [task.id]


async def test_a_context_is_a_conversation(agents: Agents) -> None:
    client = await agents.client("chat")
    first = await sent(client, said("one"))
    second = await sent(client, said("two", context_id=first.context_id))
    assert (second.context_id, second.id != first.id) == (first.context_id, True)
    whole = [("user", "one"), ("agent", "You said: one"), ("user", "two"), ("agent", "You said: two")]
    assert dialogue(second) == whole
    assert [m.task_id for m in second.history] == [first.id] * 2 + [second.id] * 2
    again = await client.get_task(pb.GetTaskRequest(id=first.id))
    assert (again.status.state, dialogue(again)) == (COMPLETED, whole[:2])
    assert texts(again.artifacts[0].parts) == "You said: one"
    last = await client.get_task(pb.GetTaskRequest(id=second.id, history_length=1))
    assert dialogue(last) == whole[3:]
    none = await client.get_task(pb.GetTaskRequest(id=second.id, history_length=0))
    assert list(none.history) == []
    chosen = str(uuid.uuid4())
    assert (await sent(client, said("three", context_id=chosen))).context_id == chosen


async def test_a_stream_tells_the_text_as_it_grows(agents: Agents) -> None:
    client = await agents.client("chat", streaming=True)
    steps = await streamed(client, said("hello"))
    begun, *updates, artifact, end = steps
    assert begun.task.status.state == SUBMITTED
    assert dialogue(begun.task) == [("user", "hello")]
    told = [texts(step.status_update.status.message.parts) for step in updates]
    assert len(told) > 1
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(told))
    assert {step.status_update.status.state for step in updates} == {WORKING}
    assert texts(artifact.artifact_update.artifact.parts) == "You said: hello"
    assert artifact.artifact_update.last_chunk
    assert end.status_update.status.state == COMPLETED
    task = await client.get_task(pb.GetTaskRequest(id=begun.task.id))
    assert task.status.state == COMPLETED


async def test_data_is_merged_into_the_input(agents: Agents) -> None:
    task = await sent(await agents.client("steps"), said({"n": 0}, {"log": ["given"]}))
    assert data_of(task.artifacts[0].parts) == {"log": ["given", "a", "b"], "n": 2}
    assert list(task.history) == []


async def test_files_are_content_blocks_of_the_message(agents: Agents, sdk: Client) -> None:
    picture = pb.Part(raw=b"\x89PNG", media_type="image/png", filename="a.png")
    linked = pb.Part(url="https://example.com/a.pdf", media_type="application/pdf")
    task = await sent(await agents.client("chat"), said("look", picture, linked))
    thread = await sdk.threads.get(task.context_id)
    assert thread["values"]["messages"][0]["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image", "base64": "iVBORw==", "mime_type": "image/png", "extras": {"filename": "a.png"}},
        {"type": "file", "url": "https://example.com/a.pdf", "mime_type": "application/pdf"},
    ]
    assert [part.WhichOneof("content") for part in task.history[0].parts] == ["text", "raw", "url"]


async def test_an_agent_without_messages_takes_no_text(agents: Agents) -> None:
    with pytest.raises(ContentTypeNotSupportedError):
        await sent(await agents.client("steps"), said("hello"))


async def test_a_task_that_asks_goes_on_with_the_answer(agents: Agents) -> None:
    client = await agents.client("hitl")
    asking = await sent(client, said({"n": 0}))
    assert asking.status.state == ASKING
    assert texts(asking.status.message.parts) == '{"question":"go on?"}'
    assert data_of(asking.status.message.parts)["interrupts"][0]["value"] == {"question": "go on?"}
    assert (await client.get_task(pb.GetTaskRequest(id=asking.id))).status.state == ASKING
    done = await sent(client, said("yes", task_id=asking.id, context_id=asking.context_id))
    assert (done.id, done.status.state) == (asking.id, COMPLETED)
    assert data_of(done.artifacts[0].parts) == {"log": ["answer=yes", "b"], "n": 2}
    assert (await client.get_task(pb.GetTaskRequest(id=asking.id))).status.state == COMPLETED
    with pytest.raises(UnsupportedOperationError):
        await sent(client, said("again", task_id=asking.id))


async def test_a_stream_that_ends_with_a_question_can_be_answered_by_data(agents: Agents) -> None:
    client = await agents.client("hitl", streaming=True)
    steps = await streamed(client, said({"n": 0}))
    assert steps[-1].status_update.status.state == ASKING
    begun = steps[0].task
    answer = said({"resume": True}, task_id=begun.id)
    steps = await streamed(client, answer)
    assert steps[0].task.id == begun.id
    assert steps[-1].status_update.status.state == COMPLETED
    assert data_of(steps[-2].artifact_update.artifact.parts)["log"] == ["answer=True", "b"]


async def test_a_failing_graph_is_a_failed_task(agents: Agents) -> None:
    task = await sent(await agents.client("fail"), said({"n": 0}))
    assert task.status.state == FAILED
    assert texts(task.status.message.parts) == "ValueError: boom went the node"
    steps = await streamed(await agents.client("fail", streaming=True), said({"n": 0}))
    assert steps[-1].status_update.status.state == FAILED


async def test_a_task_under_way_is_cancelled(agents: Agents, sdk: Client) -> None:
    client = await agents.client("slow", polling=True)
    task = await sent(client, said({"n": 400, "delay": 0.05}))
    assert task.status.state == SUBMITTED

    async def works() -> bool:
        return (await client.get_task(pb.GetTaskRequest(id=task.id))).status.state == WORKING

    await eventually(works)
    canceled = await client.cancel_task(pb.CancelTaskRequest(id=task.id))
    assert canceled.status.state == CANCELED
    assert [run["status"] for run in await sdk.runs.list(task.context_id)] == ["interrupted"]
    with pytest.raises(TaskNotCancelableError):
        await client.cancel_task(pb.CancelTaskRequest(id=task.id))


async def test_a_task_under_way_can_be_followed_again(agents: Agents) -> None:
    client = await agents.client("slow", polling=True)
    task = await sent(client, said({"n": 20, "delay": 0.1}))
    follower = await agents.client("slow", streaming=True)
    steps = [step async for step in follower.subscribe(pb.SubscribeToTaskRequest(id=task.id))]
    assert steps[0].task.id == task.id
    assert steps[-1].status_update.status.state == COMPLETED
    assert len(data_of(steps[-2].artifact_update.artifact.parts)["ticks"]) == 20
    with pytest.raises(UnsupportedOperationError):
        [step async for step in follower.subscribe(pb.SubscribeToTaskRequest(id=task.id))]


async def test_a_client_that_leaves_a_stream_does_not_stop_the_task(agents: Agents) -> None:
    client = await agents.client("slow", streaming=True)
    stream = client.send_message(said({"n": 10, "delay": 0.05}))
    begun = (await anext(stream)).task
    await cast("AsyncGenerator[Any]", stream).aclose()

    async def completed() -> bool:
        return (await client.get_task(pb.GetTaskRequest(id=begun.id))).status.state == COMPLETED

    await eventually(completed)


async def test_what_is_not_there_or_makes_no_sense_is_refused(agents: Agents) -> None:
    client = await agents.client("chat")
    task = await sent(client, said("hello"))
    unknown = f"{task.context_id}:{uuid.uuid4()}"
    for task_id in (unknown, "neither", str(uuid.uuid4())):
        with pytest.raises(TaskNotFoundError):
            await client.get_task(pb.GetTaskRequest(id=task_id))
        with pytest.raises(TaskNotFoundError):
            await client.cancel_task(pb.CancelTaskRequest(id=task_id))
        with pytest.raises(TaskNotFoundError):
            await sent(client, said("hello", task_id=task_id))
    for request in (said(), said("hello", context_id="my context")):
        with pytest.raises(InvalidParamsError):
            await sent(client, request)
    with pytest.raises(InvalidParamsError):
        await client.get_task(pb.GetTaskRequest(id=task.id, history_length=-1))
    config = pb.TaskPushNotificationConfig(task_id=task.id, url="https://example.com/hook")
    with pytest.raises(PushNotificationNotSupportedError):
        await client.create_task_push_notification_config(config)


async def test_an_unknown_assistant_is_refused(agents: Agents, http: httpx.AsyncClient) -> None:
    client = await agents.client("chat")
    transport: Any = cast("Any", client)._transport
    for assistant in (str(uuid.uuid4()), "nobody"):
        transport.url = f"{http.base_url}/a2a/{assistant}".replace("//a2a", "/a2a")
        with pytest.raises(A2AError, match=r"[aA]ssistant"):
            await sent(client, said("hello"))
        answer = await http.get("/.well-known/agent-card.json", params={"assistant_id": assistant})
        assert answer.status_code == 404


async def test_many_tasks_at_once_each_get_their_own_result(agents: Agents) -> None:
    client = await agents.client("chat")
    results = await asyncio.gather(*(sent(client, said(str(n))) for n in range(12)))
    assert [texts(task.artifacts[0].parts) for task in results] == [f"You said: {n}" for n in range(12)]
