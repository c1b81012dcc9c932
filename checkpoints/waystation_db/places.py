"""The places of what threads, runs, crons and store items keep: to what each sealed value is bound.

| value                                     | bound to                         | because                             |
|-------------------------------------------|----------------------------------|-------------------------------------|
| of checkpoints                            | thread, namespace, checkpoint, … | see `checkpoint_sealing`            |
| values, interrupts, error of a thread     | tenant, thread                   | a copy of a thread is sealed anew   |
| error of a run                            | tenant, thread                   | it is the thread's error too        |
| kwargs of a run, what it asked            | tenant, run                      |                                     |
| members of metadata, of a thread's and an | tenant, name of the member       | SQL merges them from row to row     |
| assistant's config                        |                                  |                                     |
| context of an assistant, and in its runs  | tenant, assistant                | SQL copies it into versions, runs   |
| payload and owner of a cron               | tenant, cron                     |                                     |
| value of a store item                     | namespace as stored, key         | a tenant's namespaces are its own   |
| events of a run                           | tenant, run, position            |                                     |
| what guards cache                         | tenant, key                      |                                     |
"""

from __future__ import annotations

from typing import Literal

from waystation_db.cipher import Place
from waystation_db.rows import RunKey

ThreadField = Literal["values", "interrupts", "error"]


def thread_place(tenant_id: str, thread_id: str, field: ThreadField) -> Place:
    """What a thread shows of its state. Its runs' errors have the same place."""
    return Place("thread", field, (tenant_id, thread_id))


def kwargs_place(tenant_id: str, run_id: str) -> Place:
    """What a run was asked for."""
    return Place("run", "kwargs", (tenant_id, run_id))


def asked_place(tenant_id: str, run_id: str) -> Place:
    """What a run asked when it stopped."""
    return Place("run", "asked", (tenant_id, run_id))


def metadata_place(tenant_id: str) -> Place:
    """Members of the metadata of threads, runs, assistants and crons: they go from one to the other."""
    return Place("thread", "metadata", (tenant_id,))


def config_place(tenant_id: str) -> Place:
    """Members of the config that a thread shows, and of an assistant's: they go from one to the other."""
    return Place("thread", "config", (tenant_id,))


def assistant_context_place(tenant_id: str, assistant_id: str) -> Place:
    """The context of an assistant, of its versions, and of runs that have it from there."""
    return Place("assistant", "context", (tenant_id, assistant_id))


def store_place(prefix: str, key: str) -> Place:
    """The value of a store item; `prefix` is its namespace as the row has it."""
    return Place("store", "value", (prefix, key))


def cron_place(tenant_id: str, cron_id: str, field: str) -> Place:
    """What a cron's runs are asked for (`payload`), and for whom they are (`owner`)."""
    return Place("cron", field, (tenant_id, cron_id))


def event_place(key: RunKey, epoch_ms: int, first_counter: int) -> Place:
    """A chunk of a run's events."""
    return Place("run", "events", (key.tenant_id, key.run_id, str(epoch_ms), str(first_counter)))


def end_place(key: RunKey) -> Place:
    """The output that the event log keeps with the end of a run."""
    return Place("run", "output", (key.tenant_id, key.run_id))


def cache_place(tenant_id: str, key: str) -> Place:
    """What a guard keeps to give the same answer again."""
    return Place("guard", "cache", (tenant_id, key))
