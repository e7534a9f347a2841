"""Why the page cannot start; it knows who prints it as little as who raises it."""

from __future__ import annotations


class CannotStart(Exception):  # noqa: N818  a meaning, as in serving.errors
    """One line for the person who started it, and the exit code: those of `stratified-serve`."""

    def __init__(self, message: str, *, code: int = 2) -> None:
        super().__init__(message)
        self.code = code
