"""Finds the operation for a method and path without trying one route after the other.

Paths without parameters are looked up; those with parameters are compared segment by segment, the more literal first.
The first path that fits decides, also which methods there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from waystation.api.routing import Operation

Shape = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """The operation, and what the path's parameters are."""

    operation: Operation
    params: dict[str, str]


@dataclass(frozen=True, slots=True)
class Missing:
    """No such operation. `allowed` are the methods that the path has, empty for an unknown path."""

    allowed: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Branch:
    """All operations of one shape of path."""

    shape: Shape
    literals: tuple[tuple[int, str], ...]
    by_method: dict[str, tuple[Operation, tuple[tuple[str, int], ...]]] = field(
        default_factory=dict[str, tuple[Operation, tuple[tuple[str, int], ...]]]
    )

    def matches(self, segments: list[str]) -> bool:
        for i, literal in self.literals:  # noqa: SIM110 - a generator would cost more than the comparison
            if segments[i] != literal:
                return False
        return True


class RouteTable:
    """The operations of the API by path."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._fixed: dict[str, dict[str, Operation]] = {}
        self._branches: dict[tuple[int, str], list[_Branch]] = {}
        for operation in operations:
            self._add(operation)
        for branches in self._branches.values():
            branches.sort(key=lambda branch: [segment is None for segment in branch.shape])

    def find(self, method: str, path: str) -> Found | Missing:
        """The operation for a request."""
        fixed = self._fixed.get(path)
        if fixed is not None:
            operation = fixed.get(method)
            return Missing(frozenset(fixed)) if operation is None else Found(operation, {})
        segments = path.split("/")
        if len(segments) < 3 or "" in segments[1:]:
            return Missing()
        for branch in self._branches.get((len(segments), segments[1]), ()):
            if not branch.matches(segments):
                continue
            if (entry := branch.by_method.get(method)) is None:
                return Missing(frozenset(branch.by_method))
            operation, names = entry
            return Found(operation, {name: segments[i] for name, i in names})
        return Missing()

    def _add(self, operation: Operation) -> None:
        for method in operation.methods or ():
            if "{" not in operation.path:
                self._fixed.setdefault(operation.path, {})[method] = operation
            else:
                self._add_shape(operation, method)

    def _add_shape(self, operation: Operation, method: str) -> None:
        segments = operation.path_format.split("/")
        shape = tuple(None if segment.startswith("{") else segment for segment in segments)
        names = tuple((segment[1:-1], i) for i, segment in enumerate(segments) if segment.startswith("{"))
        if shape[1] is None:
            raise ValueError(f"{operation.path}: the first segment of a path must be fixed")
        branches = self._branches.setdefault((len(shape), shape[1]), [])
        branch = next((b for b in branches if b.shape == shape), None)
        if branch is None:
            literals = tuple((i, literal) for i, literal in enumerate(shape) if literal)
            branches.append(branch := _Branch(shape, literals))
        branch.by_method[method] = (operation, names)
