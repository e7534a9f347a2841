"""A data frame with a column of texts: python examples/pandas_column.py [HOST:PORT]

Adds the columns label, score, domain and error. Needs pandas (the extra `demo` brings it).
"""

from __future__ import annotations

import sys

import pandas as pd

from serving.client import Client, Failure
from serving.types import Item

COLUMNS = ["label", "score", "domain", "error"]


def classify_column(frame: pd.DataFrame, column: str, client: Client, domain: str = "") -> pd.DataFrame:
    """The frame with four columns more; its index and order stay. `domain` names a column, or nothing."""
    named = frame[domain].fillna("") if domain else [""] * len(frame)
    texts = frame[column].fillna("")
    items = (Item(str(text), str(place)) for text, place in zip(texts, named, strict=True))
    rows = [
        (None, None, None, answer.reason)
        if isinstance(answer, Failure)
        else (answer.label, answer.score, answer.domain, None)
        for _, answer in client.classify_stream(items)
    ]
    names = [f"{name}_predicted" if name in frame else name for name in COLUMNS]
    answers = pd.DataFrame(rows, columns=names, index=frame.index)
    return pd.concat([frame, answers], axis=1)  # not a join: an index may hold a value twice


def main(target: str = "127.0.0.1:50051") -> None:
    """A small frame, classified."""
    frame = pd.DataFrame({"review": ["Worth every minute.", None, "Never again."]}, index=[10, 20, 30])
    with Client(target) as client:
        print(classify_column(frame, "review", client).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
