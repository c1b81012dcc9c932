"""The guards of a process, as its project and its settings describe them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from waystation.auth.principal import DEFAULT_TENANT
from waystation.catalog import Project
from waystation.config import Settings
from waystation.errors import ConfigError
from waystation.guarding.audit_keys import RunAudit
from waystation.guarding.kill import KillSwitch
from waystation.guarding.watch import Guards
from waystation_db.pool import Database

if TYPE_CHECKING:  # loaded where a project keeps an audit log
    from waystation.guarding.audit import AuditWriter

log = structlog.get_logger(__name__)


async def check_budgets(guards: Guards) -> None:
    """Reserve, settle and release on an account that is nobody's, through the ports that calls will use.

    Raises:
        ConfigError: that does not work, and a budget fails closed: no call could be made.
    """
    policy = guards.policy
    if policy is None or not policy.keys.budgets:
        return
    problems = await policy.self_test(guards.ports_for(DEFAULT_TENANT))
    if problems and not policy.fails_open:
        raise ConfigError(f"waystation.guards.budgets cannot be kept: {'; '.join(problems)}")
    for problem in problems:
        log.warning("a budget cannot be kept; it fails open", problem=problem)


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
