"""`python -m k8s.checks.monitoring`: tests the rules, and asks every query of a live Prometheus.

The real service under load and the real job while it trains are scraped for some seconds (live.py); then each
query of rules and dashboards must return a finite sample. It does not know Grafana: the panels' queries are
asked as Grafana fills them, and drawn on demand (pictures.py).
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from k8s.checks import live, load, queries
from k8s.checks.engine import CheckError

SECONDS = 20
PATIENCE = 120


def unanswered(system: live.System, asked: list[queries.Query]) -> list[tuple[queries.Query, str]]:
    """The queries that return no finite sample, with what came back."""
    missing = []
    for query in asked:
        path = "/api/v1/query?" + urllib.parse.urlencode({"query": query.expression})
        try:
            result = json.loads(system.page(system.prometheus, path))["data"]["result"]
        except OSError as error:
            result, reason = [], str(error)
        else:
            reason = f"{len(result)} samples, none finite"
        if not any(math.isfinite(float(sample["value"][1])) for sample in result):
            missing.append((query, reason))
    return missing


def ask_until_answered(system: live.System, asked: list[queries.Query]) -> None:
    """Every query, under load, until each has been answered once. Raises CheckError with those that were not.

    Between two units of the job there are seconds in which nothing is being trained.
    """
    end = time.monotonic() + PATIENCE
    missing = [(query, "") for query in asked]
    while missing and time.monotonic() < end:
        load.mixed(f"127.0.0.1:{system.service}", seconds=2)
        missing = unanswered(system, [query for query, _ in missing])
    if missing:
        lines = [f"{query.origin}: {why}: {' '.join(query.expression.split())}" for query, why in missing]
        raise CheckError("queries without data:\n" + "\n".join(lines))


def check(folder: Path, pictures: Path | None) -> Iterator[str]:
    """The whole system for some seconds; what was covered. Raises CheckError."""
    with live.running(folder) as system:
        rounds = load.mixed(f"127.0.0.1:{system.service}", seconds=SECONDS)
        for port in (system.metrics, system.training):
            live.promtool("check", "metrics", text=system.page(port))
        asked = queries.all_queries()
        ask_until_answered(system, asked)
        if not unanswered(system, [queries.Query("control", "no_such_metric")]):
            raise CheckError("a metric that does not exist got an answer: this check proves nothing")
        if pictures is not None:
            from k8s.checks.pictures import draw

            for path in draw(system, pictures):
                yield f"written      {path}"
    yield f"covered      {rounds} rounds of mixed load while a sweep trains; both /metrics pass promtool"
    yield f"covered      {len(asked)} queries of rules and dashboards have samples, an unknown metric none"
    yield "covered      on SIGTERM the service drained with 0, the job saved and ended with 75"
    record = (system.results / "metrics.prom").read_text(encoding="utf-8")
    live.promtool("check", "metrics", text=record)
    if "stratified_train_test_macro_f1{" not in record:
        raise CheckError("metrics.prom does not tell the figures of the units that are complete")
    yield f"covered      metrics.prom beside results.json: {len(record.splitlines())} lines, pass promtool"


def main() -> int:
    """Prints what was covered and what not; 1 when something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, help="draw the dashboards' panels into this folder")
    chosen = parser.parse_args()
    out = sys.stdout
    missing = [tool for tool in ("prometheus", "promtool") if not shutil.which(tool)]
    if missing:
        out.write(
            f"FAULT        {missing} not found; install Prometheus (Debian: apt-get install prometheus)\n"
        )
        return 1
    folder = Path(tempfile.mkdtemp(prefix="stratified-monitoring-"))
    try:
        live.promtool("check", "rules", "rules.yaml")
        live.promtool("test", "rules", "rules.test.yaml")
        out.write(
            "covered      every alert fires on a bad series and stays silent on a good one (promtool)\n"
        )
        for line in check(folder, chosen.pictures):
            out.write(f"{line}\n")
    except CheckError as error:
        out.write(f"FAULT        {error}\n")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    out.write(
        "not covered  Grafana; kube-state-metrics and the kubelet are a stand-in: they need a cluster\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
