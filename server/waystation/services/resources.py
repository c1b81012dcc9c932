"""The resources of a process that serves requests, passed to every use case."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from waystation.auth import Gate
from waystation.catalog import Project
from waystation.config import Settings
from waystation.events import EventLog
from waystation.guarding.kill import KillSwitch
from waystation.services.graph_host import GraphHost
from waystation.services.loopback import Loopback
from waystation.services.own_address import OwnAddress
from waystation.services.queue_room import QueueRoom
from waystation.services.wakeups import Wakeups
from waystation.telemetry.tracing import Tracing
from waystation_db.pool import Database
from waystation_db.store import PostgresStore

if TYPE_CHECKING:  # loaded where a project has limits, or an audit log
    from waystation.guarding.audit import AuditWriter
    from waystation.guarding.http_limits import HttpLimits


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a use case may need. `db`, `log`, `wakeups`, `queue`, `store`, `kills` and `gate` belong to the API's
    loop; without a gate everybody may do everything."""

    settings: Settings
    project: Project
    db: Database
    graphs: GraphHost
    log: EventLog
    wakeups: Wakeups
    queue: QueueRoom
    store: PostgresStore
    kills: KillSwitch
    gate: Gate | None = None
    limits: HttpLimits | None = None
    audit: AuditWriter | None = None
    address: OwnAddress = field(default_factory=OwnAddress)
    tracing: Tracing | None = None
    loopback: Loopback = field(default_factory=Loopback)
