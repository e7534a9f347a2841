"""What of a store is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import BadStore
from serving.source import Found, Store

STORE = Store(
    Path("here"), {name: Found(name, Path(name)) for name in ("moe", "none", "layers")}, default="none"
)


@pytest.mark.parametrize(
    ("load", "names"),
    [("selected", ["none"]), ("all", ["none", "layers", "moe"]), ("moe", ["none", "moe"]),
     ("selected, moe", ["none", "moe"]), ("none,moe,none", ["none", "moe"])],
)  # fmt: skip
def test_the_default_comes_first_and_nothing_twice(load: str, names: list[str]) -> None:
    assert [found.name for found in STORE.chosen(load)] == names


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(BadStore, match="--load names mars, not in here; choose among: layers, moe, none"):
        STORE.chosen("mars")
