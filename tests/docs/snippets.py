"""The fenced blocks of README, CONTRIBUTING and docs/, and what each line of a shell block calls."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(
    r"(?:<!-- run: (?P<mark>.*?) -->\n)?^(?P<in> *)```(?P<lang>\w*)\n(?P<body>.*?)^(?P=in)```", re.S | re.M
)
PROGRAMS = ("stratified-train", "stratified-serve", "stratified-classify", "stratified-demo")
TOOLS = {
    *("make", "docker", "kubectl", "grpcurl", "curl", "openssl", "pip", "python", "mkdir", "cp", "cat"),
    *("printf", "echo", "git", "npm", "node", "k6", "tensorboard", "buildah", "podman", "export", "cd"),
}
OPERATORS = ("|", "||", "&&", ";", "&", ">", ">>", "<", "2>")


@dataclass(frozen=True)
class Snippet:
    """One fenced block: its page, line, language, mark (how it is checked, or why it is not), and text."""

    page: str
    line: int
    language: str
    mark: str
    body: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_shell(self) -> bool:
        """Whether its first line begins with a program."""
        words = self.body.split(maxsplit=1)
        return self.language in ("", "sh", "bash") and bool(words) and words[0] in TOOLS.union(PROGRAMS)


def pages() -> list[Path]:
    """What is read by people: not the generated reference."""
    named = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    written = [path for path in sorted((ROOT / "docs").rglob("*.md")) if path.parent.name != "reference"]
    return [*named, *written, *sorted((ROOT / "examples").rglob("*.md"))]


def snippets() -> list[Snippet]:
    """All of them, in order."""
    return [found for page in pages() for found in read(page)]


def read(page: Path) -> Iterator[Snippet]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(_dedented_marks(text)):
        indent = len(match["in"])
        body = "\n".join(line[indent:] for line in match["body"].splitlines())
        line = text.count("\n", 0, match.start("lang")) + 1
        name = page.relative_to(ROOT).as_posix()
        yield Snippet(name, line, match["lang"], match["mark"] or "", body)


def _dedented_marks(text: str) -> str:
    """Marks stand at the indent of their block; here they lose it, but no character is lost in all."""
    return re.sub(r"^( +)(<!-- run: .*? -->)\n", lambda m: f"{m[2]}\n", text, flags=re.M)


def commands(body: str) -> Iterator[list[str]]:
    """The words of each command of a shell block: continued lines joined, here-documents left out, pipes and
    lists cut apart, comments and redirections dropped."""
    for line in _lines(body):
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        skip = False
        for word in lexer:
            if skip:
                skip = False
            elif word in (">", ">>", "<", ">&"):
                skip = True
            elif word in OPERATORS or set(word) <= set("|&;()"):
                if words:
                    yield words
                words = []
            else:
                words.append(word)
        if words:
            yield words


def _lines(body: str) -> Iterator[str]:
    end = ""
    for line in re.sub(r"\\\n\s*", " ", body).splitlines():
        if end:
            end = "" if line.strip() == end else end
            continue
        if here := re.search(r"<<-?'?(\w+)'?", line):
            end = here[1]
            line = line[: here.start()]
        yield line
