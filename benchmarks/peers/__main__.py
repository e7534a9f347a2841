"""How many texts a second does each server answer, with one core each, and in time under overload?

Question: with the same ONNX file, tokenizer, texts and arrivals, what do MLServer, LitServe, BentoML, Triton
(PyTriton) and infinity-emb answer with their dynamic batching on and off, to 8, 32 and 128 callers, and in an
open loop at 150 % and 300 % of what they answered? And what does our service, on the same engine and on the
best one that it ships?

How: each peer in an environment of its own, built once below `--cache`; server on one core, load on another.
In each round every server that takes part is asked once, in turns; only the one asked is awake. Each must
first give the labels that its model gives. For the open loop it is started anew and told the deadline, where
it takes one, so that what it has against overload is on. Ratios are of medians. infinity-emb takes no foreign
ONNX file: it runs a transformers model of the same shape.

    python -m benchmarks.peers                                   # all of them
    python -m benchmarks.peers --peers litserve --callers 8 --texts 100 --rounds 2
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bundles import PACKAGE, REAL, SHAPES, make_bundle, random_backbone
from benchmarks.peers.answers import check, labels_of_bundle, labels_of_transformers
from benchmarks.peers.fleet import HERE, PEERS, environment, installed
from benchmarks.processes import cores, free_ports, load, our_server, running, wait_for_port
from benchmarks.record import RESULTS, asked, in_ms, write_record
from benchmarks.texts import real_texts

CACHE = Path.home() / ".cache" / "stratified-peers"
BATCH = 32
OVERLOADS = (1.5, 3.0)
THREADS = 1  # of every engine, ours and theirs
Cell = dict[str, Any]
# Runs a command as the leader of a group of its own, so that what it leaves behind can be ended with it.
LEADER = (sys.executable, "-c", "import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])")


@contextmanager
def served(
    name: str, batch: int, folder: Path, cache: Path, deadline: float = 0.0
) -> Iterator[tuple[str, list[str]]]:
    """A server under its name, awake; its target, and the load's flags to ask it."""
    core, _ = cores()
    if name.startswith("ours"):
        engine, _, precision = name.removeprefix("ours ").partition(":")
        flags = ["--engine", engine, "--device", "cpu", "--threads", str(THREADS), "--caller-share", "1"]
        flags += ["--precision", precision] if precision else []
        with our_server(folder / "bundle", *flags, on=core, log=folder / "ours.log") as (target, _):
            yield target, []
        return
    peer, port = PEERS[name], free_ports(1)[0]
    python = environment(peer, cache)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        (Path(scratch) / "transformers").symlink_to(folder / "transformers")
        told = {
            "PEER_BUNDLE": str(folder / "bundle"), "PEER_BATCH": str(batch), "PEER_PORT": str(port),
            "PEER_DEADLINE": str(deadline), "PEER_SCRATCH": scratch, "PYTHONPATH": str(HERE),
            "OMP_NUM_THREADS": str(THREADS), "BENTOML_HOME": scratch, "BENTOML_DO_NOT_TRACK": "1",
            "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        command, log = peer.command(python, port, batch, Path(scratch)), folder / f"{name}.log"
        try:
            with _group(command, on=core, environment=told, log=log) as process:
                wait_for_port(process, port)
                check(peer, port, **json.loads((folder / f"answers-{peer.model}.json").read_bytes()))
                yield f"127.0.0.1:{port}", ["--http", peer.path, "--body", peer.body]
        except RuntimeError as error:
            raise RuntimeError(f"{error}; the end of its log: {_end(log)}") from error


@contextmanager
def _group(command: Sequence[str], **how: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process, and an end of all that it started and may leave behind."""
    leader: subprocess.Popen[bytes] | None = None
    try:
        with running([*LEADER, *command], **how) as leader:
            yield leader
    finally:
        if leader is not None:
            with suppress(ProcessLookupError):
                os.killpg(leader.pid, signal.SIGKILL)


def _end(log: Path) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if any(map(str.isalnum, line))), "it is empty")[:300]


def closed(target: str, flags: Sequence[str], texts: Path, callers: int) -> Cell:
    """Texts a second to so many callers."""
    found = load(target, texts, "--callers", str(callers), *flags, on=cores()[1])
    return {
        "per_second": found["per_second"],
        "failed": found["sent"] - found["answered"],
        "latencies_ms": in_ms(found["latencies"]),
    }


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
        "latencies_ms": in_ms(found["latencies"]),
        "not_answered_ms": in_ms(found["refusals"]),
    }


def ask(name: str, batch: int, options: argparse.Namespace, folder: Path) -> Cell:
    """All cells of one server in one round."""
    texts, few = folder / "texts.json", folder / "few.json"
    with served(name, batch, folder, options.cache) as (target, flags):
        closed(target, flags, few, 4)  # warms up
        cells = {f"{callers} callers": closed(target, flags, texts, callers) for callers in options.callers}
    if not options.overload:
        return cells
    peak = max(cell["per_second"] for cell in cells.values())
    with served(name, batch, folder, options.cache, options.deadline) as (target, flags):
        closed(target, flags, texts, 8)  # warms up, and shows those who predict how long they take
        for factor in OVERLOADS:
            cells[f"{factor:.0%} of peak"] = overloaded(target, flags, texts, factor * peak, options.deadline)
    return cells


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, measure, print the table, write the samples; a peer that cannot run here is named with why."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", nargs="*", choices=sorted(PEERS), default=sorted(PEERS))
    parser.add_argument(
        "--ours",
        nargs="+",
        default=["onnx", "auto", "openvino:int8"],
        help="engines of our own service, or engine:precision; the first is what peers are compared with",
    )
    parser.add_argument("--shape", choices=[REAL, *sorted(SHAPES)], default=REAL)
    parser.add_argument("--callers", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--deadline", type=float, default=1.0)
    parser.add_argument("--no-overload", dest="overload", action="store_false")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the peers' environments are")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    entries = [(f"ours {engine}", 1) for engine in options.ours]
    entries += [(name, batch) for name in options.peers for batch in (BATCH, 1)]
    found: dict[str, list[Cell]] = {}
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder, options)
        for _ in range(options.rounds):
            for server, batch in entries:
                label = server if server.startswith("ours") else f"{server}, batch {batch}"
                if label in absent:
                    continue
                try:
                    found.setdefault(label, []).append(ask(server, batch, options, folder))
                except subprocess.CalledProcessError as error:
                    absent[label] = ((error.stderr or "").strip().splitlines() or [str(error)])[-1]
                except (OSError, RuntimeError) as error:
                    absent[label] = str(error)
    found = {label: rounds for label, rounds in found.items() if rounds}
    rows = table(found)
    for row in rows:
        print(row["line"])
    for label, reason in absent.items():
        print(f"{label}: not measured: {reason}")
    record = {
        **asked(options), "threads": THREADS, "table": rows, "absent": absent,
        "peer_versions": {name: installed(PEERS[name], options.cache) for name in options.peers},
        "rounds_of": found,
    }  # fmt: skip
    print(write_record("peers", record, out=options.out, name=options.shape))
    return 0


def _prepare(folder: Path, options: argparse.Namespace) -> None:
    """The models, the texts, and what each model answers to them."""
    texts = real_texts(options.texts)
    bundle = make_bundle(
        folder / "bundle",
        shape=options.shape,
        texts=texts[:64],
        quantize=any(entry.endswith(":int8") for entry in options.ours),
    )
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    (folder / "few.json").write_text(json.dumps(texts[:8]), encoding="utf-8")
    answers = {"bundle": labels_of_bundle(bundle.path, texts)}
    if "infinity" in options.peers:
        _transformers_model(folder / "transformers", options.shape, bundle.manifest.max_length)
        answers["transformers"] = labels_of_transformers(folder / "transformers", texts)
    for model, labels in answers.items():
        told = json.dumps({"texts": texts, "labels": labels})
        (folder / f"answers-{model}.json").write_text(told, encoding="utf-8")


def _transformers_model(folder: Path, shape: str, max_length: int) -> None:
    """A transformers classifier of the shape, cut at the same length, for a peer that runs nothing else."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from stratified_models.sources import quiet, resolve_backbone

    real = shape == REAL
    source = resolve_backbone(PACKAGE) if real else random_backbone(folder / "backbone", SHAPES[shape])
    with quiet():
        AutoModelForSequenceClassification.from_pretrained(source, num_labels=3).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, model_max_length=max_length).save_pretrained(str(folder))
    # The peer's transformers is an older one, which does not know the class that ours names.
    told = folder / "tokenizer_config.json"
    plain = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    told.write_text(json.dumps(json.loads(told.read_bytes()) | plain), encoding="utf-8")


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
            if failed := sum(cells[way].get("failed", 0) for cells in rounds):
                row["failed"] = failed
                row["line"] += f"  {failed} without an answer"
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
