"""Do strata help a sentiment classifier, everything else being equal?

Three steps, each a number of sweeps that resume where they were stopped: `baseline` looks, on validation and
with `none` alone, for the settings that all arms then share; `curve` trains every arm with every seed on 400,
2,500 and 4,000 rows; `unseen` leaves one domain out at a time. Where these sweeps saw a sample of the test
rows, `whole` asks the kept models of the curve about all of them. `write` collects what is complete into
tables and plots.

    python -m benchmarks.study all   --data DIR --out DIR
    python -m benchmarks.study all   --data DIR --out DIR --reduced   # a night on two CPU cores
    python -m benchmarks.study write --out DIR --docs docs [--keep DIR] [--kept FILE …]

It runs `stratified-train`, and reads results.json; it knows no training.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.study_record import keep, read_kept
from benchmarks.study_report import curve_of, write_study
from benchmarks.study_whole import ask_whole

CONFIG = Path(__file__).with_name("study.yaml")
VARIANTS = ("none", "attention", "routing", "layers", "moe")
CONTROLS = (
    "none:matched",
    *(
        f"{name}:{how}"
        for name in VARIANTS[1:]
        for how in ("shuffled", "random_gate", "lexical", "domain_only")
    ),
)
# What may make the baseline stronger, each tried alone; then those that helped, together.
OPTIONS: dict[str, tuple[str, ...]] = {
    "longer warm-up": ("training.warmup=0.2",),
    "layer-wise decay 0.9": ("training.layer_decay=0.9",),
    "label smoothing 0.05": ("training.label_smoothing=0.05",),
    "averaged weights": ("training.weight_average=0.99",),
    "natural label shares": ("data.label_shares=natural",),
    "prior correction": ("training.prior_correction=true",),
    "absent labels masked": ("data.mask_absent_labels=true",),
    "rate 5e-5": ("training.learning_rate=5.0e-5",),
    "rate 1e-4": ("training.learning_rate=1.0e-4",),
    "rate 2e-4": ("training.learning_rate=2.0e-4",),
    "128 tokens": ("model.max_length=128",),
    "256 tokens": ("model.max_length=256",),
    "512 tokens": ("model.max_length=512",),
    "three epochs": ("training.epochs=3",),
    "six epochs": ("training.epochs=6",),
    "ten epochs": ("training.epochs=10",),
    "nothing frozen": ("training.frozen_blocks=0",),
}


@dataclass(frozen=True)
class Scale:
    """How much is run.

    Of the options, those that `settings` have already are not tried, and those that are `too_dear` are tried
    and recorded, but not taken.
    """

    name: str
    rows: tuple[int, ...]
    seeds: int
    arms: tuple[str, ...]
    tuning_rows: int
    tuning_seeds: int
    unseen_rows: int
    unseen_arms: tuple[str, ...]
    settings: tuple[str, ...] = ()
    too_dear: tuple[str, ...] = ()


FULL = Scale(
    name="full",
    rows=(400, 2500, 4000),
    seeds=5,
    arms=(*VARIANTS, *CONTROLS),
    tuning_rows=2500,
    tuning_seeds=3,
    unseen_rows=4000,
    unseen_arms=VARIANTS,
    settings=(
        "model.max_length=512",
        "training.epochs=10",
        "training.learning_rate=1.0e-4",
        "training.frozen_blocks=0",
    ),
)
REDUCED = Scale(
    name="reduced",
    rows=(400, 2500, 4000),
    seeds=5,
    arms=(
        *VARIANTS,
        "none:matched",
        "routing:shuffled",
        "routing:random_gate",
        "routing:domain_only",
    ),
    tuning_rows=1000,
    tuning_seeds=2,
    unseen_rows=400,
    unseen_arms=("none", "routing"),
    settings=(
        "model.max_length=256",
        "model.attention_dropout=0",
        "training.epochs=3",
        "training.evaluations=1",
        "training.learning_rate=2.0e-4",
        "training.frozen_blocks=2",
        "data.leak_levels=[exact,span]",
    ),
    too_dear=("512 tokens", "six epochs", "ten epochs", "nothing frozen"),
)


@dataclass(frozen=True)
class Study:
    """Where it reads and writes; `settings` are shared by all its sweeps."""

    data: Path
    out: Path
    scale: Scale
    settings: tuple[str, ...] = ()

    def sweep(self, name: str, arms: Sequence[str], seeds: int, *settings: str) -> dict[str, Any]:
        """Run one sweep, or finish it; returns its record. Exits with the job's code where it fails."""
        folder = self.out / name
        every = [
            f"data.root={self.data}",
            f"results={folder / 'results'}",
            f"logs={folder / 'logs'}",
            f"cache={self.out / 'cache'}",
            f"variants={json.dumps(list(arms))}",
            f"seeds={list(range(seeds))}",
            *self.scale.settings,
            *self.settings,
            *settings,
        ]
        command = [sys.executable, "-m", "trainer_job", "run", "--config", str(CONFIG)]
        command += [part for item in every for part in ("--set", item)]
        code = subprocess.run(command, check=False).returncode
        if code not in (0, 70):  # some units may have failed for good: the others count
            raise SystemExit(code)
        record: dict[str, Any] = json.loads((folder / "results" / "results.json").read_text(encoding="utf-8"))
        return record

    def baseline(self) -> tuple[str, ...]:
        """The settings that make `none` strongest on validation; tried once, then kept."""
        kept = self.out / "baseline.json"
        if kept.is_file():
            return tuple(json.loads(kept.read_text(encoding="utf-8"))["settings"])
        tried = dict(self._try_options())
        helpful = [name for name in tried if name != "plain" and _helps(tried[name], tried["plain"])]
        helpful = [name for name in helpful if name not in self.scale.too_dear]
        helpful = _compatible(sorted(helpful, key=lambda name: -fmean(tried[name])))
        together = tuple(setting for name in helpful for setting in OPTIONS[name])
        if len(helpful) > 1:
            tried["together"] = self._scores("together", together)
        mean = {name: fmean(scores) for name, scores in tried.items()}
        best = max((name for name in mean if name in (*helpful, "plain", "together")), key=mean.__getitem__)
        chosen = together if best == "together" else OPTIONS.get(best, ())
        record = {"tried": mean, "seeds": tried, "helped": helpful, "chosen": best, "settings": chosen}
        kept.write_text(json.dumps(record, indent=1), encoding="utf-8")
        return chosen

    def _try_options(self) -> Iterator[tuple[str, list[float]]]:
        yield "plain", self._scores("plain", ())
        for name, settings in OPTIONS.items():
            if not set(settings) <= set(self.scale.settings):
                yield name, self._scores(name, settings)

    def _scores(self, name: str, settings: Sequence[str]) -> list[float]:
        """Validation macro-F1 of `none`, by seed; of test rows, which nothing is chosen by, it asks few."""
        scale = self.scale
        place = f"baseline/{name.replace(' ', '-')}"
        rows = (f"data.train_samples={scale.tuning_rows}", "data.test_samples=200")
        record = self.sweep(place, ["none"], scale.tuning_seeds, *rows, *settings)
        done = [unit for unit in record["units"] if unit["status"] == "complete"]
        if len(done) < scale.tuning_seeds:
            raise SystemExit(f"{place}: {len(done)} of {scale.tuning_seeds} units are complete; see its logs")
        return [float(unit["validation"]["macro_f1"]) for unit in done]

    def curve(self) -> None:
        """Every arm at every number of rows."""
        for rows in self.scale.rows:
            self.sweep(f"rows-{rows}", self.scale.arms, self.scale.seeds, f"data.train_samples={rows}")

    def whole(self) -> None:
        """The curve's models on whole test splits, where its sweeps saw a sample."""
        for folder in sorted(self.out.glob("rows-*")):
            if (folder / "results" / "results.json").is_file():
                print(ask_whole(folder, self.data), flush=True)

    def unseen(self) -> None:
        """Each domain left out once."""
        rows = f"data.train_samples={self.scale.unseen_rows}"
        for domain in ("imdb", "rotten_tomatoes", "sst2", "tweet_eval", "amazon"):
            place, held = f"without-{domain}", f"data.hold_out={domain}"
            self.sweep(place, self.scale.unseen_arms, min(self.scale.seeds, 3), rows, held)


def write(out: Path, docs: Path, *, kept: Sequence[Path] = (), keep_in: Path | None = None) -> None:
    """Write tables and plots, of the sizes that were `kept` elsewhere too; and keep those that are here."""
    for path in write_study(out, docs, beside=read_kept(kept)):
        print(path)
    if keep_in is not None:
        for rows, record in curve_of(out).items():
            print(keep(rows, record, keep_in))


def _helps(scores: Sequence[float], plain: Sequence[float]) -> bool:
    """Whether every seed gains: a mean over few of them moves by chance as far as most options move it."""
    return all(score > other for score, other in zip(scores, plain, strict=True))


def _compatible(names: Sequence[str]) -> list[str]:
    """Of options that set the same key, the best; natural shares leave a prior correction nothing to do."""
    chosen: list[str] = []
    keys: set[str] = set()
    for name in names:
        mine = {setting.partition("=")[0] for setting in OPTIONS[name]}
        mine |= {"priors"} if name in ("natural label shares", "prior correction") else set()
        if not mine & keys:
            chosen.append(name)
            keys |= mine
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the steps that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=["baseline", "curve", "whole", "unseen", "write", "all"])
    parser.add_argument("--data", type=Path, help="folder of {domain}/{split}.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="where sweeps and their cache go")
    parser.add_argument("--docs", type=Path, help="folder for study-tables.md and images/; default: --out")
    parser.add_argument(
        "--reduced", action="store_true", help="fewer arms and epochs: a night on two CPU cores"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="fewer than the scale has; may grow later")
    parser.add_argument(
        "--plain", action="store_true", help="take the settings as they are; look for no better ones"
    )
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep the curve's figures there, a file a size"
    )
    parser.add_argument("--kept", type=Path, nargs="+", default=[], metavar="FILE", help="sizes --out lacks")
    options = parser.parse_args(arguments)
    if options.step != "write" and options.data is None:
        parser.error("--data: say where the five domains are, as {domain}/{split}.jsonl")
    scale = REDUCED if options.reduced else FULL
    scale = replace(scale, seeds=options.seeds or scale.seeds)
    study = Study(options.data or Path(), options.out, scale, tuple(options.settings))
    study.out.mkdir(parents=True, exist_ok=True)
    if options.step not in ("whole", "write") and not options.plain:
        study = replace(study, settings=(*study.baseline(), *study.settings))
    if options.step in ("curve", "all"):
        study.curve()
    if options.step == "whole" or (options.step == "all" and options.reduced):
        study.whole()
    if options.step in ("unseen", "all"):
        study.unseen()
    if options.step in ("write", "all"):
        write(study.out, options.docs or study.out, kept=options.kept, keep_in=options.keep)


if __name__ == "__main__":
    main()
