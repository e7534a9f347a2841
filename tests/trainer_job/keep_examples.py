"""Make the kept examples of results.json again: `python -m tests.trainer_job.keep_examples`.

Three tiny sweeps that end in each way, so that the schema's check covers every field that records have. To be
run after the record has a new field; `test_schema` says when. Paths are rewritten as below /data.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.trainer_job.faults import faulty_sweep
from tests.trainer_job.tiny import Tiny, make_tiny, row
from trainer_job.errors import JobError
from trainer_job.files import read_json, write_text
from trainer_job.results import validate

EXAMPLES = Path(__file__).parent / "examples"
NEVER = {"kind": "none", "step": 10**9}
# A third domain: with two, there is no score over domains left out.
BOOKS = (
    "data.domains.books.source={kind: files, splits: {train: books-train.jsonl}}",
    "data.domains.books.label_map={positive: positive, negative: negative}",
    "data.domains.books.labels=[negative, positive]",
)
SWEEPS: Mapping[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "complete": (("variants=[none, routing]", "seeds=[0, 1]", "training.max_steps=6", *BOOKS), NEVER),
    "partial": (
        ("variants=[none, moe]", "data.hold_out=films", "training.max_steps=4"),
        {"kind": "nan", "step": 2, "unit": "moe:0"},
    ),
    "preempted": (
        ("variants=[none, layers]", "training.max_steps=4"),
        {"kind": "SIGTERM", "step": 2, "unit": "layers:0"},
    ),
}


def example(tiny: Tiny, end: str) -> str:
    """The record of a sweep that ends so, as text. Raises JobError when the schema does not take it."""
    settings, fault = SWEEPS[end]
    place = tiny.root / end
    sweep = faulty_sweep(
        tiny.config(place, "training.evaluations=1", "training.log_every=1", *settings), fault
    )
    with suppress(JobError):  # the end is in the record
        sweep.run()
    record = read_json(place / "results" / "results.json")
    if record is None or record["status"] != end:
        raise SystemExit(f"{end}: the sweep ended otherwise: {record and record['status']}")
    record["run"]["host"] = "trainer"
    record["environment"] |= {"platform": "Linux", "commit": None}
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":")).replace(str(tiny.root), "/data")
    validate(json.loads(text))
    return f"{text}\n"


def main() -> None:
    """Write all three."""
    with tempfile.TemporaryDirectory() as folder:
        tiny = make_tiny(Path(folder))
        lines = [
            json.dumps(row(random.Random(place), ("positive", "negative")[place % 2])) for place in range(120)
        ]
        write_text(tiny.root / "books-train.jsonl", "\n".join(lines) + "\n")
        for end in SWEEPS:
            write_text(EXAMPLES / f"{end}.json", example(tiny, end))


if __name__ == "__main__":
    main()
