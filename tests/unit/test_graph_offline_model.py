"""The offline model looks like any chat model on the wire: chunks, tool calls, usage; and it says what it is."""

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool

from chat_model import chat_model
from offline_model import OfflineChatModel
from offline_rules import NOTICE, decide

pytestmark = pytest.mark.anyio
TOOLS = ["calculator", "clock", "search_docs"]


@tool
def calculator(expression: str) -> str:
    """Calculate."""
    return expression


def called(text: str, tools: list[str] = TOOLS) -> dict[str, dict[str, str]]:
    return {call["name"]: call["args"] for call in decide([HumanMessage(text)], tools).tool_calls}


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("What is 17 * 23?", {"calculator": {"expression": "17 * 23"}}),
        ("three: 2 plus 2", {"calculator": {"expression": "2 + 2"}}),
        ("square root of 16", {"calculator": {"expression": "sqrt(16)"}}),
        ("What time is it in Tokyo?", {"clock": {"timezone": "Asia/Tokyo"}}),
        ("what is today's date", {"clock": {"timezone": "UTC"}}),
        ("1+1 and the time in Paris", {"calculator": {"expression": "1+1"}, "clock": {"timezone": "Europe/Paris"}}),
        ("How are leases renewed?", {"search_docs": {"query": "How are leases renewed?"}}),
        ("What happened on 2026-11-21?", {"search_docs": {"query": "What happened on 2026-11-21?"}}),
        ("", {}),
    ],
)
def test_chooses_tools_from_the_words_of_the_user(text: str, calls: dict[str, dict[str, str]]) -> None:
    assert called(text) == calls


def test_calls_only_tools_that_it_was_given() -> None:
    assert called("What is 17 * 23?", ["clock"]) == {}


def test_an_email_is_filled_in_from_the_text() -> None:
    assert called("Email bob@example.com about lunch saying see you at noon", ["send_email"]) == {
        "send_email": {"to": "bob@example.com", "subject": "lunch", "body": "see you at noon"}
    }


@pytest.mark.parametrize(
    "text", ["1" * 100_000, "a@" * 50_000, "(" * 100_000, "to " * 50_000, "square root of " * 9_000]
)
def test_a_huge_message_is_decided_on_quickly(text: str) -> None:
    assert len(decide([HumanMessage(text)], [*TOOLS, "send_email", "ResearchPlan"]).tool_calls) < 6


@pytest.mark.parametrize(
    "messages",
    [
        [HumanMessage("hello")],
        [],
        [HumanMessage("17*23"), ToolMessage("17*23 = 391", name="calculator", tool_call_id="1")],
        [HumanMessage("x"), ToolMessage("too large", name="calculator", tool_call_id="1", status="error")],
        [HumanMessage("Topic: x\n\n## One\n\nNote.")],
    ],
)
def test_every_answer_says_that_the_model_is_offline(messages: list[HumanMessage | ToolMessage]) -> None:
    assert decide(messages, []).text.startswith(NOTICE)


async def test_text_is_streamed_word_by_word_and_adds_up() -> None:
    chunks = [chunk async for chunk in OfflineChatModel().astream("hello")]
    whole = await OfflineChatModel().ainvoke("hello")

    assert len(chunks) > 5
    assert "".join(str(chunk.text) for chunk in chunks) == whole.text


async def test_tool_calls_are_streamed_in_pieces_and_add_up() -> None:
    model = OfflineChatModel().bind_tools([calculator])
    pieces = [chunk async for chunk in model.astream("What is 17 * 23 * 1 * 1 * 1 * 1?")]
    whole = pieces[0]
    for piece in pieces[1:]:
        whole = whole + piece  # type: ignore[operator] # chunks add up, messages do not; these are chunks

    assert len(pieces) > 2
    assert isinstance(whole, AIMessageChunk)
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [
        ("calculator", {"expression": "17 * 23 * 1 * 1 * 1 * 1"})
    ]


async def test_usage_is_counted_once_and_marked_as_estimated() -> None:
    message = await OfflineChatModel().ainvoke("two words")

    assert message.usage_metadata is not None
    assert message.usage_metadata["input_tokens"] == 2
    assert message.usage_metadata["output_tokens"] == len(str(message.text).split())
    assert message.response_metadata["usage_is_estimated"] is True
    assert message.response_metadata["model_name"] == "waystation-offline"


def test_works_without_an_event_loop() -> None:
    model = OfflineChatModel()

    assert "".join(str(chunk.text) for chunk in model.stream("hello")) == model.invoke("hello").text


def test_without_a_setting_the_offline_model_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYSTATION_MODEL", raising=False)
    monkeypatch.setenv("WAYSTATION_OFFLINE_DELAY_MS", "30")

    model = chat_model()

    assert isinstance(model, OfflineChatModel)
    assert model.token_delay_s == 0.03


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WAYSTATION_MODEL", "gpt-5"),
        ("WAYSTATION_MODEL", ":x"),
        ("WAYSTATION_OFFLINE_DELAY_MS", "slow"),
        ("WAYSTATION_OFFLINE_DELAY_MS", "-1"),
        ("WAYSTATION_OFFLINE_DELAY_MS", "nan"),
    ],
)
def test_wrong_settings_are_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.delenv("WAYSTATION_MODEL", raising=False)
    monkeypatch.setenv(variable, value)

    with pytest.raises(ValueError, match=f"{variable} is '{value}'; expected"):
        chat_model()


def test_an_answer_quotes_sentences_and_names_their_file_but_quotes_no_code_and_no_tables() -> None:
    passage = (
        "[docs/a.md] Leases\nA lease lasts ten seconds.\n\n- A lease is renewed.\n\n"
        "| lease | table of leases here |\n|---|---|\n\n"
        "```\nlease = code\n\nanother_lease = more_code\n```"
    )
    result = ToolMessage(passage, name="search_docs", tool_call_id="1")

    answer = decide([HumanMessage("How long is a lease?"), result], TOOLS).text

    assert answer.splitlines()[2:] == ["- A lease lasts ten seconds. (docs/a.md)", "- A lease is renewed. (docs/a.md)"]
