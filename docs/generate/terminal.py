"""`python -m docs.generate.terminal OUT.svg -- COMMAND…`: runs a command and draws what it prints, as SVG."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

LINE, WIDTH, INK, PAPER, SOFT = 17, 8.0, "#e8eaed", "#1c2128", "#9aa4b0"


def main(argv: Sequence[str] | None = None) -> int:
    """Run and draw; the command's exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if len(words) < 3 or words[1] != "--":
        raise SystemExit("usage: python -m docs.generate.terminal OUT.svg -- COMMAND…")
    done = subprocess.run(words[2:], capture_output=True, text=True, check=False)
    Path(words[0]).write_text(draw(" ".join(words[2:]), done.stdout), encoding="utf-8")
    return done.returncode


def draw(command: str, output: str) -> str:
    """The command behind a prompt, and its output below."""
    lines = [f"$ {command}", *output.rstrip("\n").split("\n")]
    width = 24 + WIDTH * max(len(line) for line in lines)
    height = 24 + LINE * len(lines)
    told = "\n".join(
        f'<text x="12" y="{26 + LINE * n}" textLength="{WIDTH * len(line):g}" fill="{INK if n else SOFT}" '
        f'xml:space="preserve">{escape(line)}</text>'
        for n, line in enumerate(lines)
        if line
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" role="img" font-size="13" '
        f'font-family="ui-monospace, Consolas, monospace">\n<title>{escape(command)}</title>\n'
        f'<rect width="{width:g}" height="{height}" rx="8" fill="{PAPER}"/>\n{told}\n</svg>\n'
    )


if __name__ == "__main__":
    raise SystemExit(main())
