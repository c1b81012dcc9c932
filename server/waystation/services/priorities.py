"""The function of `priority.path` that decides which threads' runs start first, loaded at the start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from langgraph_sdk import Priority, PriorityContext, PrioritySettings

from waystation.catalog import Project
from waystation.catalog.factories import in_thread
from waystation.catalog.importing import Importer
from waystation.catalog.spec import parse_spec
from waystation.errors import ConfigError

Assign = Callable[[PriorityContext], Awaitable[PrioritySettings | None]]

KEY = "priority.path"


async def load_priority(project: Project) -> Assign | None:
    """What `@priority.assign` registered; None without the key. Runs the user's module, in a thread.

    Raises:
        ConfigError: it cannot be loaded, is no `Priority`, or nothing is registered.
    """
    if project.priority is None:
        return None
    spec = parse_spec(KEY, project.priority.path, root=project.root)
    importer = Importer(project.root, project.folders)

    def load() -> object:
        importer.extend_path()
        return importer.load(spec, what=KEY)

    with ThreadPoolExecutor(1, thread_name_prefix="waystation-import") as executor:
        found = await in_thread(executor, load)
    if not isinstance(found, Priority):
        kind = type(found).__name__
        raise ConfigError(f"{KEY} is {spec.text!r}: expected a langgraph_sdk.Priority, found a {kind}")
    assign = found._assign_handler  # pyright: ignore[reportPrivateUsage]  # there is no other way to it
    if assign is None:
        raise ConfigError(f"{KEY} is {spec.text!r}: no function is registered with @{spec.name}.assign")
    return assign
