"""Answers as HTML: scores as bars, the domain, the tokens in the colours of their strata; texts are escaped.

It knows the values of an answer and no service, and asks nothing of the page but its style sheet, `page.css`.
Colours never stand alone: strata carry their number, labels and flags their words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from demo.asking import Reply
from serving.client import Failure
from serving.types import AnswerWarning, Classification, DomainSource, TokenStrata

SOURCES = {
    DomainSource.GIVEN: "as you said",
    DomainSource.INFERRED: "inferred",
    DomainSource.FALLBACK: "unknown to this model, so it was inferred",
}
NOTES = {
    AnswerWarning.LABEL_OUTSIDE_DOMAIN: "This domain never had this label in training.",
    AnswerWarning.UNKNOWN_DOMAIN: "The model does not know the domain that you named.",
    AnswerWarning.NO_STRATA: "This variant has no strata: its tokens have no colours.",
}
Words = Sequence[Sequence[str]]


def answers(
    text: str, replies: Iterable[Reply], words: Mapping[str, Words], explain: Mapping[str, str]
) -> str:
    """A card for each reply. `words`: typical words of each stratum by variant; `explain`: sentences for
    failed replies by variant.
    """
    cards = [
        _card(text, reply, words.get(reply.model, ()), explain.get(reply.model, "")) for reply in replies
    ]
    return f'<div class="answers">{"".join(cards)}</div>'


def problem(sentence: str) -> str:
    """What is wrong, announced to screen readers; nothing for an empty sentence."""
    return f'<p class="problem" role="alert">{escape(sentence)}</p>' if sentence else ""


def notice(sentence: str) -> str:
    """What goes on, in one line."""
    return f'<p class="notice" role="status">{escape(sentence)}</p>' if sentence else ""


def progress(done: int, total: int, rate: float) -> str:
    """How far a file is, with rows a second."""
    share = 100 * done // total if total else 0
    return (
        f'<div class="progress" role="status"><progress max="{total}" value="{done}" '
        f'aria-label="rows classified"></progress>'
        f"<span>{done:,} of {total:,} rows, {share} %, {rate:,.0f} a second</span></div>"
    )


def examples(texts: Iterable[tuple[str, str]]) -> str:
    """A button for each domain and text; the page's script hands on what a button holds."""
    buttons = "".join(
        f'<li><button type="button" data-text="{escape(text, quote=True)}"><span>{escape(domain)}</span> '
        f"{escape(_short(text, 90))}</button></li>"
        for domain, text in texts
    )
    return f'<p class="caption">Or ask one of these:</p><ul class="examples">{buttons}</ul>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells, long ones cut."""
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(_short(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="first rows"><table class="rows">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def colour(stratum: int, strata: int) -> str:
    """A hue of its own for each of `strata`, neighbours far apart, as CSS knows it."""
    step = 3 if strata % 3 else 1  # a walk round the circle that meets every hue once
    return str(round(360 * (stratum * step % strata) / strata) if strata else 0)


def _card(text: str, reply: Reply, words: Words, sentence: str) -> str:
    name = escape(reply.model)
    answer = reply.answer
    if isinstance(answer, Failure):
        return f'<section class="answer" aria-label="{name}"><h3>{name}</h3>{problem(sentence)}</section>'
    parts = [
        f'<p class="verdict {_tone(answer.label)}">{escape(answer.label)} <b>{answer.score:.0%}</b></p>',
        bars("Calibrated scores", answer.scores, tones=True),
        _domain(answer),
        _read(text, answer),
        _legend(answer, words),
        _ride(answer, reply.seconds),
    ]
    return f'<section class="answer" aria-label="{name}"><h3>{name}</h3>{"".join(parts)}</section>'


def bars(title: str, scores: Iterable[tuple[str, float]], *, tones: bool = False) -> str:
    """Names with their shares as a table of bars."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="track"><div class="bar '
        f'{_tone(name) if tones else ""}" style="width:{100 * score:.1f}%"></div></td>'
        f'<td class="number">{score:.3f}</td></tr>'
        for name, score in scores
    )
    return f'<table class="bars"><caption>{escape(title)}</caption><tbody>{rows}</tbody></table>'


def _domain(answer: Classification) -> str:
    strange = answer.out_of_domain_score
    flag = (
        f'<p class="flag out">Out of domain: unlike the training data (score {strange:.2f}).</p>'
        if answer.out_of_domain
        else f'<p class="flag in">Not out of domain (score {strange:.2f}).</p>'
    )
    notes = "".join(f'<p class="note">{NOTES[w]}</p>' for w in answer.warnings if w in NOTES)
    source = SOURCES[answer.domain_source]
    return (
        f'<p class="domain">Read as <b>{escape(answer.domain)}</b>, {source}.</p>'
        f"{bars('Which domain it looks like', answer.domain_scores)}{flag}{notes}"
    )


def _read(text: str, answer: Classification) -> str:
    """The text itself: each token in the colour of its strongest stratum, what was cut struck out."""
    pieces: list[str] = []
    place, before = 0, -1
    for token in answer.tokens:
        if token.end <= token.start or token.start < place:
            continue  # a special token, or a second token of one character
        gap = text[place : token.start]
        pieces.append(_cut(gap) if gap.strip() and answer.truncated else escape(gap))
        piece, before = _token(text[token.start : token.end], token, before)
        pieces.append(piece)
        place = token.end
    rest = text[place:]
    pieces.append(_cut(rest) if rest.strip() and answer.truncated else escape(rest))
    count = f"{answer.token_count} tokens"
    if answer.truncated:
        count = (
            f'<b class="cut-note">Cut: {answer.token_count} of {answer.original_token_count} tokens were '
            "read.</b> What is struck out was not."
        )
    return f'<p class="caption">What the model read ({count})</p><p class="text">{"".join(pieces)}</p>'


def _token(piece: str, token: TokenStrata, before: int) -> tuple[str, int]:
    """A token in its colour, numbered where its stratum is not the one `before`; and its stratum."""
    if not token.strata:
        return escape(piece), -1
    best = max(range(len(token.strata)), key=lambda k: token.strata[k])
    tip = f"stratum {best}: {token.strata[best]:.0%}; saliency {token.saliency:.3f}"
    number = f"<sub>{best}</sub>" if best != before else ""
    hue = colour(best, len(token.strata))
    return f'<span class="token" style="--hue:{hue}" title="{tip}">{number}{escape(piece)}</span>', best


def _cut(piece: str) -> str:
    return f"<del>{escape(piece)}</del>"


def _legend(answer: Classification, words: Words) -> str:
    if not answer.strata:
        return ""
    count = len(answer.strata)
    order = sorted(range(count), key=lambda k: -answer.strata[k])
    rows = "".join(
        f'<tr><th scope="row"><span class="token" style="--hue:{colour(k, count)}">{k}</span></th>'
        f'<td class="number">{answer.strata[k]:.0%}</td>'
        f"<td>{escape(', '.join(words[k])) if k < len(words) and words[k] else '–'}</td></tr>"
        for k in order
    )
    return (
        '<table class="legend"><caption>Strata of this text</caption><thead><tr><th scope="col">stratum</th>'
        f'<th scope="col">share</th><th scope="col">typical words</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _ride(answer: Classification, seconds: float) -> str:
    version = f"{answer.model.name} {answer.model.version}, {answer.model.sha256[:12]}"
    if answer.timings is None:
        return f'<p class="ride">{seconds * 1000:.0f} ms. Model {escape(version)}.</p>'
    t = answer.timings
    texts = "1 text" if t.batch_items == 1 else f"{t.batch_items} texts"
    return (
        f'<p class="ride">{seconds * 1000:.0f} ms as seen from here; in the service {t.total * 1000:.1f} ms: '
        f"tokens {t.tokenize * 1000:.1f}, waiting {t.queue * 1000:.1f}, model {t.inference * 1000:.1f}. "
        f"It rode in a batch of {texts}, {t.batch_tokens} tokens. Model {escape(version)}.</p>"
    )


def _tone(label: str) -> str:
    return label if label in ("positive", "negative", "neutral") else "other"


def _short(cell: str, most: int = 120) -> str:
    return cell if len(cell) <= most else cell[: most - 1] + "…"
