"""`python -m k8s.checks.manifests [--write]`: checks all manifests; says what it cannot cover.

`--write` copies the base's two self-contained files to where they apply alone. It does not know the project's
code; tests/k8s/test_drift.py compares manifests with it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from k8s.checks import rendering, rules, schemas

NOTICE = "# Written by `python -m k8s.checks.manifests --write` from k8s/base/{name}; edit that file.\n"


def standalone(name: str) -> str:
    """What the self-contained file of this name must hold."""
    return NOTICE.format(name=name) + (rendering.BASE / name).read_text(encoding="utf-8")


def write() -> list[Path]:
    """Writes the self-contained files; their paths."""
    paths = [rendering.FOLDER / name for name in rendering.STANDALONE]
    for path in paths:
        path.write_text(standalone(path.name), encoding="utf-8")
    return paths


def check() -> tuple[list[str], list[str]]:
    """What was covered, one line each, and every fault."""
    covered, faults = [], []
    for name in rendering.STANDALONE:
        path = rendering.FOLDER / name
        if not path.is_file() or path.read_text(encoding="utf-8") != standalone(name):
            faults.append(f"{name}: not the base's text; run `python -m k8s.checks.manifests --write`")
    streams = {name: rendering.read(rendering.BASE / name) for name in rendering.STANDALONE}
    if rendering.kubectl():
        streams |= {f"overlays/{path.name}": rendering.render(path) for path in rendering.overlays()}
        streams["base"] = rendering.render(rendering.BASE)
    for name, stream in streams.items():
        faults += [f"{name}: {fault}" for fault in (*schemas.schema_faults(stream), *rules.faults(stream))]
        foreign = sorted({manifest["kind"] for manifest in stream if not schemas.is_built_in(manifest)})
        note = f"; custom kinds, shape only: {', '.join(foreign)}" if foreign else ""
        versions = ", ".join(schemas.VERSIONS)
        covered.append(f"{name}: {len(stream)} objects against Kubernetes {versions} and our rules{note}")
    return covered, faults


def main() -> int:
    """Prints what was covered and what not; 1 when a fault was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the self-contained files first")
    if parser.parse_args().write:
        write()
    covered, faults = check()
    out = sys.stdout
    out.writelines(f"covered      {line}\n" for line in covered)
    if not rendering.kubectl():
        out.write("not covered  base and overlays as kustomize renders them: no kubectl on the path\n")
    out.write("not covered  admission, volumes, GPUs, custom controllers: they need a cluster\n")
    out.writelines(f"FAULT        {line}\n" for line in faults)
    out.write(f"{len(covered)} streams, {len(faults)} faults\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
