"""The drawings of the explanation pages, as SVG: what a stratum is, how texts share batches, the floors.

Drawn by a rule and a fixed seed; no data, no model.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence

INK, SOFT, PAPER = "#1b1f24", "#57606a", "#ffffff"
COLOURS = ("#c0392b", "#1f7a4d", "#3455a4", "#8a6400")


def strata() -> str:
    """Points of three pieces: along a curve (1 dimension), on a sheet (2), in a ball (3)."""
    draw = random.Random(7)  # noqa: S311 - places of dots
    curve = [(70 + 2.1 * t, 150 + 45 * math.sin(t / 26) + draw.gauss(0, 2)) for t in range(0, 100, 2)]
    sheet = [_tilted(draw.uniform(0, 1), draw.uniform(0, 1)) for _ in range(170)]
    ball = [
        (640 + radius * math.cos(angle), 140 + radius * math.sin(angle))
        for radius, angle in (
            (62 * draw.random() ** (1 / 3), draw.uniform(0, 2 * math.pi)) for _ in range(230)
        )
    ]
    parts = [
        *_dots(curve, COLOURS[0]), *_dots(sheet, COLOURS[1]), *_dots(ball, COLOURS[2]),
        _text(172, 250, "stratum 0: along a line", "such as: the, and, of"),
        _text(410, 250, "stratum 1: on a sheet", "such as: film, plot, actor"),
        _text(640, 250, "stratum 2: in all directions", "such as: senator, charger"),
        _text(400, 30, "Tokens of many texts, each a dot", "on pieces of different dimension: strata"),
    ]  # fmt: skip
    return _svg(800, 290, parts, "Token representations on three pieces of different dimension")


ARRIVALS = ((0, 40), (9, 44), (16, 120), (24, 36), (33, 40), (80, 110), (88, 42), (150, 120), (262, 60))
"""When each text of the batching drawing arrives, and how long it is."""


def batching() -> str:
    """Texts over time, and the batches that they ride in."""
    parts = [
        _text(90, 40, "arriving", "texts, as long as drawn"),
        _text(90, 150, "engine", "one batch a time"),
    ]
    for number, (at, length) in enumerate(ARRIVALS, start=1):
        x, y = 200 + 1.5 * at, 20 + 9 * (number % 7)
        parts.append(_box(x, y, length * 0.5, 7, COLOURS[2]))
        parts.append(f'<text x="{x - 9:g}" y="{y + 7}" font-size="9" fill="{SOFT}">{number}</text>')
    for begun, lasts, members in batches(ARRIVALS):
        x = 200 + 1.5 * begun
        parts.append(_box(x, 125, 1.5 * lasts - 3, 40, COLOURS[1]))
        told = " ".join(str(member + 1) for member in members)
        parts.append(f'<text x="{x + 6:g}" y="150" font-size="12" fill="{PAPER}">{told}</text>')
    told = "no timer: an idle engine takes what is there, a busy one what has gathered and is of like length"
    parts.append(_text(430, 205, "time →", told))
    return _svg(800, 235, parts, "Texts that arrive while a batch runs ride in the next one")


def batches(arrivals: Sequence[tuple[float, float]]) -> list[tuple[float, float, list[int]]]:
    """Start, duration and members of each batch. The oldest text that waits leads; others join it while at
    most a quarter of the batch is padding."""
    waiting, now, made = list(range(len(arrivals))), 0.0, []
    while waiting:
        now = max(now, arrivals[waiting[0]][0])
        here = [n for n in waiting if arrivals[n][0] <= now]
        members = here[:1]
        for n in here[1:]:
            lengths = [arrivals[m][1] for m in (*members, n)]
            if 1 - sum(lengths) / (max(lengths) * len(lengths)) <= 0.25:
                members.append(n)
        lasts = 8 + 0.35 * max(arrivals[n][1] for n in members) * len(members) ** 0.8
        made.append((now, lasts, members))
        waiting = [n for n in waiting if n not in members]
        now += lasts
    return made


def floors() -> str:
    """Who may import whom."""
    boxes = [
        (420, 20, 320, "demo", "a page; a client of the service"),
        (60, 100, 320, "trainer_job", "data, training, comparison"),
        (420, 100, 320, "serving", "admission, batching, gRPC"),
        (60, 180, 440, "stratified_models", "gate, variants, bundle"),
        (530, 180, 210, "protos", "wire contract"),
    ]
    parts = []
    for x, y, width, name, what in boxes:
        parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="52" rx="6" fill="{PAPER}" stroke="{INK}"/>'
        )
        parts.append(_text(x + width / 2, y + 23, name, what))
    parts.append(
        _text(
            400,
            262,
            "imports only go down",
            "the two programs never import each other; a bundle on disk joins them",
        )
    )
    return _svg(800, 295, parts, "The floors of the code")


def _tilted(u: float, v: float) -> tuple[float, float]:
    """A place on a sheet that is seen from the side."""
    return 330 + 130 * u + 45 * v, 190 - 110 * v + 25 * math.sin(3 * u) + 18 * u


def _dots(places: Iterable[tuple[float, float]], colour: str) -> list[str]:
    return [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}" fill-opacity=".65"/>' for x, y in places
    ]


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="2" fill="{colour}"/>'


def _text(x: float, y: float, first: str, second: str) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="middle" font-size="14" fill="{INK}">{first}</text>'
        f'<text x="{x:g}" y="{y + 17:g}" text-anchor="middle" font-size="12" fill="{SOFT}">{second}</text>'
    )


def _svg(width: int, height: int, parts: Iterable[str], title: str) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="system-ui, sans-serif">\n<title>{title}</title>\n'
        f'<rect width="{width}" height="{height}" rx="8" fill="{PAPER}"/>\n{body}\n</svg>\n'
    )
