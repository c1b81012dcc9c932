"""Group commit without a database: order, batches, room, deadlines. `commit` is a function of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from waystation_db.errors import DatabaseError, DatabaseUnavailable, Fenced
from waystation_db.group_commit import GroupCommit

pytestmark = pytest.mark.anyio


class Journal:
    """Takes batches of strings; what is in `bad` cannot be written, what is in `refused` may not be."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.bad: set[str] = set()
        self.refused: set[str] = set()
        self.away = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self, batch: Sequence[str]) -> list[DatabaseError | None]:
        await self.gate.wait()
        if self.away:
            self.away -= 1
            raise DatabaseUnavailable("away")
        if self.bad & set(batch):
            raise ValueError("bad")
        self.batches.append(list(batch))
        return [Fenced(one) if one in self.refused else None for one in batch]


async def test_what_comes_while_a_batch_is_under_way_goes_together_and_in_order() -> None:
    journal = Journal()
    commits = GroupCommit(journal.commit, retry_s=5, bytes_of=len, batch_items=3)
    journal.gate.clear()
    first = asyncio.ensure_future(commits.submit("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = [asyncio.ensure_future(commits.submit(one)) for one in "bcdef"]
    await asyncio.sleep(0)
    journal.gate.set()
    await asyncio.gather(first, *later)
    assert journal.batches == [["a"], ["b", "c", "d"], ["e", "f"]]


async def test_bad_and_refused_items_fail_alone() -> None:
    journal = Journal()
    journal.bad, journal.refused = {"b"}, {"c"}
    commits = GroupCommit(journal.commit, retry_s=5, bytes_of=len)
    outcomes = await asyncio.gather(*(commits.submit(one) for one in "abcd"), return_exceptions=True)
    assert [type(one) for one in outcomes] == [type(None), ValueError, Fenced, type(None)]
    assert journal.batches == [["a"], ["c"], ["d"]]


async def test_batch_is_tried_again_while_the_database_is_away() -> None:
    journal = Journal()
    journal.away = 3
    commits = GroupCommit(journal.commit, retry_s=5, bytes_of=len)
    await asyncio.gather(commits.submit("a"), commits.submit("b"))
    assert journal.batches == [["a", "b"]]
    assert commits.tries == 4


async def test_item_is_given_up_after_its_deadline_with_the_cause() -> None:
    journal = Journal()
    journal.away = 1000
    commits = GroupCommit(journal.commit, retry_s=0.2, bytes_of=len)
    with pytest.raises(DatabaseUnavailable) as raised:
        await commits.submit("a")
    assert isinstance(raised.value.__cause__, DatabaseUnavailable)
    journal.away = 0
    await commits.submit("b")
    assert journal.batches == [["b"]]


async def test_commit_that_hangs_is_given_up_after_the_deadline() -> None:
    journal = Journal()
    journal.gate.clear()
    commits = GroupCommit(journal.commit, retry_s=0.2, bytes_of=len)
    with pytest.raises(DatabaseUnavailable):
        await commits.submit("a")


async def test_callers_wait_for_room_and_keep_their_order() -> None:
    journal = Journal()
    journal.gate.clear()
    commits = GroupCommit(journal.commit, retry_s=5, bytes_of=len, bound=2)
    waiting = [asyncio.ensure_future(commits.submit(one)) for one in "abcde"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert commits.waiting <= 2
    journal.gate.set()
    await asyncio.gather(*waiting)
    assert [one for batch in journal.batches for one in batch] == list("abcde")


async def test_cancelled_caller_does_not_disturb_the_others() -> None:
    journal = Journal()
    journal.gate.clear()
    commits = GroupCommit(journal.commit, retry_s=5, bytes_of=len)
    waiting = [asyncio.ensure_future(commits.submit(one)) for one in "abc"]
    await asyncio.sleep(0)
    waiting[1].cancel()
    journal.gate.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in outcomes] == [type(None), asyncio.CancelledError, type(None)]


async def test_closing_waits_and_then_refuses() -> None:
    journal = Journal()
    commits = GroupCommit(journal.commit, retry_s=5, bytes_of=len)
    waiting = asyncio.ensure_future(commits.submit("a"))
    await asyncio.sleep(0)
    await commits.aclose()
    assert journal.batches == [["a"]]
    await waiting
    with pytest.raises(DatabaseUnavailable):
        await commits.submit("b")


async def test_batch_ends_before_it_is_too_long_and_a_long_item_goes_alone() -> None:
    journal = Journal()
    commits = GroupCommit(journal.commit, retry_s=5, bytes_of=len, batch_bytes=4)
    await asyncio.gather(*(commits.submit(one) for one in ("aa", "bb", "c", "dddddd", "e", "f")))
    assert journal.batches == [["aa", "bb"], ["c"], ["dddddd"], ["e", "f"]]


async def test_posted_items_keep_their_order_and_wait_for_room_only() -> None:
    journal = Journal()
    journal.gate.clear()
    journal.refused = {"b"}
    commits = GroupCommit(journal.commit, retry_s=5, bytes_of=len, bound=2)
    first, second = await commits.post("a"), await commits.post("b")
    third = asyncio.ensure_future(commits.post("c"))
    await asyncio.sleep(0)
    assert not third.done()
    journal.gate.set()
    await (await third)
    assert first.exception() is None
    assert isinstance(second.exception(), Fenced)
    assert [one for batch in journal.batches for one in batch] == list("abc")
