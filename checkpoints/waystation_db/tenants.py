"""Tenants in LangGraph's tables, which know none: the thread of a tenant has its checkpoints under `tenant/thread`.

The default tenant's stand under the thread's id as it is, so that an existing LangGraph database is served as ever.
`waystation_checkpoint_thread` of migration 0022 says the same in SQL.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

from langchain_core.runnables import RunnableConfig

DEFAULT_TENANT: Final = "default"

_OF_A_TENANT = re.compile(r"[^/]+/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def checkpoint_thread(tenant_id: str, thread_id: str) -> str:
    """What names a thread in LangGraph's tables."""
    return thread_id if tenant_id == DEFAULT_TENANT else f"{tenant_id}/{thread_id}"


class ThreadScope:
    """Puts a tenant before the thread ids of configs, and takes it away again: graphs and clients never see it."""

    def __init__(self, tenant_id: str) -> None:
        self.is_default = tenant_id == DEFAULT_TENANT
        self._prefix = "" if self.is_default else f"{tenant_id}/"

    def stored(self, thread_id: str) -> str:
        """The id under which rows stand.

        Raises:
            ValueError: the default tenant's graph asks for a thread of another tenant.
        """
        if self._prefix:
            return self._prefix + thread_id
        if "/" in thread_id and _OF_A_TENANT.fullmatch(thread_id):
            raise ValueError("thread_id: an id of this form belongs to a tenant")
        return thread_id

    def shown(self, thread_id: str) -> str:
        """The id that graphs and clients know."""
        return thread_id.removeprefix(self._prefix)

    def inward(self, config: RunnableConfig) -> RunnableConfig:
        """A config as LangGraph has it, for rows."""
        configurable: dict[str, Any] = config.get("configurable", {})
        if "thread_id" not in configurable:
            return config
        thread_id = str(configurable["thread_id"])
        stored = self.stored(thread_id)
        if stored is thread_id:
            return config
        return cast(RunnableConfig, {**config, "configurable": {**configurable, "thread_id": stored}})

    def outward(self, config: RunnableConfig) -> RunnableConfig:
        """A config from rows, as LangGraph has it."""
        if not self._prefix:
            return config
        configurable: dict[str, Any] = config.get("configurable", {})
        shown = self.shown(str(configurable["thread_id"]))
        return cast(RunnableConfig, {**config, "configurable": {**configurable, "thread_id": shown}})
