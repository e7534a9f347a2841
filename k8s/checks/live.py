"""The real job and the real service for some seconds on loopback, with a Prometheus that scrapes both.

It knows how each is started, loaded and stopped; what is asked of Prometheus meanwhile is the caller's.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from k8s.checks import load, smoke
from k8s.checks.engine import CheckError
from k8s.checks.manifests import RULES

# Many short units: some are finished and one is being trained whenever Prometheus is asked.
SEEDS = 60
START = 300  # seconds: a machine that others use, too
# What a cluster's exporters would say of a running job; names and labels as their documentation has them.
CLUSTER = """\
kube_job_status_active{namespace="n",job_name="stratified-train"} 1
kube_job_status_failed{namespace="n",job_name="stratified-train"} 0
kube_job_status_start_time{namespace="n",job_name="stratified-train"} 1
kube_job_failed{namespace="n",job_name="stratified-train",condition="true"} 0
kube_job_complete{namespace="n",job_name="stratified-train",condition="true"} 0
kube_deployment_status_replicas_available{namespace="n",deployment="stratified-serve"} 2
kube_deployment_spec_replicas{namespace="n",deployment="stratified-serve"} 2
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
        with suppress(BrokenPipeError):  # Prometheus waits a second, and a busy machine may take longer
            self.wfile.write(CLUSTER.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Says nothing."""


@dataclass(frozen=True)
class System:
    """Where the parts listen on loopback, and where the job writes."""

    service: int
    probe: int
    metrics: int
    training: int
    prometheus: int
    results: Path

    def page(self, port: int, path: str = "/metrics") -> str:
        """A page of one of them."""
        return get(f"http://127.0.0.1:{port}{path}")


def get(url: str) -> str:
    """The body of a page on loopback."""
    with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 - the callers ask loopback over http
        return str(reply.read().decode())


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@dataclass(frozen=True)
class Child:
    """A process of ours and its log."""

    command: Sequence[str]
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raises CheckError with the end of its log when it is no more."""
        if self.process.poll() is not None:
            self.fail("while it should run")

    def fail(self, when: str) -> None:
        """Raises CheckError with the end of its log."""
        tail = self.log.read_text(encoding="utf-8")[-1500:]
        raise CheckError(f"{' '.join(self.command[:3])} ended in {self.process.returncode} {when}: {tail}")


@contextmanager
def process(command: Sequence[str], log: Path, *, expected: int) -> Iterator[Child]:
    """A child that is ended with SIGTERM. Raises CheckError when it ends otherwise than `expected`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("w", encoding="utf-8") as stream:
        started = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
        child = Child(command, started, log)
        try:
            yield child
        finally:
            started.send_signal(signal.SIGTERM)
            started.wait(timeout=120)
    if started.returncode != expected:
        child.fail(f"on SIGTERM, not in {expected}")


def wait_for_page(url: str, child: Child, *, seconds: float) -> None:
    """Asks twice a second until the page of a child is there. Raises CheckError."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        child.check()
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


def write_config(folder: Path, targets: dict[str, int]) -> Path:
    """Prometheus' configuration: every target each second, the project's rules each second."""
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


def job_command(folder: Path, port: int) -> list[str]:
    """A sweep of many short units on one process, on made-up data and a tiny backbone."""
    from stratified_models.testing import tiny_backbone

    volume = smoke.Volume(folder)
    volume.make()
    smoke.write_input(volume, ("attention",), place=folder / "input")
    tiny_backbone(folder / "input" / "backbone")
    command = [sys.executable, "-m", "trainer_job", "run", "--config", str(folder / "input" / "sweep.yaml")]
    settings = {
        "results": folder / "results" / "sweep",
        "logs": folder / "logs" / "sweep",
        "cache": folder / "cache",
        "seeds": list(range(SEEDS)),
        "hardware.processes": 1,
    }
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    return [*command, "--metrics", str(port)]


def service_command(folder: Path, *, service: int, probe: int, metrics: int) -> list[str]:
    """The service with a tiny bundle and a short queue, so that calls are shed."""
    from stratified_models.testing import tiny_bundle

    tiny_bundle(folder / "models", variant="attention")
    command = [sys.executable, "-m", "serving", "--models", str(folder / "models"), "--queue-tokens", "2048"]
    command += ["--port", str(service), "--probe-port", str(probe), "--metrics-port", str(metrics)]
    return [*command, "--settle-seconds", "0", "--log-level", "WARNING"]


@contextmanager
def running(folder: Path) -> Iterator[System]:
    """Job, service, a stand-in for the cluster's exporters, and Prometheus; all ended afterwards.

    Raises CheckError when one does not come up, or ends otherwise than it must: the job with 75, the others
    with 0.
    """
    folder.mkdir(parents=True, exist_ok=True)
    service, probe, metrics, training, web = free_ports(5)
    cluster = ThreadingHTTPServer(("127.0.0.1", 0), ClusterStandIn)
    threading.Thread(target=cluster.serve_forever, daemon=True).start()
    targets = {
        "stratified-serve": metrics,
        "stratified-train": training,
        "cluster": cluster.server_address[1],
    }
    watch = ["prometheus", f"--config.file={write_config(folder, targets)}", "--log.level=warn"]
    watch += [f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{web}"]
    serve = service_command(folder, service=service, probe=probe, metrics=metrics)
    with ExitStack() as stack:
        stack.callback(cluster.server_close)
        stack.callback(cluster.shutdown)
        train = job_command(folder / "job", training)
        job = stack.enter_context(process(train, folder / "job.log", expected=75))
        server = stack.enter_context(process(serve, folder / "serve.log", expected=0))
        prometheus = stack.enter_context(process(watch, folder / "prometheus.log", expected=0))
        load.wait_until_ready(f"127.0.0.1:{probe}", seconds=START, alive=server.check)
        wait_for_page(f"http://127.0.0.1:{training}/metrics", job, seconds=START)
        wait_for_page(f"http://127.0.0.1:{web}/-/ready", prometheus, seconds=START)
        yield System(service, probe, metrics, training, web, folder / "job" / "results" / "sweep")
