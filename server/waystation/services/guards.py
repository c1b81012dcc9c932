"""The guards of a process, as its project and its settings describe them."""

from __future__ import annotations

from waystation.catalog import Project
from waystation.config import Settings
from waystation.guarding.kill import KillSwitch
from waystation.guarding.watch import Guards
from waystation_db.pool import Database


def open_guards(settings: Settings, project: Project, db: Database, kills: KillSwitch | None) -> Guards:
    """The guards of this process. On the graph loop; opens no connection.

    Raises:
        ConfigError: the policy names a file that cannot be read.
    """
    policy = None
    if project.guards is not None:
        from waystation.guarding.policy import Policy  # it loads all guards

        policy = Policy(project.guards, project.root)
    return Guards(db, redis_uri=settings.redis_uri, key_prefix=settings.redis_key_prefix, policy=policy, kills=kills)
