"""The guards of a process, as its project and its settings describe them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waystation.catalog import Project
from waystation.config import Settings
from waystation.guarding.audit_keys import RunAudit
from waystation.guarding.kill import KillSwitch
from waystation.guarding.watch import Guards
from waystation_db.pool import Database

if TYPE_CHECKING:  # loaded where a project keeps an audit log
    from waystation.guarding.audit import AuditWriter


def open_guards(
    settings: Settings, project: Project, db: Database, kills: KillSwitch | None, *, audit: AuditWriter | None = None
) -> Guards:
    """The guards of this process. On the graph loop; opens no connection. `audit`: told what they do.

    Raises:
        ConfigError: the policy names a file that cannot be read.
    """
    policy = None
    if project.guards is not None:
        from waystation.guarding.policy import Policy  # it loads all guards

        policy = Policy(project.guards, project.root, db=db)
    keys = project.waystation.audit
    return Guards(
        db,
        redis_uri=settings.redis_uri,
        key_prefix=settings.redis_key_prefix,
        policy=policy,
        kills=kills,
        audit=None if audit is None or keys is None else RunAudit(audit, keys),
    )
