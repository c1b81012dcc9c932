"""The comparison itself: it forgives other ids and times, and nothing else."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.compare import ABSENT, TRANSCRIPTS, Difference, compare, compare_exchange, main
from contract.differences import EXPLAINED, Explained
from contract.normalise import FIXED_IDS, Ids, ids_in, template

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@pytest.fixture
def recorded_elsewhere(tmp_path: Path) -> Path:
    """The reference's transcripts as another run of it would have recorded them."""
    new: dict[str, str] = {}

    def other(found: re.Match[str]) -> str:
        return found[0] if found[0] in FIXED_IDS else new.setdefault(found[0], str(uuid.uuid4()))

    for path in TRANSCRIPTS.glob("*.jsonl"):
        text = UUID.sub(other, path.read_text())
        text = text.replace("2026-11-21T0", "2031-01-01T1").replace("127.0.0.1:8201", "127.0.0.1:9")
        (tmp_path / path.name).write_text(text)
    return tmp_path


def edited(directory: Path, name: str, edit: Callable[[list[dict[str, Any]]], None]) -> None:
    path = directory / name
    exchanges = [json.loads(line) for line in path.read_text().splitlines()]
    edit(exchanges)
    path.write_text("".join(json.dumps(exchange) + "\n" for exchange in exchanges))


def found(directory: Path) -> list[str]:
    report = compare(directory, only=["12"])
    return [f"{d.where}: {d.path}" for d in [*report.unexplained, *(d for d, _ in report.explained)]]


def test_a_recording_is_equal_to_itself() -> None:
    report = compare(TRANSCRIPTS)
    assert report.steps > 500
    assert report.unexplained == []
    assert report.explained == []


def test_other_ids_times_and_ports_are_no_difference(recorded_elsewhere: Path) -> None:
    assert compare(recorded_elsewhere).unexplained == []


def test_a_changed_value_is_found(recorded_elsewhere: Path) -> None:
    def edit(exchanges: list[dict[str, Any]]) -> None:
        exchanges[1]["response"]["body"]["status"] = "idle"

    edited(recorded_elsewhere, "12-interrupts.jsonl", edit)
    assert found(recorded_elsewhere) == ["12-interrupts/thread: response.body.status"]


def test_a_missing_and_an_additional_member_are_found(recorded_elsewhere: Path) -> None:
    def edit(exchanges: list[dict[str, Any]]) -> None:
        body = exchanges[1]["response"]["body"]
        body["more"] = body.pop("error")

    edited(recorded_elsewhere, "12-interrupts.jsonl", edit)
    assert found(recorded_elsewhere) == [
        "12-interrupts/thread: response.body.error",
        "12-interrupts/thread: response.body.more",
    ]


def test_a_missing_event_is_found_where_it_is_missing(recorded_elsewhere: Path) -> None:
    def edit(exchanges: list[dict[str, Any]]) -> None:
        del exchanges[6]["response"]["events"][2]

    edited(recorded_elsewhere, "12-interrupts.jsonl", edit)
    assert found(recorded_elsewhere) == ["12-interrupts/resume: response.events.2"]


def test_an_id_that_stands_for_two_things_is_found(recorded_elsewhere: Path) -> None:
    def edit(exchanges: list[dict[str, Any]]) -> None:
        exchanges[2]["response"]["body"][0]["run_id"] = exchanges[1]["response"]["body"]["thread_id"]

    edited(recorded_elsewhere, "12-interrupts.jsonl", edit)
    assert found(recorded_elsewhere) == ["12-interrupts/runs: response.body.0.run_id"]


def test_a_missing_step_is_found(recorded_elsewhere: Path) -> None:
    def edit(exchanges: list[dict[str, Any]]) -> None:
        exchanges[:] = [x for x in exchanges if x["step"] != "nested thread"]

    edited(recorded_elsewhere, "12-interrupts.jsonl", edit)
    assert found(recorded_elsewhere) == ["12-interrupts/nested thread: "]


def test_the_recorders_note_of_a_failure_is_found(recorded_elsewhere: Path) -> None:
    edited(recorded_elsewhere, "12-interrupts.jsonl", lambda exchanges: exchanges.append({"note": "recorder failed"}))
    assert found(recorded_elsewhere) == ["12-interrupts/(note): "]


def test_the_command_fails_on_an_unexplained_difference(
    recorded_elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--ours", str(recorded_elsewhere)]) == 0
    (recorded_elsewhere / "12-interrupts.jsonl").unlink()
    assert main(["--ours", str(recorded_elsewhere), "--only", "12"]) == 1
    assert "12-interrupts/wait: hitl" in capsys.readouterr().out


def test_members_named_by_ids_are_paired_by_what_they_hold() -> None:
    one, two, three, four = (str(uuid.uuid4()) for _ in range(4))
    theirs = {"response": {"body": {one: ["first"], two: ["second"]}}}
    ours = {"response": {"body": {three: ["second"], four: ["first"]}}}
    assert list(compare_exchange("x", theirs, ours)) == []


def test_ids_stand_for_each_other_one_to_one() -> None:
    a, b, c = (str(uuid.uuid4()) for _ in range(3))
    ids = Ids()
    assert ids.match(a, b)
    assert ids.match(a, b)
    assert not ids.match(a, c)
    assert not ids.match(c, b)
    assert ids.ours(a) == b


def test_an_id_that_the_contract_fixes_has_to_be_the_same() -> None:
    fixed = sorted(FIXED_IDS)
    assert Ids().match(fixed[0], fixed[0])
    assert not Ids().match(fixed[0], fixed[1])
    assert not Ids().match(fixed[0], str(uuid.uuid4()))


def test_text_around_ids_and_times_is_kept() -> None:
    one = str(uuid.uuid4())
    assert template(f"child:{one}|x at 2026-11-21T07:49:51.158475+00:00") == "child:<id>|x at <time>"
    assert ids_in(f"a {one} b {'0' * 32}") == [one, "0" * 32]


def test_a_rule_covers_its_place_only() -> None:
    rule = Explained("01-*/info", "response.body.*", "because", ours=1)
    place = Difference("01-system/info", "response.body.a", 0, 1)
    assert rule.covers(place)
    assert not rule.covers(Difference("01-system/info", "response.body.a", 0, 2))
    assert not rule.covers(Difference("02-x/info", "response.body.a", 0, 1))
    assert not rule.covers(Difference("01-system/info", "response.status", 0, 1))


def test_every_rule_gives_a_reason() -> None:
    assert [rule for rule in EXPLAINED if len(rule.reason.split()) < 4] == []
    assert ABSENT != ""
