"""What mkdocs does not do by itself: pages that the navigation does not name, and links that leave docs/.

A link to a file of the repository becomes the file's path, after a look that the file is there; the site is
read without the repository beside it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger("mkdocs.hooks.repository")  # under mkdocs, so that a warning fails a strict build
LINK = re.compile(r"(!?)\[([^\]]+)\]\((\.\.?/[^)\s#]+)(#[^)\s]*)?\)")
REST = "Run it"


def on_config(config: Any) -> Any:
    """Fill the list of decisions, and add pages at the top of docs/ that the navigation does not name."""
    docs = Path(config["docs_dir"])
    for section in config["nav"]:
        for title, entries in section.items():
            for entry in entries if isinstance(entries, list) else ():
                if isinstance(entry, dict) and "Decisions" in entry:
                    entry["Decisions"] = [
                        f"decisions/{p.name}" for p in sorted((docs / "decisions").glob("*.md"))
                    ]
            if title == REST:
                entries.extend(sorted({path.name for path in docs.glob("*.md")} - set(_named(config["nav"]))))
    return config


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Turn links to files of the repository into their paths."""
    docs = Path(config["docs_dir"]).resolve()
    folder = (docs / page.file.src_uri).parent

    def replaced(match: re.Match[str]) -> str:
        target = (folder / match[3]).resolve()
        if target.is_relative_to(docs):
            return match[0]
        if not target.exists():
            log.warning("%s links to %s, which is not there", page.file.src_uri, match[3])
        text = match[2].strip("`")
        path = target.relative_to(docs.parent).as_posix() if target.is_relative_to(docs.parent) else match[3]
        return f"`{path}`" if text in path else f"{match[2]} (`{path}`)"

    return LINK.sub(replaced, markdown)


def _named(entries: Any) -> Iterator[str]:
    """Every page in a part of the navigation."""
    if isinstance(entries, str):
        yield entries
    elif isinstance(entries, dict):
        for part in entries.values():
            yield from _named(part)
    elif isinstance(entries, list):
        for part in entries:
            yield from _named(part)
