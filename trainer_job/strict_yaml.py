"""YAML as PyYAML's safe loader reads it, but a key that stands twice in a mapping is an error.

PyYAML takes the last one without a word, so a line further up would seem to act. It does not know what keys
mean.
"""

from __future__ import annotations

from typing import Any

import yaml


class DuplicateKey(yaml.YAMLError):
    """A mapping names a key twice; the text tells the line, the key and the cure."""


class StrictLoader(yaml.SafeLoader):
    """Compares keys as they are written: `1` and `"1"` name the same label.

    Where nodes are composed, not where values are constructed: there, what `<<` merges in stands beside the
    keys that override it.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Raises DuplicateKey."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in first:
                earlier = first[key.value]
                raise DuplicateKey(f"line {line}: {key.value!r} stands on line {earlier} already; keep one")
            first[key.value] = line
        return node


def load(text: str) -> Any:
    """The value in a YAML text; None when it is empty.

    Raises:
        DuplicateKey: a mapping names a key twice.
        yaml.YAMLError: the text is no YAML.
    """
    loader = StrictLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
