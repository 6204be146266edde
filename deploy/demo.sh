#!/usr/bin/env bash
# Shows Lifeboat at work: installs what is missing, builds it, runs `lifeboat demo`.
#
# usage: ./deploy/demo.sh [options of `lifeboat demo`: --dir DIR, --keep, …]

# shellcheck source=deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need_cargo
want_basics
install_missing
system_postgres >/dev/null || die "PostgreSQL's server was not found in /usr/lib/postgresql." \
    "sudo apt-get install -y postgresql"
check_account

step "Building Lifeboat (the first time takes some minutes)" cargo build --release --locked --quiet
say "Running: lifeboat demo $*"
exec target/release/lifeboat demo "$@"
