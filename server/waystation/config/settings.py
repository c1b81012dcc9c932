"""The server's settings: read from the environment once, when a process starts.

Addresses, secrets and limits come from here; what a project is made of comes from `langgraph.json`
(`catalog/project.py`). Each field says its variables, its unit and a sentence; `docs/configuration.md` repeats them and
a test compares the two.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from waystation.config.values import (
    AesKey,
    CommaList,
    Env,
    HttpUrl,
    JsonObject,
    KeyRing,
    LogLevel,
    LogRedactions,
    Networks,
    PostgresUri,
    RedisUri,
    Seconds,
    UrlPrefix,
    env,
)
from waystation.errors import ConfigError


class Settings(BaseModel):
    """What the environment says. Made by `Settings.load()`; in tests by `Settings(lease_s=1, …)`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Addresses
    database_uri: Annotated[
        PostgresUri | None,
        env("DATABASE_URI", "POSTGRES_URI_CUSTOM", "POSTGRES_URI", secret=True),
        Field(repr=False, description="Postgres. Without it `dev` and `up` start an embedded one; `serve` stops."),
    ] = None
    listen_uri: Annotated[
        PostgresUri | None,
        env("WAYSTATION_LISTEN_URI", secret=True),
        Field(repr=False, description="Direct address for LISTEN when DATABASE_URI leads to PgBouncer; else the same."),
    ] = None
    prepare: Annotated[
        bool,
        env("WAYSTATION_PREPARE"),
        Field(description="Prepared statements. Turn off behind PgBouncer in transaction mode."),
    ] = True
    postgres_pool_max_size: Annotated[
        int,
        env("LANGGRAPH_POSTGRES_POOL_MAX_SIZE", unit="connections"),
        Field(
            ge=2,
            le=1000,
            description="Postgres connections a pool may hold. The platform says 150; here a connection is held for "
            "one statement only, so 20 serve more runs than a core can, and a few processes fit a stock Postgres.",
        ),
    ] = 20
    redis_uri: Annotated[
        RedisUri | None,
        env("REDIS_URI_CUSTOM", "REDIS_URI", secret=True),
        Field(repr=False, description="Redis for live events between processes; Postgres carries them without it."),
    ] = None
    redis_key_prefix: Annotated[
        str, env("REDIS_KEY_PREFIX"), Field(max_length=64, description="Put before every Redis key.")
    ] = ""
    event_log: Annotated[
        Literal["auto", "memory", "redis", "postgres"],
        env("WAYSTATION_EVENT_LOG"),
        Field(
            description="Where live events travel. `auto`: Redis where there is an address, else memory in a process "
            "that executes its own runs, else Postgres."
        ),
    ] = "auto"

    # Encryption at rest
    langgraph_aes_key: Annotated[
        AesKey | None,
        env("LANGGRAPH_AES_KEY", unit="bytes", secret=True),
        Field(
            repr=False, description="Encrypts what is stored; 16, 24 or 32 bytes. Also reads what LangGraph encrypted."
        ),
    ] = None
    encryption_keys: Annotated[
        KeyRing | None,
        env("WAYSTATION_ENCRYPTION_KEYS", secret=True),
        Field(repr=False, description="A ring of keys, `id:base64,...`: the first one encrypts, all of them decrypt."),
    ] = None
    langgraph_aes_json_keys: Annotated[
        CommaList,
        env("LANGGRAPH_AES_JSON_KEYS"),
        Field(description="Members of metadata to encrypt too, by comma. They cannot be searched for any more."),
    ] = ()

    # Runs
    n_jobs_per_worker: Annotated[
        int,
        env("N_JOBS_PER_WORKER", unit="runs"),
        Field(ge=0, le=10_000, description="Runs a process executes at a time; 0 serves the API only."),
    ] = 10
    bg_job_timeout_s: Annotated[
        Seconds, env("BG_JOB_TIMEOUT_SECS", unit="s"), Field(description="Longest run; then its status is `timeout`.")
    ] = 3600
    shutdown_grace_s: Annotated[
        float,
        env("BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS", unit="s"),
        Field(ge=0, le=3600, description="How long a stopping process lets runs finish or hand over."),
    ] = 180
    lease_s: Annotated[
        Seconds,
        env("WAYSTATION_LEASE_S", unit="s"),
        Field(description="How long a claimed run belongs to a worker that does not renew."),
    ] = 10
    renew_s: Annotated[
        Seconds,
        env("WAYSTATION_RENEW_S", unit="s"),
        Field(description="How often a worker renews; at most half the lease, so that one lost renewal costs nothing."),
    ] = 3
    sweep_s: Annotated[
        Seconds,
        env("WAYSTATION_SWEEP_S", unit="s"),
        Field(description="How often runs with a past lease are put back."),
    ] = 2
    poll_s: Annotated[
        Seconds,
        env("WAYSTATION_POLL_S", unit="s"),
        Field(description="How often a worker looks for work that no wake-up told of."),
    ] = 1
    abandon_s: Annotated[
        float,
        env("WAYSTATION_ABANDON_S", unit="s"),
        Field(ge=0, le=3600, description="How long a cancelled node may go on before it is left behind the fence."),
    ] = 2
    max_crashes: Annotated[
        int,
        env("WAYSTATION_MAX_CRASHES", unit="executions"),
        Field(ge=1, le=100, description="How often a run is executed that takes its process down; then it is `error`."),
    ] = 3

    # Crons
    cron_missed: Annotated[
        Literal["once", "skip", "all"],
        env("WAYSTATION_CRON_MISSED"),
        Field(
            description="What happens to the ticks of a cron that passed while no worker was up: one run for all of "
            "them, none, or one each (at most 100)."
        ),
    ] = "once"
    cron_min_interval_s: Annotated[
        float,
        env("WAYSTATION_CRON_MIN_INTERVAL_S", unit="s"),
        Field(ge=1, le=31_536_000, description="Shortest time between two ticks of a cron; shorter ones give 422."),
    ] = 1

    # Webhooks
    webhook_secret: Annotated[
        str | None,
        env("WAYSTATION_WEBHOOK_SECRET", secret=True),
        Field(repr=False, description="Key of the signatures: `whsec_` and base64, or any text. Unset: not signed."),
    ] = None
    webhook_secret_previous: Annotated[
        str | None,
        env("WAYSTATION_WEBHOOK_SECRET_PREVIOUS", secret=True),
        Field(repr=False, description="The key before, during a rotation: webhooks are signed with both."),
    ] = None
    webhook_tries: Annotated[
        int,
        env("WAYSTATION_WEBHOOK_TRIES", unit="tries"),
        Field(ge=1, le=100, description="How often a webhook is sent until it is given up (`spent`)."),
    ] = 10
    webhook_retry_s: Annotated[
        Seconds,
        env("WAYSTATION_WEBHOOK_RETRY_S", unit="s"),
        Field(description="Wait before the second try; three times as long before each one after it, at most 6 hours."),
    ] = 5
    webhook_timeout_s: Annotated[
        float,
        env("WAYSTATION_WEBHOOK_TIMEOUT_S", unit="s"),
        Field(gt=0, le=30, description="How long one try may take in all."),
    ] = 10
    webhook_keep_days: Annotated[
        float,
        env("WAYSTATION_WEBHOOK_KEEP_DAYS", unit="days"),
        Field(gt=0, le=3650, description="How long spent webhooks can be listed and replayed; delivered ones a day."),
    ] = 7
    webhook_networks: Annotated[
        Networks | None,
        env("WAYSTATION_WEBHOOK_NETWORKS"),
        Field(description="Private networks that webhooks may go to, by comma, such as `10.0.0.0/8`."),
    ] = None
    base_url: Annotated[
        HttpUrl | None,
        env("WAYSTATION_BASE_URL"),
        Field(description="Where workers reach this API, for webhooks that are paths. A process that serves knows it."),
    ] = None

    # Limits
    max_queue: Annotated[
        int,
        env("WAYSTATION_MAX_QUEUE", unit="runs"),
        Field(ge=1, description="Runs that may wait; beyond it new ones are refused with 503 and `Retry-After`."),
    ] = 10_000
    max_body_bytes: Annotated[
        int,
        env("WAYSTATION_MAX_BODY_BYTES", unit="bytes"),
        Field(ge=1024, description="Largest request body; then 413."),
    ] = 20 * 1024 * 1024
    max_stream_readers: Annotated[
        int,
        env("WAYSTATION_MAX_STREAM_READERS", unit="readers"),
        Field(ge=1, description="Streams a process serves at a time; beyond it 503."),
    ] = 10_000
    stream_buffer_bytes: Annotated[
        int,
        env("WAYSTATION_STREAM_BUFFER_BYTES", unit="bytes"),
        Field(
            ge=64 * 1024,
            description="Events of a live run kept for its readers; who falls further behind is cut off.",
        ),
    ] = 32 * 1024 * 1024
    resumable_stream_ttl_s: Annotated[
        Seconds,
        env("RESUMABLE_STREAM_TTL_SECONDS", unit="s"),
        Field(description="How long the events of a resumable stream can be read after the run has ended."),
    ] = 120

    # HTTP
    cors_allow_origins: Annotated[
        CommaList,
        env("CORS_ALLOW_ORIGINS"),
        Field(description="Origins a browser may call from, by comma. `http.cors` replaces it."),
    ] = ("*",)
    mount_prefix: Annotated[
        UrlPrefix | None,
        env("MOUNT_PREFIX"),
        Field(description="Path below which everything is served, such as `/api`. `http.mount_prefix` wins."),
    ] = None
    expose_errors: Annotated[
        bool,
        env("WAYSTATION_EXPOSE_ERRORS"),
        Field(description="Send the text of a graph's exception to its clients as the platform does; else its class."),
    ] = True

    # Auth
    auth: Annotated[
        JsonObject | None,
        env("WAYSTATION_AUTH"),
        Field(description="`waystation.auth` of langgraph.json as JSON; in place of what stands there."),
    ] = None
    key_pepper: Annotated[
        str | None,
        env("WAYSTATION_KEY_PEPPER", secret=True),
        Field(
            min_length=16,
            repr=False,
            description="Goes into the hashes of API keys that are made from now on; the same in all processes.",
        ),
    ] = None
    jwt_secret: Annotated[
        str | None,
        env("WAYSTATION_JWT_SECRET", secret=True),
        Field(min_length=32, repr=False, description="What tokens with an HS algorithm are signed with."),
    ] = None
    studio_auth: Annotated[
        Literal["keys", "local"],
        env("WAYSTATION_STUDIO_AUTH"),
        Field(
            description="Who may come as a developer from the Studio, in a project with auth: with an admin's API key, "
            "or also without one from this machine. `dev` has `local`."
        ),
    ] = "keys"

    # Logs
    log_level: Annotated[LogLevel, env("LOG_LEVEL"), Field(description="Least severe level that is logged.")] = "INFO"
    log_json: Annotated[
        bool | None,
        env("LOG_JSON"),
        Field(description="One JSON object a line. Unset: where stdout is no terminal, but never in `dev`."),
    ] = None
    access_log: Annotated[
        bool,
        env("WAYSTATION_ACCESS_LOG"),
        Field(description="A line for each request that is answered, without its query; not for health checks."),
    ] = False
    log_color: Annotated[bool, env("LOG_COLOR"), Field(description="Colours, on a terminal.")] = True
    log_redact: Annotated[
        LogRedactions,
        env("WAYSTATION_LOG_REDACT"),
        Field(
            description="What is taken out of log lines, by comma: `secret`, `email`, `iban`, `credit_card`, `ip`, "
            "`phone`; or `all`."
        ),
    ] = ()

    # Traces
    trace_content: Annotated[
        bool,
        env("WAYSTATION_TRACE_CONTENT"),
        Field(description="Show prompts, arguments and answers in OpenTelemetry's spans."),
    ] = False
    trace_redact: Annotated[
        LogRedactions,
        env("WAYSTATION_TRACE_REDACT"),
        Field(description="What is taken out of traces, LangSmith's too; as `WAYSTATION_LOG_REDACT`."),
    ] = ()

    # The project, where an image hands it over instead of a langgraph.json (`catalog/project.py` checks the content)
    langserve_graphs: Annotated[
        JsonObject | None,
        env("LANGSERVE_GRAPHS"),
        Field(description="`graphs` as JSON, when there is no langgraph.json."),
    ] = None
    langgraph_store: Annotated[
        JsonObject | None, env("LANGGRAPH_STORE"), Field(description="`store` as JSON, likewise.")
    ] = None
    langgraph_checkpointer: Annotated[
        JsonObject | None, env("LANGGRAPH_CHECKPOINTER"), Field(description="`checkpointer` as JSON, likewise.")
    ] = None
    langgraph_auth: Annotated[
        JsonObject | None, env("LANGGRAPH_AUTH"), Field(description="`auth` as JSON, likewise.")
    ] = None
    langgraph_http: Annotated[
        JsonObject | None, env("LANGGRAPH_HTTP"), Field(description="`http` as JSON, likewise.")
    ] = None
    langgraph_webhooks: Annotated[
        JsonObject | None, env("LANGGRAPH_WEBHOOKS"), Field(description="`webhooks` as JSON, likewise.")
    ] = None
    langgraph_encryption: Annotated[
        JsonObject | None, env("LANGGRAPH_ENCRYPTION"), Field(description="`encryption` as JSON, likewise.")
    ] = None
    langgraph_priority: Annotated[
        JsonObject | None, env("LANGGRAPH_PRIORITY"), Field(description="`priority` as JSON, likewise.")
    ] = None
    langgraph_ui: Annotated[JsonObject | None, env("LANGGRAPH_UI"), Field(description="`ui` as JSON, likewise.")] = None
    langgraph_ui_config: Annotated[
        JsonObject | None, env("LANGGRAPH_UI_CONFIG"), Field(description="`ui_config` as JSON, likewise.")
    ] = None

    @model_validator(mode="after")
    def _a_lost_renewal_costs_nothing(self) -> Self:
        if self.renew_s * 2 > self.lease_s:
            raise ValueError(
                f"WAYSTATION_RENEW_S is {self.renew_s:g} and WAYSTATION_LEASE_S {self.lease_s:g}: "
                "renewing should happen at least twice per lease"
            )
        return self

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read `environ` (the process's own by default). Empty variables count as not set.

        Raises:
            ConfigError: a value cannot be used, or a `WAYSTATION_…` variable is unknown; the message names all of them.
        """
        environ = os.environ if environ is None else environ
        complaints = list(_unknown(environ))
        found = dict(_sources(environ))
        try:
            settings = cls.model_validate({field: environ[name].strip() for field, name in found.items()})
        except ValidationError as e:
            complaints += _complaints(e, found)
            raise ConfigError("\n".join(complaints)) from None
        if complaints:
            raise ConfigError("\n".join(complaints))
        return settings


def settings_environment() -> Mapping[str, Env]:
    """Field → where it comes from, in the order of the fields."""
    return {
        field: next(m for m in info.metadata if isinstance(m, Env)) for field, info in Settings.model_fields.items()
    }


_READ_BY_GRAPHS = {"WAYSTATION_MODEL", "WAYSTATION_OFFLINE_DELAY_MS"}
"""Variables with our prefix that are no setting of the server."""

# Kubernetes puts these into every pod beside a Service called waystation or waystation-api: no setting may look so.
_SERVICE_LINK = re.compile(
    r"WAYSTATION_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def _sources(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for field, source in settings_environment().items():
        for name in source.names:
            if environ.get(name, "").strip():
                yield field, name
                break


def _unknown(environ: Mapping[str, str]) -> Iterator[str]:
    known = {name for source in settings_environment().values() for name in source.names} | _READ_BY_GRAPHS
    for name in sorted(environ):
        if not name.startswith("WAYSTATION_") or name.startswith("WAYSTATION_TEST_") or name in known:
            continue
        if _SERVICE_LINK.fullmatch(name):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        yield f"{name} is no setting" + (
            f"; did you mean {near[0]}?" if near else " (docs/configuration.md lists them)"
        )


def _complaints(error: ValidationError, found: Mapping[str, str]) -> list[str]:
    sources = settings_environment()
    lines: list[str] = []
    for item in error.errors(include_url=False, include_context=False):
        message = item["msg"].removeprefix("Value error, ")
        if not item["loc"]:
            lines.append(message)
            continue
        field = str(item["loc"][0])
        shown = "a secret" if sources[field].secret else repr(item["input"])[:200]
        lines.append(f"{found[field]} is {shown}: {message[:1].lower()}{message[1:]}")
    return lines
