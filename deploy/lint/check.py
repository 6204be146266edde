#!/usr/bin/env python3
"""Checks what deploy/ holds against what can be had offline; called by deploy/lint.sh.

usage: check.py chart VALUES SCHEMA RENDERED | embedded VALUES OUT | terraform DIR LAYOUT | metrics PAGE FILE...

chart      the chart's values fit their schema, wrong ones do not; every manifest fits Kubernetes' own schemas and the
           restricted Pod Security Standard; every namespace of a workload has a NetworkPolicy that denies what it does not name
embedded   writes each configuration that the chart's values hold to OUT, for `lifeboat config check`
terraform  every file parses, every variable that is used is declared and the reverse; the prefixes that its policies
           name are those of src/storage/layout.rs
metrics    every metric that rules and dashboards name is documented in PAGE (which a test compares with what is served)
"""

import copy
import pathlib
import re
import sys

import yaml

problems = []


def problem(where, what):
    problems.append(f"{where}: {what}")


def check_schema(values_file, schema_file):
    import json

    import jsonschema

    values = yaml.safe_load(open(values_file))
    validator = jsonschema.Draft7Validator(json.load(open(schema_file)))
    for error in validator.iter_errors(values):
        problem(values_file, f"{'/'.join(map(str, error.path))}: {error.message}")

    def without(path, value):
        wrong = copy.deepcopy(values)
        below = wrong
        for part in path[:-1]:
            below = below[part]
        below[path[-1]] = value
        return wrong

    # A schema that refuses nothing checks nothing.
    for path, value in [
        (["replicas"], 0),
        (["replica"], 2),
        (["image", "digest"], "sha256:short"),
        (["drills", "environments", 0, "sample"], "nice"),
        (["service", "port"], 80),
    ]:
        if not list(validator.iter_errors(without(path, value))):
            problem(schema_file, f"takes {'.'.join(map(str, path))} = {value!r}")


def pod_of(manifest):
    spec = manifest.get("spec", {})
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec.get("template", {}).get("spec")


def check_manifests(rendered):
    import kubernetes_validate

    manifests = [m for m in yaml.safe_load_all(open(rendered)) if m]
    namespaces, sealed = set(), set()
    for manifest in manifests:
        where = f"{manifest['kind']}/{manifest['metadata']['name']}"
        try:
            kubernetes_validate.validate(manifest, "1.31", strict=True)
        except Exception as error:  # its errors have no common base
            problem(where, error)
        namespace = manifest["metadata"].get("namespace", "")
        if manifest["kind"] == "NetworkPolicy":
            sealed.add(namespace)
            if set(manifest["spec"]["policyTypes"]) != {"Ingress", "Egress"}:
                problem(where, "does not speak of both directions")
        pod = pod_of(manifest)
        if pod is None:
            continue
        namespaces.add(namespace)
        # https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
        if pod.get("automountServiceAccountToken") is not False:
            problem(where, "mounts a token of the cluster")
        security = pod.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
            problem(where, "may run as root")
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            problem(where, "has no seccomp profile")
        for container in pod.get("initContainers", []) + pod["containers"]:
            inner = container.get("securityContext", {})
            if inner.get("allowPrivilegeEscalation") is not False or inner.get("capabilities", {}).get("drop") != ["ALL"]:
                problem(where, f"{container['name']} keeps privileges")
            if inner.get("readOnlyRootFilesystem") is not True:
                problem(where, f"{container['name']} may write to its image")
            if "memory" not in container.get("resources", {}).get("limits", {}):
                problem(where, f"{container['name']} has no limit of memory")
        if manifest["kind"] == "StatefulSet":
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe not in pod["containers"][0]:
                    problem(where, f"has no {probe}")
    if not namespaces:
        problem(rendered, "holds no workload")
    for namespace in namespaces - sealed:
        problem(rendered, f"namespace {namespace or 'of the release'} has no NetworkPolicy")


def write_embedded(values_file, out):
    values = yaml.safe_load(open(values_file))
    for name, text in {"serve": values["config"], "drills": values["drills"]["config"]}.items():
        (pathlib.Path(out) / f"{name}.toml").write_text(text)


def check_terraform(directory, layout):
    import hcl2

    files = sorted(pathlib.Path(directory).glob("*.tf"))
    text = ""
    declared = set()
    for file in files:
        with open(file) as opened:
            try:
                parsed = hcl2.load(opened)
            except Exception as error:  # lark's errors
                problem(file, error)
                continue
        text += file.read_text()
        for variable in parsed.get("variable", []):
            declared |= {name.strip('"') for name in variable}
    used = set(re.findall(r"\bvar\.(\w+)", text))
    for name in used ^ declared:
        problem(directory, f"variable {name} is {'used and not declared' if name in used else 'declared and not used'}")
    # What the program writes below an environment, against what the policies speak of.
    written = set(re.findall(r'"\{environment\}/([a-z-]+)/', pathlib.Path(layout).read_text()))
    spoken = set(re.findall(r'/\*/([a-z-]+)/', text))
    for name in written - spoken:
        problem(directory, f"no policy speaks of <environment>/{name}/")
    for name in spoken - written:
        problem(directory, f"a policy speaks of <environment>/{name}/, which nothing writes")


def check_metrics(page, *files):
    documented = set(re.findall(r"`(lifeboat_\w+)`", pathlib.Path(page).read_text()))
    for file in files:
        named = set(re.findall(r"\blifeboat_\w+", pathlib.Path(file).read_text()))
        if not named:
            problem(file, "names no metric")
        for name in sorted(named - documented):
            problem(file, f"{name} is not in {page}")


def main():
    what, arguments = sys.argv[1], sys.argv[2:]
    if what == "chart":
        check_schema(*arguments[:2])
        check_manifests(arguments[2])
    elif what == "embedded":
        write_embedded(*arguments)
    elif what == "terraform":
        check_terraform(*arguments)
    elif what == "metrics":
        check_metrics(*arguments)
    else:
        sys.exit(__doc__)
    for line in problems:
        print(line, file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
