"""What is inside an image: labels, leftovers, what takes the room, its bill of materials.

Everything is asked of the image through the engine; how it is built and what it does is known elsewhere.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k8s.checks.engine import CheckError, Engine

LABELS = ("title", "version", "revision", "licenses", "base.name")
# Reads what must not be in an image, from the inside; prints one line a finding.
LEFTOVERS = """
import os, pathlib, shutil
for tool in ("gcc", "cc", "c++", "make", "git", "pip"):
    if shutil.which(tool): print("compiler or build tool:", tool)
for path in ("/root/.cache/pip", "/tmp/requirements.lock", "/tmp/install.sh", "/src", "/tools"):
    if os.path.exists(path): print("left over from the build:", path)
for path in ("/etc/pip.conf", "/run/secrets"):
    p = pathlib.Path(path)
    if p.is_file() and p.read_text().strip() or p.is_dir() and any(p.iterdir()): print("build setting:", path)
try:
    pathlib.Path("/opt/app/written").write_text("")
    print("the root file system is writable")
except OSError:
    pass
"""
# Bytes by part: the base, our code, each distribution of 5 MB and more; hard links count once.
ROOM = """
import json, os, pathlib
def size(path):
    seen, total = set(), 0
    for folder, _, files in os.walk(path):
        for name in files:
            s = os.lstat(os.path.join(folder, name))
            if s.st_ino not in seen:
                seen.add(s.st_ino); total += s.st_size
    return total
parts = {}
for site in pathlib.Path("/venv/lib").glob("python3*/site-packages"):
    for entry in site.iterdir():
        if entry.is_dir():
            name = entry.name.removesuffix(".libs")
            parts[name] = parts.get(name, 0) + size(entry)
rest = sum(value for value in parts.values() if value < 5e6)
parts = {name: value for name, value in parts.items() if value >= 5e6}
parts["other distributions"] = rest
parts["this project"] = size("/opt/app")
if os.path.isdir("/opt/data"): parts["weights and texts"] = size("/opt/data")
tops = [pathlib.Path("/", name) for name in ("bin", "etc", "lib", "sbin", "usr", "var")]
parts["base"] = sum(size(top) for top in tops if not top.is_symlink())
print(json.dumps(parts))
"""
DISTRIBUTIONS = """
import glob, importlib.metadata, json
found = importlib.metadata.distributions(path=glob.glob("/venv/lib/python3*/site-packages"))
print(json.dumps(sorted({(entry.name, entry.version) for entry in found})))
"""


@dataclass(frozen=True)
class Expected:
    """What an image must be: its entry point, and its size in decimal gigabytes at most."""

    entry: str
    budget: float


def labels_and_size(engine: Engine, image: str, expected: Expected) -> str:
    """What the image says of itself. Raises CheckError when that is not as it must be."""
    found: dict[str, Any] = json.loads(engine.call("image", "inspect", image).stdout)[0]
    config = found["Config"]
    size = found["Size"] / 1e9
    labels = config.get("Labels") or {}
    missing = [key for key in LABELS if not labels.get(f"org.opencontainers.image.{key}")]
    faults = [f"label {key} is empty" for key in missing]
    if not str(config.get("User", "")).split(":")[0].isdigit() or str(config["User"]).startswith("0"):
        faults.append(f"user {config.get('User')!r} is not a number above 0")
    if config.get("Entrypoint") != [expected.entry]:
        faults.append(f"entry point {config.get('Entrypoint')} is not ['{expected.entry}']")
    if config.get("StopSignal") not in {"SIGTERM", "15"}:
        faults.append(f"stop signal {config.get('StopSignal')!r} is not SIGTERM")
    if size > expected.budget:
        faults.append(f"{size:.3f} GB is above the budget of {expected.budget} GB")
    if faults:
        raise CheckError(f"{image}: {'; '.join(faults)}")
    return f"{size:.2f} GB (at most {expected.budget}), user, labels, entry point"


def ask(engine: Engine, image: str, script: str) -> str:
    """What a script prints inside the image, hardened."""
    return engine.run_hardened(image, "-c", script, options=("--rm", "--entrypoint", "python")).stdout.strip()


def no_leftovers(engine: Engine, image: str) -> None:
    """No compiler, cache, lock or setting of the build in the image. Raises CheckError with the findings."""
    if seen := ask(engine, image, LEFTOVERS):
        raise CheckError(f"{image}: {seen}")


def room(engine: Engine, image: str) -> str:
    """What takes the room, largest first, in megabytes."""
    parts: dict[str, int] = json.loads(ask(engine, image, ROOM))
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {value / 1e6:.0f}" for name, value in ordered if value >= 5e5) + " MB"


def distributions(engine: Engine, image: str) -> set[tuple[str, str]]:
    """Name and version of every Python distribution in the image."""
    return {(normal(name), version) for name, version in json.loads(ask(engine, image, DISTRIBUTIONS))}


def normal(name: str) -> str:
    """A distribution's name in its normalised form."""
    return name.replace("_", "-").replace(".", "-").lower()


def bill_of_materials(engine: Engine, image: str, lock: Path, out: Path) -> str:
    """CycloneDX JSON of what the image holds: the lock with its hashes, and the base's Debian packages.

    Raises CheckError when the lock names other distributions than the image holds.
    """
    tool = beside("cyclonedx-py")
    if tool is None:
        return "not covered  a bill of materials: cyclonedx-py is not installed (pip install cyclonedx-bom)"
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [tool, "requirements", str(lock), "--of", "JSON", "--output-reproducible", "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckError(f"cyclonedx-py: {done.stderr[-800:]}")
    bill = json.loads(out.read_text(encoding="utf-8"))
    # Hashes of the build of torch that is installed stand under its plain version.
    listed = {(normal(item["name"]), item["version"]) for item in bill["components"]}
    held = {(name, version.partition("+")[0]) for name, version in distributions(engine, image)}
    if listed != held:
        raise CheckError(f"{image}: {lock.name} and the image differ in {sorted(listed ^ held)}")
    packages = debian_packages(engine, image)
    bill["components"] += packages
    out.write_text(json.dumps(bill, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    count = f"{len(listed)} distributions and {len(packages)} packages"
    return f"covered      {image}: bill of materials, {count}: {out}"


def debian_packages(engine: Engine, image: str) -> list[dict[str, str]]:
    """The base's packages as CycloneDX components."""
    options = ("--rm", "--entrypoint", "dpkg-query")
    listing = engine.run_hardened(image, "-W", "-f", "${Package} ${Version}\\n", options=options).stdout
    pairs = [line.split() for line in listing.splitlines() if line.strip()]
    return [
        {"type": "library", "name": name, "version": version, "purl": f"pkg:deb/debian/{name}@{version}"}
        for name, version in pairs
    ]


def audit(locks: Iterable[Path]) -> str:
    """Known weaknesses of what the locks pin, where their data can be had. Raises CheckError with them."""
    tool = beside("pip-audit")
    if tool is None:
        return "not covered  known weaknesses: pip-audit is not installed (pip install pip-audit)"
    options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    files = [part for lock in locks for part in ("--requirement", str(lock))]
    try:
        done = subprocess.run(
            [tool, *options, *files], capture_output=True, text=True, check=False, timeout=300
        )
        found = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return "not covered  known weaknesses: pip-audit gets no answer from its data source here"
    known = [item for item in found if "vulns" in item]
    weak = {item["name"]: [v["id"] for v in item["vulns"]] for item in known if item["vulns"]}
    if weak:
        raise CheckError(f"pip-audit: {weak}; raise these versions in constraints.txt and refresh the locks")
    if not known:
        return (
            f"not covered  known weaknesses: pip-audit finds data for none of {len(found)} distributions here"
        )
    return f"covered      pip-audit knows no weakness of {len(known)} of {len(found)} distributions"


def beside(tool: str) -> str | None:
    """A program of this environment or of the path."""
    return shutil.which(tool, path=str(Path(sys.executable).parent)) or shutil.which(tool)
