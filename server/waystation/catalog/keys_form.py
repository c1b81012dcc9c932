"""The form that all keys of `langgraph.json` share: how an object is read, and checks of single values.

A key that is not known is kept aside and warned about: newer versions of the platform add keys, and a project must not
stop working for that.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator


def compiles(value: str) -> str:
    """A regular expression."""
    try:
        re.compile(value)
    except re.error as e:
        raise ValueError(f"should be a regular expression ({e})") from None
    return value


def runs_here(value: str) -> str:
    """A version of Python that the server runs on."""
    if (match := re.fullmatch(r"3\.(\d{1,3})", value)) is None or int(match[1]) < 11:
        raise ValueError('should be "3.11" or newer')
    return value


def recent_node(value: object) -> object:
    """A version of Node, as text or number."""
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not text.isascii() or not text.isdigit() or int(text) < 20:
        raise ValueError('should be "20" or newer')
    return text


Text = Annotated[str, Field(min_length=1)]


class Keys(BaseModel):
    """An object of the file. What it has besides is kept aside; null stands for the default."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, value: object) -> object:
        """The platform's own schema allows null nearly everywhere, for the default."""
        if not isinstance(value, dict):
            return value
        members = cast(dict[str, Any], value)
        return {k: v for k, v in members.items() if v is not None or k not in cls.model_fields}


_NOT_OURS_TO_CHECK = {"$schema", "_INTERNAL_docker_tag"}


def unknown_keys(keys: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names of all keys below `keys` that no model knows, each with what may have been meant (or nothing)."""
    known = type(keys).model_fields
    for name in keys.model_extra or {}:
        if name not in _NOT_OURS_TO_CHECK:
            near = difflib.get_close_matches(name, [k for k in known if k not in keys.model_fields_set], n=1)
            yield prefix + name, f"; did you mean {prefix}{near[0]}?" if near else ""
    for name in known:
        value = getattr(keys, name)
        if isinstance(value, BaseModel):
            yield from unknown_keys(value, f"{prefix}{name}.")
