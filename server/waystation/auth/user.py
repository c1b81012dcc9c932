"""The user that authentication found, as handlers and graphs see it: items and attributes alike.

It is a dictionary, so that it travels as JSON with the run's row and comes out of the queue as what went in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, cast

import orjson
from langgraph_sdk.auth.types import StudioUser
from pydantic import BaseModel

from waystation_db.json import dumps

STUDIO_KIND = "StudioUser"
"""What `langgraph_sdk.auth.is_studio_user` looks for in a user that came out of the queue."""

_OWN = ("identity", "is_authenticated", "display_name", "permissions")


class User(dict[str, Any]):
    """Members by item and by attribute, as `langgraph_sdk.auth.types.BaseUser` has it. `source` is the object that a
    handler returned, where it was one: what else it can do is reached by attribute."""

    def __init__(self, members: Mapping[str, Any] = {}, *, source: object = None) -> None:
        super().__init__(members)
        if source is not None:
            self.__dict__["_source"] = source

    @property
    def identity(self) -> str:
        return self["identity"]

    @property
    def display_name(self) -> str:
        return self.get("display_name") or self.identity

    @property
    def is_authenticated(self) -> bool:
        return bool(self.get("is_authenticated", True))

    @property
    def permissions(self) -> Sequence[str]:
        return self.get("permissions") or []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self:
            return self[name]
        source = self.__dict__.get("_source")
        if source is None:
            raise AttributeError(f"the user has no {name!r}")
        return getattr(source, name)

    def as_json(self) -> User:
        """The same with nothing in it that JSON does not know: what is stored with a run."""
        return User(orjson.loads(dumps(dict(self))))


def user_from(result: object) -> User:
    """What an `authenticate` handler returned: an identity, an object with members, or an object with attributes.

    Raises:
        TypeError: it has no identity.
    """
    if isinstance(result, User):
        return result
    if isinstance(result, str):
        return _user({"identity": result})
    if isinstance(result, Mapping):
        return _user(cast("Mapping[str, Any]", result))
    if isinstance(result, StudioUser):
        return studio_user(result.identity)
    return _user(_members(result), source=result)


def studio_user(identity: str) -> User:
    """A developer who comes from the Studio."""
    return _user({"identity": identity, "permissions": ["authenticated"], "kind": STUDIO_KIND})


def _user(members: Mapping[str, Any], *, source: object = None) -> User:
    identity, permissions = members.get("identity"), members.get("permissions")
    if not isinstance(identity, str):
        raise TypeError("the user has no identity: expected a text, or an object with `identity` (a text)")
    if isinstance(permissions, str):
        permissions = [permissions]
    own = {
        "identity": identity,
        "is_authenticated": bool(members.get("is_authenticated", True)),
        "display_name": str(members.get("display_name") or identity),
        "permissions": [str(permission) for permission in permissions or ()],
    }
    return User({**own, **{str(k): v for k, v in members.items() if k not in _OWN}}, source=source)


def _members(found: object) -> dict[str, Any]:
    """The data of an object: its fields, and of the user's own four also what properties say."""
    if isinstance(found, BaseModel):
        members = found.model_dump()
    elif is_dataclass(found) and not isinstance(found, type):
        members = asdict(found)
    else:
        members = {k: v for k, v in {**vars(type(found)), **getattr(found, "__dict__", {})}.items() if _is_data(k, v)}
    return {**members, **{name: getattr(found, name) for name in _OWN if hasattr(found, name)}}


def _is_data(name: str, value: object) -> bool:
    return not name.startswith("_") and not callable(value) and not hasattr(type(value), "__get__")
