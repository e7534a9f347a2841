"""`python -m k8s.checks.monitoring`: tests the rules, and asks every query of a live Prometheus.

Starts, on loopback and on free ports, the real service with a tiny model, a stand-in for the exporters of a
cluster (kube-state-metrics, kubelet), and Prometheus; loads the service for some seconds; then each query of
rules and dashboards must return a finite sample. It does not know Grafana: the panels' queries are asked as
Grafana fills them.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from k8s.checks import load, queries
from k8s.checks.engine import CheckError
from k8s.checks.manifests import RULES

SECONDS = 25
# What a cluster's exporters would say of a running job; names and labels as their documentation has them.
CLUSTER = """\
kube_job_status_active{namespace="n",job_name="stratified-train"} 1
kube_job_status_failed{namespace="n",job_name="stratified-train"} 0
kube_job_status_start_time{namespace="n",job_name="stratified-train"} 1
kube_job_failed{namespace="n",job_name="stratified-train",condition="true"} 0
kube_job_complete{namespace="n",job_name="stratified-train",condition="true"} 0
kube_horizontalpodautoscaler_status_condition{namespace="n",horizontalpodautoscaler="stratified-serve",\
condition="ScalingActive",status="false"} 0
kubelet_volume_stats_available_bytes{namespace="n",persistentvolumeclaim="stratified-results"} 5e9
kubelet_volume_stats_capacity_bytes{namespace="n",persistentvolumeclaim="stratified-results"} 5e10
container_memory_working_set_bytes{pod="p",container="train"} 1e9
container_cpu_usage_seconds_total{pod="p",container="train"} 10
"""


class ClusterStandIn(BaseHTTPRequestHandler):
    """Answers every GET with the text above."""

    def do_GET(self) -> None:
        """One scrape."""
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(CLUSTER.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Says nothing."""


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def process(command: Sequence[str], log: Path, *, expected: tuple[int, ...]) -> Iterator[None]:
    """A child that is ended with SIGTERM. Raises CheckError when it ends otherwise than `expected`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("w", encoding="utf-8") as stream:
        child = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
        try:
            yield
        finally:
            child.send_signal(signal.SIGTERM)
            code = child.wait(timeout=60)
    if code not in expected:
        tail = log.read_text(encoding="utf-8")[-1500:]
        raise CheckError(f"{command[0]} ended in {code}, not {expected}: {tail}")


def get(url: str) -> str:
    """The body of a page on loopback."""
    with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 - the callers ask loopback over http
        return str(reply.read().decode())


def wait_for_page(url: str, *, seconds: float) -> None:
    """Asks twice a second until the page is there. Raises CheckError."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            get(url)
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise CheckError(f"{url} did not answer within {seconds:.0f} s")


def promtool(*arguments: str, text: str | None = None) -> None:
    """Runs promtool beside the rules. Raises CheckError with its output."""
    command = ["promtool", *arguments]
    done = subprocess.run(command, cwd=RULES.parent, capture_output=True, text=True, input=text, check=False)
    if done.returncode:
        raise CheckError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-1500:]}")


def write_config(folder: Path, *, service: int, cluster: int) -> Path:
    """Prometheus' configuration: both targets each second, the project's rules each second."""
    targets = {"stratified-serve": service, "cluster": cluster}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for name, port in targets.items()
        ],
    }
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    promtool("check", "config", str(path))
    return path


def unanswered(prometheus: str, asked: list[queries.Query]) -> list[str]:
    """The queries that return no finite sample, with what came back."""
    missing = []
    for query in asked:
        url = f"{prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": query.expression})
        try:
            result = json.loads(get(url))["data"]["result"]
        except OSError as error:
            result, reason = [], str(error)
        else:
            reason = f"{len(result)} samples, none finite"
        if not any(math.isfinite(float(sample["value"][1])) for sample in result):
            missing.append(f"{query.origin}: {reason}: {' '.join(query.expression.split())}")
    return missing


def live(folder: Path) -> list[str]:
    """The whole system for some seconds; what was covered. Raises CheckError."""
    from stratified_models.testing import tiny_bundle

    service, probe, metrics, web = free_ports(4)
    tiny_bundle(folder / "models", variant="attention")
    serve = [sys.executable, "-m", "serving", "--models", str(folder / "models"), "--queue-tokens", "2048"]
    serve += ["--port", str(service), "--probe-port", str(probe), "--metrics-port", str(metrics)]
    serve += ["--settle-seconds", "0", "--log-level", "WARNING"]
    cluster = ThreadingHTTPServer(("127.0.0.1", 0), ClusterStandIn)
    threading.Thread(target=cluster.serve_forever, daemon=True).start()
    config = write_config(folder, service=metrics, cluster=cluster.server_address[1])
    watch = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    watch += [f"--web.listen-address=127.0.0.1:{web}", "--log.level=warn"]
    try:
        with process(serve, folder / "serve.log", expected=(0,)):
            load.wait_until_ready(f"127.0.0.1:{probe}", seconds=120)
            with process(watch, folder / "prometheus.log", expected=(0,)):
                wait_for_page(f"http://127.0.0.1:{web}/-/ready", seconds=30)
                rounds = load.mixed(f"127.0.0.1:{service}", seconds=SECONDS)
                promtool("check", "metrics", text=get(f"http://127.0.0.1:{metrics}/metrics"))
                asked = queries.all_queries()
                missing = unanswered(f"http://127.0.0.1:{web}", asked)
                control = unanswered(f"http://127.0.0.1:{web}", [queries.Query("control", "no_such_metric")])
    finally:
        cluster.shutdown()
        cluster.server_close()
    if missing:
        raise CheckError("queries without data:\n" + "\n".join(missing))
    if not control:
        raise CheckError("a metric that does not exist got an answer: this check proves nothing")
    return [
        f"{rounds} rounds of mixed load; /metrics passes promtool",
        f"{len(asked)} queries of rules and dashboards return finite samples; an unknown metric returns none",
        "the service drained with 0 on SIGTERM",
    ]


def main() -> int:
    """Prints what was covered and what not; 1 when something does not hold."""
    out = sys.stdout
    missing = [tool for tool in ("prometheus", "promtool") if not shutil.which(tool)]
    if missing:
        out.write(
            f"FAULT        {missing} not found; install Prometheus (Debian: apt-get install prometheus)\n"
        )
        return 1
    folder = Path(tempfile.mkdtemp(prefix="stratified-monitoring-"))
    try:
        promtool("check", "rules", RULES.name)
        promtool("test", "rules", "rules.test.yaml")
        out.write(
            "covered      every alert fires on a bad series and stays silent on a good one (promtool)\n"
        )
        for line in live(folder):
            out.write(f"covered      {line}\n")
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
