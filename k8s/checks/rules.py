"""Rules of our own for manifests: what the Kubernetes schemas let pass and a cluster would refuse or misread.

Each rule takes the documents of one stream and yields one line a fault: value, rule, cure. The security rules
are those of the Pod Security Standard "restricted". It does not know the project's code: exit codes, ports
and settings are compared with it in tests/k8s/test_drift.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from k8s.checks.rendering import Manifest, containers, identity, of_kind, pod_template
from k8s.checks.schemas import inner_jobs

QUANTITY = re.compile(r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$")
JOB_ACTIONS = {"FailJob", "FailIndex", "Ignore", "Count"}
RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def _templates(stream: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Label and pod template of every workload in the stream."""
    for manifest in (inner for outer in stream for inner in (outer, *inner_jobs(outer))):
        template = pod_template(manifest)
        if template is not None:
            yield f"{manifest['kind']} {manifest['metadata']['name']}", template


def restricted(stream: list[Manifest]) -> Iterator[str]:
    """Pod Security Standard "restricted", plus a read-only root and no API token."""
    for where, template in _templates(stream):
        spec, pod = template["spec"], template["spec"].get("securityContext", {})
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{where}: mounts an API token; set automountServiceAccountToken: false"
        if spec.get("enableServiceLinks") is not False:
            yield f"{where}: Services inject variables; set enableServiceLinks: false"
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(key):
                yield f"{where}: {key} is refused by the restricted profile; remove it"
        for volume in spec.get("volumes", []):
            kinds = set(volume) - {"name"}
            if not kinds <= RESTRICTED_VOLUMES:
                yield f"{where}: {volume['name']!r} is {kinds}; take one of {sorted(RESTRICTED_VOLUMES)}"
        for container in containers(template):
            yield from _restricted_container(f"{where}, container {container['name']}", pod, container)


def _restricted_container(where: str, pod: Manifest, container: Manifest) -> Iterator[str]:
    """The restricted profile's rules for one container, the pod's settings inherited."""
    own = container.get("securityContext", {})
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield f"{where}: may run as root; set runAsNonRoot: true"
    if not own.get("runAsUser", pod.get("runAsUser")):
        yield f"{where}: names no numeric user; set runAsUser to one above 0"
    profile = own.get("seccompProfile", pod.get("seccompProfile", {})).get("type")
    if profile not in {"RuntimeDefault", "Localhost"}:
        yield f"{where}: seccomp profile {profile!r}; set seccompProfile.type: RuntimeDefault"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{where}: may escalate; set allowPrivilegeEscalation: false"
    if own.get("privileged"):
        yield f"{where}: privileged; remove it"
    if own.get("readOnlyRootFilesystem") is not True:
        yield f"{where}: writable root; set readOnlyRootFilesystem: true"
    capabilities = own.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{where}: keeps capabilities; set capabilities.drop: [ALL] and add none"


def images_and_resources(stream: list[Manifest]) -> Iterator[str]:
    """A version on every image, no registry, memory bounded, quantities that Kubernetes reads."""
    for where, template in _templates(stream):
        for container in containers(template):
            name, image = f"{where}, container {container['name']}", str(container.get("image", ""))
            if not re.search(r"(:[^/:]+|@sha256:[0-9a-f]{64})$", image) or image.endswith(":latest"):
                yield f"{name}: image {image!r} has no fixed version; give a tag or digest that is not latest"
            if "/" in image:
                yield f"{name}: image {image!r} names a registry; leave that to the deployer's kustomization"
            resources = container.get("resources", {})
            requests, limits = resources.get("requests", {}), resources.get("limits", {})
            if (
                "cpu" not in requests
                or requests.get("memory") != limits.get("memory")
                or "memory" not in limits
            ):
                yield f"{name}: set a CPU request, and memory request = memory limit"
            for part in (requests, limits):
                for key, value in part.items():
                    if not QUANTITY.match(str(value)):
                        yield f"{name}: {key}: {value!r} is no quantity; write 24Gi or 500m"


def jobs(stream: list[Manifest]) -> Iterator[str]:
    """What podFailurePolicy and resuming ask of a Job."""
    for job in of_kind(stream, "Job"):
        where, spec = f"Job {job['metadata']['name']}", job["spec"]
        pod = spec["template"]["spec"]
        names = {container["name"] for container in containers(spec["template"])}
        if pod.get("restartPolicy") != "Never":
            yield f"{where}: restartPolicy {pod.get('restartPolicy')!r}; podFailurePolicy demands Never"
        if spec.get("podReplacementPolicy") != "Failed":
            found = spec.get("podReplacementPolicy")
            yield f"{where}: podReplacementPolicy {found!r}; set Failed, so that one pod holds the volume"
        if not spec.get("activeDeadlineSeconds") or "ttlSecondsAfterFinished" not in spec:
            yield f"{where}: unbounded; set activeDeadlineSeconds and ttlSecondsAfterFinished"
        rules = spec.get("podFailurePolicy", {}).get("rules", [])
        first = rules[0] if rules else {}
        if first.get("action") != "Ignore" or "onPodConditions" not in first:
            yield f"{where}: the first rule must Ignore DisruptionTarget; the first match wins"
        yield from _indexed(where, spec)
        for rule in rules:
            if rule.get("action") not in JOB_ACTIONS:
                yield f"{where}: action {rule.get('action')!r}; use one of {sorted(JOB_ACTIONS)}"
            codes = rule.get("onExitCodes", {})
            if codes.get("operator") == "In" and 0 in codes.get("values", []):
                yield f"{where}: exit code 0 in a failure rule; 0 is success, remove it"
            if codes and codes.get("containerName", next(iter(names))) not in names:
                yield f"{where}: containerName {codes['containerName']!r}; use one of {sorted(names)}"


def _indexed(where: str, spec: Manifest) -> Iterator[str]:
    """What tries by index ask of a Job, and the other way round."""
    by_index = "backoffLimitPerIndex" in spec
    if by_index and spec.get("completionMode") != "Indexed":
        yield f"{where}: backoffLimitPerIndex without an index; set completionMode: Indexed"
    actions = {rule.get("action") for rule in spec.get("podFailurePolicy", {}).get("rules", [])}
    if "FailIndex" in actions and not by_index:
        yield f"{where}: FailIndex without backoffLimitPerIndex; set that, or FailJob"
    if by_index and spec.get("maxFailedIndexes", 0) >= spec.get("completions", 0):
        yield f"{where}: maxFailedIndexes ≥ completions never fails the Job; set fewer"


def mounts(stream: list[Manifest]) -> Iterator[str]:
    """Mounts name volumes; volumes and accounts name what is in the stream."""
    known = {identity(manifest) for manifest in stream}
    for where, template in _templates(stream):
        spec = template["spec"]
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        for container in containers(template):
            names = {mount["name"] for mount in container.get("volumeMounts", [])}
            for name in sorted(names - set(volumes)):
                yield f"{where}: mounts {name!r}, which is no volume; add it or correct the name"
        for name, volume in volumes.items():
            config = volume.get("configMap", {}).get("name")
            if config and ("ConfigMap", config) not in known:
                yield f"{where}: volume {name!r} wants ConfigMap {config!r}; add that to the stream"
        account = spec.get("serviceAccountName")
        if account and ("ServiceAccount", account) not in known:
            yield f"{where}: ServiceAccount {account!r} is not in the stream; add it"


def references(stream: list[Manifest]) -> Iterator[str]:
    """Selectors meet labels, the autoscaler's target and named ports exist."""
    known = {identity(manifest) for manifest in stream}
    for deployment in of_kind(stream, "Deployment"):
        wanted = deployment["spec"]["selector"]["matchLabels"].items()
        if not wanted <= deployment["spec"]["template"]["metadata"]["labels"].items():
            yield f"{identity(deployment)}: the selector does not meet its own pod labels; correct one"
    for autoscaler in of_kind(stream, "HorizontalPodAutoscaler"):
        target = autoscaler["spec"]["scaleTargetRef"]
        if (target["kind"], target["name"]) not in known:
            yield f"HorizontalPodAutoscaler: target {target['name']!r} is not in the stream; correct it"
    yield from _selectors(stream)


def _wanted(manifest: Manifest) -> tuple[Manifest, set[str]] | None:
    """The pod labels that an object selects and the ports that it names; None when it selects none."""
    kind, spec = manifest["kind"], manifest.get("spec", {})
    if kind == "Service":
        ports = [port.get("targetPort") for port in spec.get("ports", [])]
        return spec.get("selector", {}), {port for port in ports if isinstance(port, str)}
    if kind == "PodDisruptionBudget":
        return spec["selector"]["matchLabels"], set()
    if kind == "NetworkPolicy":
        rules = [*spec.get("ingress", []), *spec.get("egress", [])]
        ports = [port["port"] for rule in rules for port in rule.get("ports", [])]
        return spec["podSelector"].get("matchLabels", {}), {port for port in ports if isinstance(port, str)}
    return None


def _selectors(stream: list[Manifest]) -> Iterator[str]:
    """Services, budgets and policies select some pod of the stream; named ports exist on it."""
    pods = [template for _, template in _templates(stream)]
    for manifest in stream:
        wanted = _wanted(manifest)
        if wanted is None:
            continue
        selector, ports = wanted
        where = f"{manifest['kind']} {manifest['metadata']['name']}"
        chosen = [pod for pod in pods if selector.items() <= pod["metadata"]["labels"].items()]
        if not chosen:
            yield f"{where}: selects no pod of the stream; correct its selector {selector}"
        for pod in chosen:
            named = {port.get("name") for container in containers(pod) for port in container.get("ports", [])}
            for port in sorted(ports - named):
                yield f"{where}: port {port!r} is on no container; it has {sorted(map(str, named))}"


Rule = Callable[[list[Manifest]], Iterator[str]]
RULES: tuple[Rule, ...] = (restricted, images_and_resources, jobs, mounts, references)


def faults(stream: list[Manifest]) -> list[str]:
    """All faults of all rules, in their order; empty for a good stream."""
    return [fault for rule in RULES for fault in rule(stream)]
