"""An agent whose side effects wait for a person: an email goes out only after somebody approved, edited or rejected it.

The run stops with an interrupt in the shape of LangChain's human-in-the-loop middleware, which Agent Chat UI shows as a
form:

    {"action_requests": [{"name", "args", "description"}], "review_configs": [{"action_name", "allowed_decisions"}]}

Resume it with one decision for each action, in the same order:

    Command(resume={"decisions": [{"type": "approve"}]})
    Command(resume={"decisions": [{"type": "edit", "edited_action": {"name": "send_email", "args": {...}}}]})
    Command(resume={"decisions": [{"type": "reject", "message": "Not today."}]})

Nothing leaves the machine: "sending" writes into the store, under the namespace `outbox`.
"""

# pyright: reportUnknownVariableType=false
# `create_agent` is generic in parameters that it leaves open.

from datetime import UTC, datetime
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain.tools import ToolRuntime
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import tool
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.base import BaseStore

from chat_model import chat_model

OUTBOX = ("outbox",)
SYSTEM_PROMPT = (
    "You write and send short emails for the user. Call `send_email` once you know recipient and content; a person "
    "reviews it before it goes out. If it is rejected, say so and do not try again unless the user asks for it."
)


@tool
async def send_email(to: str, subject: str, body: str, runtime: ToolRuntime[Any, Any]) -> str:
    """Send an email. A person has to approve it first."""
    item = {"to": to, "subject": subject, "body": body, "sent_at": datetime.now(UTC).isoformat()}
    # Keyed by the call: if the step is executed again after a crash, the same email is written over, not a second one.
    await _store(runtime).aput(OUTBOX, str(runtime.tool_call_id), item, index=False)
    return f"Sent to {to}: {subject}"


@tool
async def list_outbox(runtime: ToolRuntime[Any, Any]) -> str:
    """List the emails that were sent, newest first."""
    items = await _store(runtime).asearch(OUTBOX, limit=20)
    newest = sorted(items, key=lambda item: str(item.value["sent_at"]), reverse=True)
    return "\n".join(f"- {item.value['to']}: {item.value['subject']}" for item in newest) or "The outbox is empty."


def _store(runtime: ToolRuntime[Any, Any]) -> BaseStore:
    if runtime.store is None:
        raise RuntimeError("The approval graph keeps its outbox in the store; compile it with one, or serve it.")
    return runtime.store


def build_graph(model: BaseChatModel, **compile_with: Any) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The agent with a model of the caller's choice; `compile_with` may bring `checkpointer` and `store`."""
    review = HumanInTheLoopMiddleware(
        interrupt_on={"send_email": {"allowed_decisions": ["approve", "edit", "reject"]}},
        description_prefix="An email is waiting for your approval",
    )
    return create_agent(
        model,
        [send_email, list_outbox],
        system_prompt=SYSTEM_PROMPT,
        middleware=[review],
        name="approval",
        **compile_with,
    )


graph = build_graph(chat_model())
