"""Redaction: what is found in texts, what is kept, and where it is used: logs, traces, messages."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import logging
import threading
import zlib
from collections.abc import Generator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain import agents
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from waystation.config import Settings
from waystation.telemetry.logs import configure_logs
from waystation_guards.middleware.redaction import pii_middleware
from waystation_guards.redaction.logs import RedactLogs
from waystation_guards.redaction.patterns import KINDS, passes_iban, passes_luhn
from waystation_guards.redaction.redaction import DEFAULT, Redactor
from waystation_guards.redaction.traces import redacting_client

create_agent = cast("Any", agents).create_agent  # its parameters have types that are not whole


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("write to ada.l+x@mail.example.co.uk.", "write to [EMAIL]."),
        ("call +49 30 1234567 or (555) 123-4567", "call [PHONE] or [PHONE]"),
        ("Tel. 0301-2345678", "Tel. [PHONE]"),
        ("to DE89 3704 0044 0532 0130 00 or GB29NWBK60161331926819", "to [IBAN] or [IBAN]"),
        ("card 4111 1111 1111 1111, 378282246310005", "card [CREDIT_CARD], [CREDIT_CARD]"),
        ("from 10.0.0.1, 2001:db8::1 and ::1", "from [IP], [IP] and [IP]"),
        ("sk-proj-abcdefghijklmnop1234567890", "[SECRET]"),
        ("ghp_0123456789abcdefghijABCDEFGHIJ012345", "[SECRET]"),
        ("AKIAIOSFODNN7EXAMPLE", "[SECRET]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc_DEF", "[SECRET]"),
        ("Authorization: Bearer abcdefghijkl.mno", "Authorization: Bearer [SECRET]"),
        ("postgres://user:hunter2@db/x", "postgres://[SECRET]@db/x"),
        ("password=hunter22, next", "password=[SECRET], next"),
        ('{"api_key": "abcdefgh123"}', '{"api_key": "[SECRET]"}'),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----.", "[SECRET]."),
        ("wsk_0123456789abcdef_abcdefghijklmnop", "[SECRET]"),
    ],
)
def test_what_is_personal_or_secret_is_taken_out(text: str, redacted: str) -> None:
    assert DEFAULT.text(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "DE89370400440532013001",
        "4111 1111 1111 1112",
        "order 12345678901234",
        "1111 1111 1111 1111",
        "12:30:45 on 2026-11-21 17:30:00.123456",
        "019a8f2e-7c1b-7e2a-9d55-1234567890ab",
        "std::vector a::b",
        "00:1A:2B:3C:4D:5E",
        "999.999.999.999",
        "3.14159265358979",
        "max_tokens=12000000",
        "user@localhost",
        "The secretary passed the word on.",
        "",
    ],
)
def test_what_only_looks_so_is_kept_as_the_same_object(text: str) -> None:
    assert DEFAULT.text(text) is text


@given(st.integers(10**11, 10**18 - 1))
def test_of_ten_numbers_with_each_last_digit_exactly_one_is_a_card(number: int) -> None:
    fits = [passes_luhn(f"{number}{digit}") for digit in range(10)]
    assert sum(fits) == (1 if len(set(str(number))) > 1 else sum(fits))


@given(st.text("0123456789", min_size=18, max_size=18))
@example("370400440532013000")
def test_of_all_check_digits_of_an_account_one_or_two_fit(account: str) -> None:
    fits = [digits for digits in range(2, 99) if passes_iban(f"DE{digits:02}{account}")]
    assert len(fits) == 1


@given(st.text(max_size=400))
def test_redaction_ends_and_leaves_nothing_to_find(text: str) -> None:
    once = DEFAULT.text(text)
    assert DEFAULT.text(once) == once or len(DEFAULT.find(once)) < len(DEFAULT.find(text)) + 1


@pytest.mark.parametrize(
    "text", ["a@" * 20_000, "1-" * 20_000, "x" * 200_000, "AA00 " * 20_000, "+1 " * 20_000, "://:" * 9_000]
)
def test_hostile_texts_take_no_time_that_grows_faster_than_they(text: str) -> None:
    DEFAULT.text(text)  # the test's own deadline is what fails


def test_strategies_hide_show_the_end_or_give_a_name_that_can_be_compared() -> None:
    text = "card 4111 1111 1111 1111"
    assert Redactor(strategy="mask").text(text) == "card ***************1111"
    assert Redactor(strategy="mask").text("password=hunter22") == "password=[SECRET]"
    one, other = Redactor(strategy="hash", pepper="a"), Redactor(strategy="hash", pepper="b")
    assert one.text(text) == one.text(text)
    assert one.text(text).startswith("card [CREDIT_CARD:")
    assert one.text(text) != other.text(text)


def test_own_patterns_and_kinds() -> None:
    redactor = Redactor(kinds=("email",), patterns={"customer": r"C-\d{4}"})
    assert redactor.text("C-1234 wrote from a@b.example at 10.0.0.1") == "[CUSTOMER] wrote from [EMAIL] at 10.0.0.1"
    assert redactor.only(("ip",)).text("a@b.example at 10.0.0.1") == "a@b.example at [IP]"
    with pytest.raises(ValueError, match=r"patterns\.x is no regular expression"):
        Redactor(patterns={"x": "("})
    with pytest.raises(ValueError, match="kinds of a redactor have 'name'"):
        Redactor(kinds=cast("Any", ("name",)))


def test_values_are_redacted_through_and_through_and_shared_where_nothing_is_found() -> None:
    clean = {"a": [1, "x", {"b": None}]}
    assert DEFAULT.value(clean) is clean
    value = {"to": ["a@b.example", ("10.0.0.1",)], "Password": "x", "n": 5, "clean": clean}
    assert DEFAULT.value(value) == {"to": ["[EMAIL]", ("[IP]",)], "Password": "[SECRET]", "n": 5, "clean": clean}
    assert value["Password"] == "x"


@contextlib.contextmanager
def logs(**options: Any) -> Generator[io.StringIO]:
    """What is logged to standard output; afterwards logging is as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with contextlib.redirect_stdout(io.StringIO()) as output:
        configure_logs(**options)
        yield output
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("as_json", [True, False])
def test_logs_say_nothing_personal_also_in_tracebacks_and_objects(as_json: bool) -> None:
    class Odd:
        def __repr__(self) -> str:
            return "Odd(c@b.example)"

    with logs(as_json=as_json, redact=KINDS) as output:
        try:
            raise ValueError("d@b.example")
        except ValueError:
            extra = {"run_id": "019a8f2e-7c1b-7e2a-9d55-1234567890ab", "who": ["b@b.example"], "odd": Odd(), "n": 7}
            logging.getLogger("x").exception("wrong: %s", "a@b.example", extra=extra)
    text = output.getvalue()
    assert "b.example" not in text
    assert text.count("[EMAIL]") >= 4
    assert "019a8f2e-7c1b-7e2a-9d55-1234567890ab" in text
    if as_json:
        line = json.loads(text)
        assert (line["event"], line["n"], line["odd"]) == ("wrong: [EMAIL]", 7, "Odd([EMAIL])")
        assert "Traceback" in line["exception"]


def test_logs_are_as_they_were_without_it() -> None:
    with logs(as_json=True) as output:
        logging.getLogger("x").warning("a@b.example")
    assert json.loads(output.getvalue())["event"] == "a@b.example"


def test_the_setting_takes_kinds_or_all() -> None:
    assert Settings.load({"WAYSTATION_LOG_REDACT": "email, ip"}).log_redact == ("email", "ip")
    assert Settings.load({"WAYSTATION_LOG_REDACT": "all"}).log_redact == KINDS
    with pytest.raises(Exception, match="WAYSTATION_LOG_REDACT"):
        Settings.load({"WAYSTATION_LOG_REDACT": "names"})
    with pytest.raises(ValueError, match="kinds of a redactor"):
        RedactLogs(("names",))


class LangSmith:
    """Takes what a tracing client sends, on this machine."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"] or 0))
                encoding = self.headers.get("content-encoding", "")
                if encoding == "gzip":
                    body = gzip.decompress(body)
                elif encoding == "zstd" or body[:4] == b"\x28\xb5\x2f\xfd":
                    import zstandard

                    body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
                elif encoding == "deflate":
                    body = zlib.decompress(body)
                outer.bodies.append(body)
                self.send_response(202)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def langsmith() -> Iterator[LangSmith]:
    server = LangSmith()
    server.thread.start()
    yield server
    server.server.shutdown()
    server.thread.join()
    server.server.server_close()


def test_traces_leave_the_process_redacted(langsmith: LangSmith) -> None:
    from langchain_core.tracers import LangChainTracer

    client = redacting_client(api_url=langsmith.url, api_key="test", auto_batch_tracing=True, info={})
    tracer = LangChainTracer(client=client)
    model = GenericFakeChatModel(messages=iter([AIMessage("mail b@b.example")]))
    model.invoke("I am a@b.example", {"callbacks": [tracer], "metadata": {"mail": "c@b.example"}})
    tracer.wait_for_futures()
    client.flush()
    client.cleanup()
    sent = b"".join(langsmith.bodies)
    assert b"[EMAIL]" in sent
    assert b"b.example" not in sent


def test_an_agents_messages_are_redacted_by_langchains_middleware_with_our_detectors() -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("noted")]))
    middleware = pii_middleware(Redactor(kinds=("iban", "email"), patterns={"customer": r"C-\d{4}"}))
    agent = create_agent(model, [], middleware=middleware)
    text = "C-1234, a@b.example, DE89370400440532013000 and not DE89370400440532013001"
    state = agent.invoke({"messages": [("user", text)]})
    assert state["messages"][0].content == (
        "[REDACTED_CUSTOMER], [REDACTED_EMAIL], [REDACTED_IBAN] and not DE89370400440532013001"
    )
