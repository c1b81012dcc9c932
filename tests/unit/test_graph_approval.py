"""Nothing is sent before a person said so, and what is sent is what that person decided."""

# pyright: reportUnknownMemberType=false
# LangGraph's graph methods are generic in parameters that it leaves open.

from dataclasses import dataclass, field
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command

from approval import OUTBOX, build_graph
from offline_model import OfflineChatModel

pytestmark = pytest.mark.anyio
CONFIG: Any = {"configurable": {"thread_id": "1"}}
DRAFT = {"to": "bob@example.com", "subject": "lunch", "body": "see you at noon"}


@dataclass
class Desk:
    """An approval graph with its outbox, and one thread."""

    store: InMemoryStore = field(default_factory=InMemoryStore)

    def __post_init__(self) -> None:
        self.graph = build_graph(OfflineChatModel(), checkpointer=InMemorySaver(), store=self.store)

    async def say(self, text: str) -> dict[str, Any]:
        return await self.graph.ainvoke({"messages": [HumanMessage(text)]}, CONFIG)

    async def decide(self, decision: dict[str, Any]) -> dict[str, Any]:
        return await self.graph.ainvoke(Command(resume={"decisions": [decision]}), CONFIG)

    def sent(self) -> list[dict[str, Any]]:
        items = self.store.search(OUTBOX)
        return [{key: item.value[key] for key in ("to", "subject", "body")} for item in items]


@pytest.fixture
async def desk() -> Desk:
    desk = Desk()
    await desk.say("Email bob@example.com about lunch saying see you at noon")
    return desk


async def test_the_run_stops_and_shows_the_email_for_review(desk: Desk) -> None:
    state = await desk.graph.aget_state(CONFIG)
    (interrupt,) = state.interrupts

    assert interrupt.value["action_requests"][0]["name"] == "send_email"
    assert interrupt.value["action_requests"][0]["args"] == DRAFT
    assert interrupt.value["review_configs"] == [
        {"action_name": "send_email", "allowed_decisions": ["approve", "edit", "reject"]}
    ]
    assert desk.sent() == []


async def test_an_approved_email_is_sent_as_it_was_shown(desk: Desk) -> None:
    state = await desk.decide({"type": "approve"})

    assert desk.sent() == [DRAFT]
    assert "Sent to bob@example.com" in state["messages"][-1].text


async def test_an_edited_email_is_sent_as_edited(desk: Desk) -> None:
    edited = {**DRAFT, "to": "alice@example.com"}

    await desk.decide({"type": "edit", "edited_action": {"name": "send_email", "args": edited}})

    assert desk.sent() == [edited]


async def test_a_rejected_email_is_not_sent_and_the_agent_says_so(desk: Desk) -> None:
    state = await desk.decide({"type": "reject", "message": "Not today."})

    assert desk.sent() == []
    assert [message.status for message in state["messages"] if isinstance(message, ToolMessage)] == ["error"]
    assert "Not today." in state["messages"][-1].text


async def test_a_decision_that_is_not_allowed_sends_nothing(desk: Desk) -> None:
    with pytest.raises(ValueError, match="not allowed"):
        await desk.decide({"type": "respond", "message": "I did it myself."})

    assert desk.sent() == []


async def test_the_step_executed_again_sends_no_second_email(desk: Desk) -> None:
    waiting = (await desk.graph.aget_state(CONFIG)).config
    await desk.decide({"type": "approve"})

    await desk.graph.ainvoke(Command(resume={"decisions": [{"type": "approve"}]}), waiting)

    assert desk.sent() == [DRAFT]


async def test_the_outbox_can_be_read_without_approval(desk: Desk) -> None:
    await desk.decide({"type": "approve"})

    state = await desk.say("What was sent? Show the outbox.")

    assert "- bob@example.com: lunch" in state["messages"][-1].text
