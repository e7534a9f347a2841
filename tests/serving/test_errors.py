"""The tree of meanings is the tree that its docstring draws."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from serving import errors

K = TypeVar("K", bound=Exception)


def descendants(kind: type[K]) -> Iterator[type[K]]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


def test_every_class_stands_in_the_drawn_tree() -> None:
    drawn = errors.__doc__ or ""
    names = [kind.__name__ for kind in descendants(errors.ServingError)]
    names += [kind.__name__ for kind in descendants(errors.StartError)]
    assert [name for name in names if f" {name}" not in drawn] == []


def test_every_reason_is_its_own_and_upper_snake_case() -> None:
    kinds: list[type[errors.ServingError]] = [errors.ServingError, *descendants(errors.ServingError)]
    reasons = [kind.reason for kind in kinds]
    assert len(set(reasons)) == len(reasons)
    assert all(reason.isupper() and reason.replace("_", "").isalpha() for reason in reasons)


def test_exit_codes_are_told_apart() -> None:
    codes = [kind.exit_code for kind in errors.StartError.__subclasses__()]
    assert sorted(codes) == [2, 3, 4]
