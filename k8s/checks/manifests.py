"""`python -m k8s.checks.manifests [--write]`: checks all manifests; says what it cannot cover.

`--write` writes what is derived: the reference configuration into the job's ConfigMap, the two files that
apply alone, the operator's form of the rules, the dashboards. It does not know the project's
code; tests/k8s/test_drift.py compares manifests with it.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from pathlib import Path

from k8s.checks import dashboards, policy, rendering, rules, schemas

NOTICE = "# Written by `python -m k8s.checks.manifests --write` from k8s/base/{name}; edit that file.\n"
REFERENCE = rendering.FOLDER.parent / "trainer_job" / "configs" / "reference.yaml"
RULES = rendering.FOLDER / "monitoring" / "rules.yaml"
EMBEDDED = re.compile(r"(?<=^  sweep\.yaml: \|\n)(?:(?:    .*)?\n)+", re.MULTILINE)
OPERATOR = """\
# Written by `python -m k8s.checks.manifests --write` from rules.yaml; edit that file.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: stratified-sentiment
  labels:
    app.kubernetes.io/part-of: stratified-sentiment
spec:
"""


def base(name: str) -> str:
    """What the base's file of this name must hold: itself, with the reference configuration inside."""
    text = (rendering.BASE / name).read_text(encoding="utf-8")
    reference = textwrap.indent(REFERENCE.read_text(encoding="utf-8"), "    ")
    return EMBEDDED.sub(lambda _: reference, text)


def standalone(name: str) -> str:
    """What the self-contained file of this name must hold."""
    return NOTICE.format(name=name) + base(name)


def wrapped_rules() -> str:
    """The rules as the Prometheus operator reads them."""
    return OPERATOR + textwrap.indent(RULES.read_text(encoding="utf-8"), "  ")


def derived() -> dict[Path, str]:
    """Every file that is written from another one, and what it must hold."""
    files = {rendering.BASE / name: base(name) for name in rendering.STANDALONE}
    files |= {rendering.FOLDER / name: standalone(name) for name in rendering.STANDALONE}
    files[RULES.with_name("prometheus-rule.yaml")] = wrapped_rules()
    return files | {
        dashboards.FOLDER / name: dashboards.render(it) for name, it in dashboards.DASHBOARDS.items()
    }


def write() -> list[Path]:
    """Writes the derived files; their paths."""
    files = derived()
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


def streams() -> dict[str, list[rendering.Manifest]]:
    """The files that apply alone and, where there is a kubectl, all that kustomize renders."""
    found = {name: rendering.read(rendering.BASE / name) for name in rendering.STANDALONE}
    if rendering.kubectl():
        found |= {f"overlays/{path.name}": rendering.render(path) for path in rendering.overlays()}
        found["base"] = rendering.render(rendering.BASE)
    return found


def check() -> tuple[list[str], list[str]]:
    """What was covered, one line each, and every fault."""
    covered, faults = [], []
    for path, text in derived().items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            faults.append(
                f"{path.name}: not what it is written from; run `python -m k8s.checks.manifests --write`"
            )
    checked = streams()
    for name, stream in checked.items():
        faults += [f"{name}: {fault}" for fault in (*schemas.schema_faults(stream), *rules.faults(stream))]
        foreign = sorted({manifest["kind"] for manifest in stream if not schemas.is_built_in(manifest)})
        note = f"; {', '.join(foreign)} against {schemas.CUSTOM.name}" if foreign else ""
        versions = ", ".join(schemas.VERSIONS)
        covered.append(f"{name}: {len(stream)} objects against Kubernetes {versions} and our rules{note}")
    if policy.tool():
        passed, found = policy.policy_faults(checked)
        faults += found
        covered.append(
            f"checkov: {passed} policies hold; decided otherwise: {', '.join(policy.DECIDED_OTHERWISE)}"
        )
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
    if not policy.tool():
        out.write("not covered  checkov's policies: it is not installed (make manifests-check installs it)\n")
    out.write("not covered  admission, volumes, GPUs, custom controllers: they need a cluster\n")
    out.writelines(f"FAULT        {line}\n" for line in faults)
    out.write(f"{len(covered)} streams, {len(faults)} faults\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
