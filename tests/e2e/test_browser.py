"""The official React hooks in a real browser, on pages of another origin, against the reference graphs.

    classic    `useStream` of @langchain/langgraph-sdk: the runs API
    chat       `useStream` of @langchain/react: the event streaming protocol, by SSE and by WebSocket

Needs Node.js and npm to build the pages, and Chromium; `browser/` holds the pages.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from live_server import LiveServer, server_process
from services import once_per_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SOURCES = Path(__file__).parent / "browser"
REPOSITORY = Path(__file__).parents[2]
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
PATIENCE_MS = 60_000

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and shutil.which("node") and shutil.which("npm")), reason="Chromium or Node.js is not here"
)

HOOKS = ("classic", "sse", "websocket")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pages:
    """Opens the pages in a browser, each in a tab of its own."""

    browser: Browser
    origin: str
    server: LiveServer

    def open(self, hook: str, assistant: str, *, thread: str | None = None) -> Page:
        """A page with one hook, bound to an assistant. What its console complains of is in the test's output."""
        page = self.browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: log.info("console: %s", message.text))
        page.on("pageerror", lambda error: log.error("page error: %s", error))
        asked = {"api": self.server.url, "assistant": assistant, "transport": hook}
        if thread:
            asked["thread"] = thread
        file = "classic" if hook == "classic" else "chat"
        page.goto(f"{self.origin}/{file}.html?{urlencode(asked)}")
        return page


@pytest.fixture(scope="session")
def built(run_dir: Path) -> Path:
    """The folder of the built pages."""
    with once_per_run(run_dir, "browser"):
        npm = functools.partial(subprocess.run, cwd=SOURCES, capture_output=True, text=True, timeout=120, check=False)
        installed, locked = SOURCES / "node_modules" / ".package-lock.json", SOURCES / "package-lock.json"
        if not installed.exists() or installed.stat().st_mtime < locked.stat().st_mtime:
            done = npm(["npm", "ci", "--no-progress", "--ignore-scripts"])
            assert done.returncode == 0, done.stderr
        done = npm(["npm", "run", "build"])
        assert done.returncode == 0, done.stderr
        for name in ("chat", "classic"):
            head = f'<!doctype html><meta charset="utf-8"><title>{name}</title>'
            (SOURCES / "built" / f"{name}.html").write_text(f'{head}<body><script src="{name}.js"></script></body>')
    return SOURCES / "built"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None: ...


@contextmanager
def _static(folder: Path) -> Generator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def pages(built: Path, make_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Generator[Pages]:
    """A server with the reference graphs, and a browser."""
    folder = tmp_path_factory.mktemp("browser")
    with (
        server_process(make_database(), log=folder / "server.log", project=REPOSITORY) as server,
        _static(built) as origin,
        sync_playwright() as playwright,
    ):
        context = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield Pages(context, origin, server)
        context.close()


def say(page: Page, text: str) -> None:
    page.fill("#draft", text)
    page.click("#send")


def idle(page: Page) -> None:
    expect(page.locator("#state")).to_have_text("idle", timeout=PATIENCE_MS)


def last_answer(page: Page) -> Locator:
    return page.locator("#messages > li").last


def thread_of(page: Page) -> str:
    expect(page.locator("#thread")).to_have_text(re.compile("[0-9a-f-]{36}"), timeout=PATIENCE_MS)
    return page.locator("#thread").inner_text()


def run_of(pages: Pages, thread: str) -> dict[str, Any]:
    return httpx.get(f"{pages.server.url}/threads/{thread}/runs", timeout=60).json()[0]


@pytest.mark.parametrize("hook", HOOKS)
def test_an_agent_answers_with_its_tools(pages: Pages, hook: str) -> None:
    page = pages.open(hook, "agent")
    say(page, "What is 17 * 23?")
    expect(last_answer(page)).to_contain_text("391", timeout=PATIENCE_MS)
    idle(page)
    expect(page.locator("#messages .call")).to_have_text(re.compile(r"calculator\(.*17 \* 23.*\)"))
    assert page.locator("#messages > li").evaluate_all("all => all.map(one => one.className)") == [
        *("human", "ai", "tool", "ai"),
    ]
    say(page, "What is 2 + 40?")
    expect(last_answer(page)).to_contain_text("42", timeout=PATIENCE_MS)
    idle(page)
    assert page.locator("#messages > li").count() == 8


@pytest.mark.parametrize("hook", HOOKS)
def test_the_answer_grows_while_it_is_written(pages: Pages, hook: str) -> None:
    page = pages.open(hook, "agent")
    page.evaluate(
        """() => {
            window.lengths = [];
            new MutationObserver(() => {
                const last = document.querySelector('#messages > li.ai:last-child span');
                if (last) window.lengths.push(last.textContent.length);
            }).observe(document.body, { subtree: true, childList: true, characterData: true });
        }"""
    )
    say(page, "Say something that takes a few words.")
    expect(page.locator("#messages > li.ai span").last).not_to_be_empty(timeout=PATIENCE_MS)
    idle(page)
    lengths = [length for length in page.evaluate("window.lengths") if length]
    assert len(set(lengths)) >= 5
    assert lengths == sorted(lengths), "the text never shrinks"


@pytest.mark.parametrize("hook", HOOKS)
def test_a_person_approves_in_the_page(pages: Pages, hook: str) -> None:
    page = pages.open(hook, "approval")
    say(page, "Send an email to ada@example.com about the meeting.")
    question = page.locator(".question pre")
    expect(question).to_contain_text("send_email", timeout=PATIENCE_MS)
    idle(page)
    assert json.loads(question.inner_text())["action_requests"][0]["name"] == "send_email"
    page.click(".approve")
    expect(page.locator("#messages > li.tool")).to_have_count(1, timeout=PATIENCE_MS)
    expect(page.locator(".question")).to_have_count(0, timeout=PATIENCE_MS)
    idle(page)
    assert last_answer(page).get_attribute("class") == "ai"


@pytest.mark.parametrize("hook", HOOKS)
def test_stop_ends_the_run(pages: Pages, hook: str) -> None:
    page = pages.open(hook, "agent")
    say(page, "Tell me a long story.")
    expect(page.locator("#messages > li.ai span").last).not_to_be_empty(timeout=PATIENCE_MS)
    page.click("#stop")
    idle(page)
    thread = thread_of(page)
    if hook == "classic":  # leaves the run alone: it was started to go on without its page
        return
    httpx.get(f"{pages.server.url}/threads/{thread}/runs/{run_of(pages, thread)['run_id']}/join", timeout=60)
    assert run_of(pages, thread)["status"] == "interrupted"


@pytest.mark.parametrize("hook", HOOKS)
def test_a_page_that_is_opened_again_shows_the_conversation(pages: Pages, hook: str) -> None:
    page = pages.open(hook, "agent")
    say(page, "What is 6 * 7?")
    expect(last_answer(page)).to_contain_text("42", timeout=PATIENCE_MS)
    idle(page)
    again = pages.open(hook, "agent", thread=thread_of(page))
    page.close()
    expect(again.locator("#messages > li")).to_have_count(4, timeout=PATIENCE_MS)
    say(again, "What is 5 * 5?")
    expect(last_answer(again)).to_contain_text("25", timeout=PATIENCE_MS)


@pytest.mark.parametrize("hook", ["sse", "websocket"])
def test_a_page_that_joins_late_sees_the_running_answer_to_its_end(pages: Pages, hook: str) -> None:
    first = pages.open(hook, "agent")
    say(first, "Tell me something about checkpoints in a few sentences.")
    expect(first.locator("#messages > li.ai span").last).not_to_be_empty(timeout=PATIENCE_MS)
    second = pages.open(hook, "agent", thread=thread_of(first))
    idle(first)
    text = last_answer(first).inner_text()
    expect(last_answer(second)).to_have_text(re.compile(re.escape(text.splitlines()[-1][-60:])), timeout=PATIENCE_MS)
    idle(second)
    assert second.locator("#messages > li").all_inner_texts() == first.locator("#messages > li").all_inner_texts()


@pytest.mark.parametrize("hook", ["sse", "websocket"])
def test_the_page_shows_the_tools_that_run(pages: Pages, hook: str) -> None:
    page = pages.open(hook, "agent")
    say(page, "What is 12 * 12?")
    expect(page.locator("#tools")).to_contain_text("calculator=", timeout=PATIENCE_MS)
    idle(page)
    expect(page.locator("#tools")).to_contain_text("144")


def test_an_earlier_question_is_asked_otherwise_and_the_old_answer_stays_in_the_history(pages: Pages) -> None:
    page = pages.open("classic", "agent")
    for question, answer in (("What is 2 + 40?", "42"), ("What is 5 * 5?", "25")):
        say(page, question)
        expect(last_answer(page)).to_contain_text(answer, timeout=PATIENCE_MS)
        idle(page)
    page.fill("#draft", "What is 3 + 3?")
    page.locator("#messages > li.human .edit").first.click()
    expect(page.locator("#messages > li")).to_have_count(4, timeout=PATIENCE_MS)
    expect(last_answer(page)).to_contain_text("= 6", timeout=PATIENCE_MS)
    idle(page)
    assert "What is 3 + 3?" in page.locator("#messages > li.human span").inner_text()
    history: list[Any] = httpx.get(f"{pages.server.url}/threads/{thread_of(page)}/history?limit=100", timeout=60).json()
    said = {message["content"] for state in history for message in state["values"].get("messages", ())}
    assert {"What is 2 + 40?", "What is 5 * 5?", "What is 3 + 3?"} <= said


@pytest.mark.parametrize("hook", HOOKS)
def test_a_reload_in_the_middle_of_an_answer_comes_back_to_it(pages: Pages, hook: str) -> None:
    page = pages.open(hook, "agent")
    say(page, "Tell me something about checkpoints in a few sentences.")
    expect(page.locator("#messages > li.ai span").last).to_contain_text("offline model", timeout=PATIENCE_MS)
    expect(page).to_have_url(re.compile("thread="))
    page.reload()
    expect(page.locator("#messages > li")).not_to_have_count(0, timeout=PATIENCE_MS)
    thread = thread_of(page)
    run = run_of(pages, thread)
    httpx.get(f"{pages.server.url}/threads/{thread}/runs/{run['run_id']}/join", timeout=60)
    assert run_of(pages, thread)["status"] == "success"
    idle(page)
    state: Any = httpx.get(f"{pages.server.url}/threads/{thread}/state", timeout=60).json()
    content: Any = state["values"]["messages"][-1]["content"]
    text = content if isinstance(content, str) else "".join(block["text"] for block in content)
    expect(last_answer(page)).to_contain_text(text.split()[-1], timeout=PATIENCE_MS)
    assert page.locator("#messages > li").count() == len(state["values"]["messages"])
