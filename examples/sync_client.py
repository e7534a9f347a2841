"""One text, a batch, and what the model knows: python examples/sync_client.py [HOST:PORT]"""

from __future__ import annotations

import sys

from serving.client import CallFailed, Client, Failure
from serving.types import Item, Options


def main(target: str = "127.0.0.1:50051") -> None:
    """Ask, and print what comes back."""
    with Client(target, deadline=5) as client:
        card, limits = client.model_info()
        domains = ", ".join(domain.name for domain in card.domains)
        print(f"{card.version.name}: labels {', '.join(card.labels)}; domains {domains}")

        answer = client.classify("The plot drags, but the ending is worth it.", domain=card.domains[0].name)
        print(f"{answer.label} {answer.score:.2f}, domain {answer.domain} ({answer.domain_source.name})")

        texts = ["Worth every minute.", "   ", "Never again."]
        answers = client.classify_batch([Item(text, id=str(n)) for n, text in enumerate(texts)])
        for text, found in zip(texts, answers, strict=True):  # a bad item costs its neighbours nothing
            told = found.reason if isinstance(found, Failure) else f"{found.label} {found.score:.2f}"
            print(f"{text!r}: {told}")

        try:
            client.classify("x", domain="nowhere", options=Options(strict_domain=True))
        except CallFailed as failed:  # the call as a whole
            print(f"refused: {failed.failure.reason}; at most {limits.max_items} texts a batch")


if __name__ == "__main__":
    main(*sys.argv[1:])
