# shellcheck shell=bash
# Sourced by demo.sh and test.sh: finds what they need and installs what is missing, and nothing else.
#
# Promises: works as root and as an ordinary user; asks nothing (no password, no question); leaves no
# service running that was not running before; what cannot be installed is named with the command
# that would install it, exit code 1. Quick when everything is there.

set -euo pipefail

lifeboat_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$lifeboat_root"
started_at=$SECONDS

say() { printf '[%4ds] %s\n' "$((SECONDS - started_at))" "$*"; }

die() {
    printf '\n%s: %s\n' "$(basename "$0")" "$1" >&2
    shift
    [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
    exit 1
}

# step TEXT COMMAND…: says what it does, then how long it took.
step() {
    local text=$1 from=$SECONDS
    shift
    say "$text"
    "$@" || die "failed after $((SECONDS - from)) s: $text"
    [ $((SECONDS - from)) -lt 5 ] || say "  took $((SECONDS - from)) s"
}

# ---------------------------------------------------------------- packages of the system

missing_packages=()

# want PACKAGE TEST…: notes the package when the test command fails.
want() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing_packages+=("$package")
}

has() { command -v "$1" >/dev/null 2>&1; }

is_root() { [ "$(id -u)" -eq 0 ]; }

# Runs a command as root, without ever asking for a password.
as_root() {
    if is_root; then "$@" </dev/null; else sudo -n "$@" </dev/null; fi
}

can_be_root() { is_root || { has sudo && sudo -n true </dev/null >/dev/null 2>&1; }; }

apt_quietly() {
    local log
    log=$(mktemp)
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

# Debian's packages start a PostgreSQL server when they are installed. Lifeboat brings up servers of
# its own in temporary directories, so the installation is told not to create that cluster.
install_postgresql() {
    local conf=/etc/postgresql-common/createcluster.conf kept
    if [ -e "$conf" ]; then
        apt_quietly install --no-install-recommends "$@"
        return
    fi
    apt_quietly install --no-install-recommends postgresql-common || return 1
    kept=$(mktemp)
    cat "$conf" >"$kept"
    { echo 'create_main_cluster = false'; cat "$kept"; } | grep -v '^create_main_cluster *= *true' >"$kept.new"
    as_root cp "$kept.new" "$conf"
    local status=0
    apt_quietly install --no-install-recommends "$@" || status=1
    as_root cp "$kept" "$conf"
    rm -f "$kept" "$kept.new"
    return "$status"
}

# Installs what `want` noted.
install_missing() {
    [ "${#missing_packages[@]}" -gt 0 ] || return 0
    local names="${missing_packages[*]}" package postgresql=() others=()
    has apt-get || die "missing on this machine: $names (names of Debian packages)" \
        "There is no apt-get here: install them with your system's package manager, then run this again."
    can_be_root || die "missing on this machine: $names" \
        "Installing needs root, and sudo is not available without a password. Run this, then start again:" \
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends $names"
    for package in "${missing_packages[@]}"; do
        case $package in postgresql*) postgresql+=("$package") ;; *) others+=("$package") ;; esac
    done
    step "Reading the package lists" apt_quietly update
    [ "${#others[@]}" -eq 0 ] || step "Installing ${others[*]}" apt_quietly install --no-install-recommends "${others[@]}"
    [ "${#postgresql[@]}" -eq 0 ] ||
        step "Installing ${postgresql[*]} (no server is started)" install_postgresql "${postgresql[@]}"
    missing_packages=()
}

# ---------------------------------------------------------------- PostgreSQL

# The directory with the newest PostgreSQL server and its tools.
system_postgres() {
    local dir
    dir=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -Vr |
        while read -r d; do if [ -x "$d/postgres" ] && [ -x "$d/pg_basebackup" ]; then echo "$d"; break; fi; done)
    if [ -z "$dir" ] && has pg_config; then
        dir=$(pg_config --bindir)
        [ -x "$dir/postgres" ] || dir=
    fi
    [ -n "$dir" ] && echo "$dir"
}

# PostgreSQL refuses to run as root; then its servers run as the account of Debian's package.
check_account() {
    is_root || return 0
    id postgres >/dev/null 2>&1 || die "PostgreSQL refuses to run as root, and there is no account 'postgres' to run it as." \
        "Create it: useradd --system --no-create-home --shell /usr/sbin/nologin postgres" "Or run this as an ordinary user."
}

# Runs a command as the account that PostgreSQL's servers run as.
as_server() {
    if is_root; then setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; else "$@"; fi
}

# ---------------------------------------------------------------- Rust

# cargo, of at least the version that Cargo.toml names.
need_cargo() {
    local needed found
    needed=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml)
    has cargo || { [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ] && PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"; }
    local how=("Get it from https://rustup.rs, as the user who runs this script:"
        "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile default")
    has cargo || die "Rust is missing: cargo $needed or newer is needed (the distribution's package is too old)." "${how[@]}"
    found=$(cargo --version | cut -d' ' -f2)
    [ "$(printf '%s\n%s\n' "$needed" "${found%%-*}" | sort -V | head -n 1)" = "$needed" ] ||
        die "cargo is $found, but $needed or newer is needed." "With rustup: rustup update stable" "${how[@]}"
}

need_cargo_components() {
    local component
    for component in "$@"; do
        cargo "$component" --version >/dev/null 2>&1 ||
            die "cargo $component is missing." "With rustup: rustup component add rustfmt clippy"
    done
}

# ---------------------------------------------------------------- what both scripts need

# Noted here, installed by install_missing.
want_basics() {
    want gcc has cc
    want libc6-dev test -e /usr/include/stdio.h
    want ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
    want postgresql system_postgres
}
