"""Builds and runs images with whatever container engine is there: Docker, or buildah with podman and runc.

It knows how each engine is told to build with secrets and to run hardened, and not what is in an image.
Podman keeps everything it writes below the scratch folder that it is given.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
HARDENED = (
    *("--network", "none", "--read-only", "--user", "12345:0", "--cap-drop", "all"),
    *("--security-opt", "no-new-privileges", "--tmpfs", "/tmp", "--pids-limit", "512"),  # noqa: S108 - the path inside the container
)


Completed = subprocess.CompletedProcess[str]


class CheckError(RuntimeError):
    """A check did not hold; the message says which and what was seen."""


@dataclass(frozen=True)
class Build:
    """What is to be built; `contexts` are named folders beside the main one."""

    context: Path
    dockerfile: str
    target: str
    tag: str
    arguments: Mapping[str, str]
    contexts: Mapping[str, Path] = field(default_factory=dict)
    cached: bool = True


@dataclass(frozen=True)
class Engine:
    """Command prefixes of one engine and the environment that they run in."""

    name: str
    build: tuple[str, ...]
    tool: str
    environment: dict[str, str] = field(repr=False)
    mounts_at_build: bool

    def call(self, *arguments: str, check: bool = True, limit: float = 600) -> Completed:
        """Runs the engine's tool. Raises CheckError with the last lines of its output."""
        return self._run([self.tool, *arguments], check=check, limit=limit)

    def _run(self, command: Sequence[str], *, check: bool, limit: float) -> Completed:
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environment, timeout=limit, check=False
        )
        if check and done.returncode:
            said = [
                line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("WARNING: ")
            ]
            tail = "\n".join(said[-25:])
            raise CheckError(f"{' '.join(command[:4])} … ended with {done.returncode}:\n{tail}")
        return done

    def build_image(self, order: Build, scratch: Path) -> None:
        """Builds one image. Raises CheckError with the builder's last lines."""
        command = [*self.build, "-f", str(order.context / order.dockerfile), "-t", order.tag]
        command += ["--target", order.target, *pip_secrets(scratch, mounts=self.mounts_at_build)]
        for name, value in order.arguments.items():
            command += ["--build-arg", f"{name}={value}"]
        for name, folder in order.contexts.items():
            command += ["--build-context", f"{name}={folder}"]
        if not order.cached:
            command.append("--no-cache")
        self._run([*command, str(order.context)], check=True, limit=3600)

    def run_hardened(
        self, image: str, *arguments: str, options: Sequence[str] = (), check: bool = True, limit: float = 600
    ) -> Completed:
        """Runs an image read-only, as a random user, without network and capabilities."""
        return self.call("run", *HARDENED, *options, image, *arguments, check=check, limit=limit)

    def remove_containers(self, names: Iterable[str]) -> None:
        """Ends and removes what a failed check left running."""
        for name in names:
            self.call("rm", "--force", name, check=False)


def pip_settings() -> dict[str, str]:
    """The settings of this machine's pip that say where distributions come from."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        if key in {"index-url", "extra-index-url", "find-links", "trusted-host", "timeout", "cert"}:
            found[key] = value.strip("'\"").replace("\\n", " ")
    return found


def local_folders(settings: dict[str, str]) -> list[Path]:
    """Folders of this machine that pip is told to look into: a builder has to see them too."""
    found = set()
    for key in ("index-url", "extra-index-url", "find-links"):
        for value in settings.get(key, "").split():
            path = Path(urlparse(value).path) if value.startswith("file:") else Path(value)
            if path.is_absolute() and path.is_dir():
                found.add(path.parent if path.name == "simple" else path)
    return sorted(found)


def pip_secrets(scratch: Path, *, mounts: bool) -> list[str]:
    """Build options that lend the builder this machine's index settings and certificates, in no layer."""
    settings = pip_settings()
    ca = Path(settings.pop("cert", os.environ.get("PIP_CERT", str(CA_BUNDLE))))
    target = scratch / "pip.conf"
    target.write_text(
        "".join(["[global]\n", *(f"{k} = {v}\n" for k, v in settings.items())]), encoding="utf-8"
    )
    options = ["--secret", f"id=pip,src={target}"]
    if ca.is_file():
        options += ["--secret", f"id=ca,src={ca}"]
    if mounts:
        options += [
            part for folder in local_folders(settings) for part in ("--volume", f"{folder}:{folder}:ro")
        ]
    return options


def _podman(scratch: Path) -> Engine:
    """Buildah and podman, their state below `scratch`; runc, since crun refuses hybrid cgroups."""
    (scratch / "containers.conf").write_text(
        '[engine]\nruntime="runc"\ncgroup_manager="cgroupfs"\n'
        '[containers]\ndefault_ulimits=["nofile=1024:1024","nproc=1024:1024"]\n',
        encoding="utf-8",
    )
    (scratch / "storage.conf").write_text(
        f'[storage]\ndriver="overlay"\ngraphroot="{scratch}/graph"\nrunroot="{scratch}/run"\n',
        encoding="utf-8",
    )
    environment = os.environ | {
        "CONTAINERS_CONF": str(scratch / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(scratch / "storage.conf"),
        "TMPDIR": str(scratch),
    }
    # The docker format keeps HEALTHCHECK; a fixed time stamp makes two builds one image.
    build = ["buildah", "bud", "--isolation=chroot", "--network", "host", "--pull-never", "--layers"]
    build += ["--format", "docker", "--timestamp", "0"]
    return Engine("buildah and podman", tuple(build), "podman", environment, mounts_at_build=True)


def find_engine(scratch: Path) -> Engine:
    """Docker when its engine answers, else buildah with podman. Raises CheckError when there is neither."""
    if shutil.which("docker"):
        answer = subprocess.run(["docker", "info"], capture_output=True, timeout=60, check=False)
        if answer.returncode == 0:
            environment = os.environ | {"DOCKER_BUILDKIT": "1"}
            return Engine("docker", ("docker", "build"), "docker", environment, mounts_at_build=False)
    missing = [tool for tool in ("buildah", "podman", "runc") if not shutil.which(tool)]
    if missing:
        raise CheckError(f"no Docker engine, and {missing} not found; install buildah, podman and runc")
    return _podman(scratch)


def make_stand_in(engine: Engine, base: str, scratch: Path) -> None:
    """A base image of Debian's own packages under the name of the real one, for machines without a registry.

    Needs mmdebstrap. Python is Debian's (3.11 on bookworm). Raises CheckError when it cannot be made.
    """
    if not shutil.which("mmdebstrap"):
        raise CheckError(
            f"base image {base!r} is not here and mmdebstrap is not found; pull it, or install that"
        )
    archive = scratch / "base.tar"
    link = 'for n in python python3; do ln -s /usr/bin/python3 "$1/usr/local/bin/$n"; done'
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=python3,python3-venv,ca-certificates"]
    command += [f"--customize-hook={link}", "bookworm", str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckError(f"mmdebstrap ended with {done.returncode}: {done.stderr[-800:]}")
    path = "ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    engine.call("import", "--change", path, str(archive), f"localhost/{base}")
    archive.unlink()
