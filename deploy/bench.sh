#!/usr/bin/env bash
# Lifeboat, pgBackRest, pg_basebackup and Barman side by side, in one run, on one cluster.
#
# usage: ./deploy/bench.sh [options]
#   --size GIB         fill a cluster with that much data (default 5)
#   --data DIR         use a filled cluster instead (a database `retail`; its rows are changed). It is started and
#                      stopped where it does not run
#   --rounds N         rounds (default 5); in each one all tools take their turns, in another order
#   --rows LIST        of full,incremental,unchanged,restore,delta,replay,throughput (default: all), with commas
#   --tools LIST       of lifeboat,pgbackrest,pg_basebackup,barman (default: all)
#   --processes N      processes or cores for each tool (default 2)
#   --wal MIB          WAL to replay (default 1536)
#   --work DIR         working directory (default /var/tmp/lifeboat-bench); the filled cluster stays there for
#                      the next run, everything else is removed
#   --csv DIR          raw figures as DIR/bench.csv (default: target/bench)
#
# Environment: LIFEBOAT_BIN (else a release build is made), PGBACKREST_BIN (else Debian's).
#
# Installs what is missing from Debian (see common.sh). All tools run as the servers' account, with a local repository
# on the same file system, zstd 3, and encryption where they have it. Each measured command must succeed, and in the
# first round each restored cluster is started and its rows are compared with the source's. Prints a Markdown table.

# Functions are called through `step` and by name.
# shellcheck disable=SC2317
# shellcheck source=deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage="usage: ./deploy/bench.sh [--size GIB] [--data DIR] [--rounds N] [--rows LIST] [--tools LIST] [--processes N] [--wal MIB] [--work DIR] [--csv DIR]"
size=5
data=
rounds=5
rows=full,incremental,unchanged,restore,delta,replay,throughput
tools=lifeboat,pgbackrest,pg_basebackup,barman
processes=2
wal_mib=1536
work=/var/tmp/lifeboat-bench
csv_dir=$lifeboat_root/target/bench
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || die "unknown or incomplete option: $1" "$usage"
    case $1 in
        --size) size=$2 ;;
        --data) data=$(realpath -m "$2") ;;
        --rounds) rounds=$2 ;;
        --rows) rows=$2 ;;
        --tools) tools=$2 ;;
        --processes) processes=$2 ;;
        --wal) wal_mib=$2 ;;
        --work) work=$(realpath -m "$2") ;;
        --csv) csv_dir=$(realpath -m "$2") ;;
        *) die "unknown option: $1" "$usage" ;;
    esac
    shift 2
done
scripts=$lifeboat_root/deploy/bench

wants() { [[ ",$rows," = *",$1,"* ]]; }
uses() { [[ ",$tools," = *",$1,"* ]]; }
check_list() {
    local name
    for name in ${1//,/ }; do [[ " $2 " = *" $name "* ]] || die "unknown: $name" "one of: $2"; done
}
check_list "$rows" "full incremental unchanged restore delta replay throughput"
check_list "$tools" "lifeboat pgbackrest pg_basebackup barman"

# ---------------------------------------------------------------- what is needed

want_basics
want python3 has python3
want zstd has zstd
if uses pgbackrest && [ -z "${PGBACKREST_BIN:-}" ]; then want pgbackrest has pgbackrest; fi
if uses barman; then want barman has barman; want rsync has rsync; fi
install_missing
bin=$(system_postgres) || die "PostgreSQL's server was not found." "sudo apt-get install -y postgresql"
check_account
if [ -z "${LIFEBOAT_BIN:-}" ]; then
    need_cargo
    step "Building lifeboat (release)" cargo build --release --locked --quiet
    LIFEBOAT_BIN=$lifeboat_root/target/release/lifeboat
fi

mkdir -p "$work" "$csv_dir"
work=$(realpath "$work")
run=$work/run
csv=$csv_dir/bench.csv
account=$(as_server id -un)

# Nothing of an earlier run is taken for this one's.
rm -rf "$run" "$csv"
mkdir -p "$run"
echo round,row,tool,wall_s,cpu_s,machine_cpu_s,rss_bytes,rss_sum_bytes,stored_bytes,objects,rate >"$csv"
chmod 755 "$work"
if is_root; then chown "$account" "$work" "$run"; fi
# The servers' account reaches the program there.
install -m 755 "$LIFEBOAT_BIN" "$run/lifeboat"
lifeboat=$run/lifeboat
cd "$run"

# shellcheck source=deploy/bench/servers.sh
source "$scripts/servers.sh"
# shellcheck source=deploy/bench/tools.sh
source "$scripts/tools.sh"
# shellcheck source=deploy/bench/rounds.sh
source "$scripts/rounds.sh"
# shellcheck source=deploy/bench/wal.sh
source "$scripts/wal.sh"

trap 'end_all' EXIT
trap 'exit 130' INT TERM

if wants full || wants incremental || wants unchanged || wants restore || wants delta; then
    need_cluster
    for round in $(seq "$rounds"); do base_round "$round"; done
fi
if uses lifeboat && { wants replay || wants throughput; }; then
    prepare_wal
    for round in $(seq "$rounds"); do
        if wants replay; then replay_round "$round"; fi
        if wants throughput; then throughput_round "$round"; fi
    done
fi

say "Done; raw figures: $csv"
echo
describe_machine
echo
python3 "$scripts/table.py" "$csv"
