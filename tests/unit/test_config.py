"""The settings: what the environment may say, what stops the start, and that the documentation knows them all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest
from pydantic_core import PydanticUndefined

from waystation.config import Settings, export_environment, settings_environment
from waystation.errors import ConfigError

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"


def complaint(**environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Settings.load(environ)
    return caught.value.message


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.load({})

    assert settings.n_jobs_per_worker == 10
    assert (settings.lease_s, settings.renew_s, settings.sweep_s, settings.poll_s) == (10, 3, 2, 1)
    assert settings.bg_job_timeout_s == 3600
    assert settings.cors_allow_origins == ("*",)
    assert settings.database_uri is None


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.load({"REDIS_URI": "", "N_JOBS_PER_WORKER": " "}) == Settings.load({})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"POSTGRES_URI": "postgres://compose"}, "postgres://compose"),
        ({"POSTGRES_URI": "postgres://compose", "POSTGRES_URI_CUSTOM": "postgres://own"}, "postgres://own"),
        (
            {
                "POSTGRES_URI": "postgres://compose",
                "POSTGRES_URI_CUSTOM": "postgres://own",
                "DATABASE_URI": "postgresql://first",
            },
            "postgresql://first",
        ),
    ],
)
def test_all_three_names_of_the_database_work_and_the_most_deliberate_wins(
    environ: dict[str, str], expected: str
) -> None:
    assert Settings.load(environ).database_uri == expected


def test_an_own_redis_wins_over_the_one_of_the_compose_file() -> None:
    settings = Settings.load({"REDIS_URI": "redis://compose", "REDIS_URI_CUSTOM": "redis://own"})
    assert settings.redis_uri == "redis://own"


def test_a_wrong_value_names_the_variable_the_value_and_what_was_expected() -> None:
    message = complaint(N_JOBS_PER_WORKER="many")
    assert message.startswith("N_JOBS_PER_WORKER is 'many': ")
    assert "integer" in message


def test_all_wrong_values_are_told_at_once() -> None:
    message = complaint(LOG_LEVEL="loud", BG_JOB_TIMEOUT_SECS="-1", WAYSTATION_LEASE_SS="3")
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-3", "soon"])
def test_a_lease_is_a_finite_positive_number_of_seconds(value: str) -> None:
    assert "WAYSTATION_LEASE_S" in complaint(WAYSTATION_LEASE_S=value)


def test_a_lease_must_be_renewed_twice_in_its_time() -> None:
    message = complaint(WAYSTATION_LEASE_S="4")
    assert "WAYSTATION_RENEW_S is 3" in message
    assert "WAYSTATION_LEASE_S 4" in message


def test_a_wrong_address_is_refused_without_showing_the_password() -> None:
    message = complaint(DATABASE_URI="mysql://me:hunter2@db/app")
    assert "DATABASE_URI" in message
    assert "postgres://" in message
    assert "hunter2" not in message


def test_settings_do_not_show_passwords_when_printed() -> None:
    assert "hunter2" not in repr(Settings.load({"DATABASE_URI": "postgres://me:hunter2@db/app"}))


def test_an_unknown_variable_of_ours_is_named_with_the_one_that_was_meant() -> None:
    assert complaint(WAYSTATION_LEAS_S="3") == "WAYSTATION_LEAS_S is no setting; did you mean WAYSTATION_LEASE_S?"


@pytest.mark.parametrize(
    "name",
    [
        "WAYSTATION_MODEL",
        "WAYSTATION_TEST_ANYTHING",
        "WAYSTATION_PORT",
        "WAYSTATION_PORT_8000_TCP_ADDR",
        "WAYSTATION_SERVICE_HOST",
        "WAYSTATION_API_SERVICE_PORT_HTTP",
        "BG_JOB_ISOLATED_LOOPS",
        "LANGGRAPH_CLOUD_LICENSE_KEY",
    ],
)
def test_variables_that_are_not_for_the_server_are_left_alone(name: str) -> None:
    assert Settings.load({name: "tcp://10.0.0.1:80"}) == Settings.load({})


def test_no_setting_has_a_name_that_kubernetes_sets() -> None:
    names = [name for env in settings_environment().values() for name in env.names]
    assert not [name for name in names if name.startswith("WAYSTATION_") and name.endswith(("_PORT", "_HOST"))]


def test_a_json_variable_becomes_an_object() -> None:
    assert Settings.load({"LANGSERVE_GRAPHS": '{"a": "./a.py:g"}'}).langserve_graphs == {"a": "./a.py:g"}


@pytest.mark.parametrize("value", ["{", "[]", "1", '"a"'])
def test_a_json_variable_that_is_no_object_is_refused(value: str) -> None:
    assert "should be a JSON object" in complaint(LANGSERVE_GRAPHS=value)


def test_origins_are_a_comma_list() -> None:
    settings = Settings.load({"CORS_ALLOW_ORIGINS": "https://a.example, https://b.example,"})
    assert settings.cors_allow_origins == ("https://a.example", "https://b.example")


@pytest.mark.parametrize("value", ["api", "/api/", "/"])
def test_a_prefix_that_would_not_match_is_refused(value: str) -> None:
    assert "MOUNT_PREFIX" in complaint(MOUNT_PREFIX=value)


def test_an_exported_variable_does_not_displace_what_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAYSTATION_TEST_SET", "before")
    monkeypatch.setenv("WAYSTATION_TEST_NEW", "to be undone")
    monkeypatch.delenv("WAYSTATION_TEST_NEW")

    export_environment({"WAYSTATION_TEST_SET": "after", "WAYSTATION_TEST_NEW": "after"})

    assert os.environ["WAYSTATION_TEST_SET"] == "before"
    assert os.environ["WAYSTATION_TEST_NEW"] == "after"


def documented_row(field: str) -> str:
    """The row that docs/configuration.md must have for a setting."""
    info = Settings.model_fields[field]
    env = settings_environment()[field]
    default = info.default
    assert default is not PydanticUndefined, f"{field} has no default: a server must start without it"
    assert info.description, f"{field} has no sentence"
    match default:
        case None:
            shown = "none"
        case bool():
            shown = f"`{str(default).lower()}`"
        case tuple():
            shown = f"`{','.join(cast(tuple[str, ...], default))}`"
        case "":
            shown = "empty"
        case _:
            shown = f"`{default}`" + (f" {env.unit}" if env.unit else "")
    return f"| {', '.join(f'`{name}`' for name in env.names)} | {shown} | {info.description} |"


@pytest.mark.parametrize("field", Settings.model_fields)
def test_the_documentation_has_the_setting_as_it_is(field: str) -> None:
    assert documented_row(field) in DOCS.read_text(encoding="utf-8").splitlines()
