"""What the whole sweep said, written into the model cards of its variants once it is over.

A bundle is written when its own training ends, before anyone can compare it; its card gets the verdict here.
It does not know how the verdict came about.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stratified_models.attach import replace_card
from stratified_models.bundle import CARD, read_bundle
from stratified_models.errors import BundleError

__all__ = ["add_verdict", "with_verdict"]

HEADING = "## Verdict of the sweep"


def with_verdict(card: str, verdict: str, *, selected: bool) -> str:
    """`card` with the section that says what the sweep found; an earlier one is replaced."""
    kept = card.partition(f"\n{HEADING}")[0].rstrip()
    said = "This variant was selected." if selected else "This variant was not selected."
    return f"{kept}\n\n{HEADING}\n\n{said} {verdict}\n"


def add_verdict(results: Path, record: Mapping[str, Any]) -> list[str]:
    """Write the record's verdict into the card of every variant's bundle in `results`; returns their names.

    While the sweep still runs the verdict may change, and nothing is written.
    """
    if record["status"] == "running" or not record["selected"]:
        return []
    written = []
    for name in record["variants"]:
        try:
            bundle = read_bundle(results / name, verify=False)
        except BundleError:  # a control, or a variant without a finished unit
            continue
        card = (bundle.path / CARD).read_text(encoding="utf-8")
        chosen = record["selected"].get("variant") == name
        replace_card(bundle, with_verdict(card, record["verdict"], selected=chosen))
        written.append(name)
    return written
