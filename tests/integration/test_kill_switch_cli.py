"""`waystation kill` and `waystation budget` on a database without any server."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from waystation.auth.api_keys import make_key
from waystation.cli.commands import app

RUN = """
with t as (
    insert into thread (tenant_id, thread_id, status, active_runs) values (%(tenant)s, gen_random_uuid(), 'busy', 1)
    returning tenant_id, thread_id
)
insert into run (tenant_id, thread_id, run_id, assistant_id, graph_id, status, kwargs, attempt, lease_expires_at)
select tenant_id, thread_id, gen_random_uuid(), gen_random_uuid(), 'research', 'running', '{}', 1, now() + interval '1h'
from t
"""
SPENT = """
insert into guard_account (tenant_id, account_id, scope, owner, unit, spent)
values ('default', gen_random_uuid(), 'user', 'ann', 'usd', 1500000000)
"""


@pytest.fixture(autouse=True)
def here(database_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URI", database_uri)
    monkeypatch.chdir(tmp_path)


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def wishes(database_uri: str) -> dict[str, str | None]:
    with psycopg.connect(database_uri) as conn:
        return dict(conn.execute("select tenant_id, cancel_reason from run order by tenant_id").fetchall())


def test_a_tenants_running_runs_are_wished_to_stop_and_the_kill_is_listed_and_lifted(database_uri: str) -> None:
    with psycopg.connect(database_uri) as conn:
        for tenant in ("acme", "rival"):
            conn.execute(RUN, {"tenant": tenant})
    code, output = invoke("kill", "--tenant", "acme", "--reason", "unpaid", "--for", "12h")
    assert code == 0, output
    assert "1 running" in output
    assert wishes(database_uri) == {"acme": "Stopped by the kill switch: unpaid", "rival": None}
    _, listed = invoke("kill", "--list")
    (kill_id,) = re.findall(r"^(\S{36})  acme .*tenant acme  for 1[12]:\d\d:\d\d  unpaid$", listed, re.MULTILINE)
    assert invoke("kill", "--lift", kill_id) == (0, f"lifted  {kill_id}\n")
    assert invoke("kill", "--list")[1] == "Nothing is stopped.\n"
    assert invoke("kill", "--lift", kill_id)[0] == 2


def test_a_graph_is_stopped_for_all_tenants_or_for_one(database_uri: str) -> None:
    with psycopg.connect(database_uri) as conn:
        for tenant in ("acme", "rival"):
            conn.execute(RUN, {"tenant": tenant})
    assert invoke("kill", "--graph", "research", "--tenant", "rival")[0] == 0
    assert [tenant for tenant, reason in wishes(database_uri).items() if reason] == ["rival"]
    assert invoke("kill", "--graph", "research")[0] == 0
    assert [tenant for tenant, reason in wishes(database_uri).items() if reason] == ["acme", "rival"]


def test_a_key_is_stopped_by_its_id_or_by_itself(database_uri: str) -> None:
    made = make_key(tenant_id="acme", identity="ann", roles=["service"])
    assert invoke("kill", "--key", made.text)[0] == 2
    with psycopg.connect(database_uri) as conn:
        row = made.row
        conn.execute(
            "insert into api_key (key_id, tenant_id, identity, roles, salt, digest) values (%s, %s, %s, %s, %s, %s)",
            (row.key_id, row.tenant_id, row.identity, list(row.roles), row.salt, row.digest),
        )
    code, output = invoke("kill", "--key", made.text)
    assert (code, f"stopped  key {row.key_id} of tenant acme" in output) == (0, True)
    assert made.text not in output


def test_what_is_stopped_for_all_tenants_is_said_in_words(database_uri: str) -> None:
    _, said = invoke("kill", "--all")
    assert re.match(r"stopped  all tenants  \(\S{36}\)\n", said)
    assert re.match(r"\S{36}  all tenants   everything  until it is lifted\n", invoke("kill", "--list")[1])
    assert re.match(r"stopped  tenant acme  \(", invoke("kill", "--tenant", "acme")[1])


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--graph", "a", "--user", "b"),
        ("--all", "--tenant", "acme"),
        ("--list", "--graph", "a"),
        ("--tenant", "a/b"),
        ("--graph", "a", "--for", "soon"),
        ("--assistant", "agent"),
        ("--lift", "x"),
    ],
)
def test_a_wish_that_is_not_clear_is_refused(arguments: tuple[str, ...]) -> None:
    code, output = invoke("kill", *arguments)
    assert (code, output.startswith("Error: ")) == (2, True)


def test_what_is_spent_is_shown(database_uri: str) -> None:
    assert invoke("budget")[1] == "There are none.\n"
    with psycopg.connect(database_uri) as conn:
        conn.execute(SPENT)
    assert re.search(r"^user +ann +usd +- +1\.5 +0 +-$", invoke("budget", "--scope", "user")[1], re.MULTILINE)
    assert invoke("budget", "--tenant", "acme")[1] == "There are none.\n"
