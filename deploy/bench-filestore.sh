#!/usr/bin/env bash
# Lifeboat, restic and borg side by side on one filestore of Odoo: first capture and unchanged capture.
#
# usage: ./deploy/bench-filestore.sh [options]
#   --files N          files in the filestore (default 1000000)
#   --rounds N         rounds (default 3); in each one all tools take their turns, in another order
#   --tools LIST       of lifeboat,restic,borg (default: all)
#   --unchanged N      unchanged captures after each first one (default 3)
#   --work DIR         working directory (default /var/tmp/lifeboat-bench-filestore); the filestore stays there for
#                      the next run, everything else is removed
#   --csv DIR          raw figures as DIR/bench-filestore.csv (default: target/bench)
#
# Environment: LIFEBOAT_BIN (else a release build is made).
#
# Installs what is missing from Debian (see common.sh): restic, borgbackup, PostgreSQL. Lifeboat captures what a
# database refers to, so a server with one row of ir_attachment for each file runs beside; what it does for the
# capture shows in the CPU seconds of the machine. Half of the files compress, half do not; sizes are those of
# a shop: many of some KiB, few of some hundred. All tools: a local repository on the same file system, encrypted,
# zstd 3, the page cache as it is (the tree is read once before). Each measured command must succeed, and in the
# first round Lifeboat's capture must be complete and the others must list as many files. Prints a Markdown table.

# Functions are called through `step` and by name.
# shellcheck disable=SC2317
# shellcheck source=deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage="usage: ./deploy/bench-filestore.sh [--files N] [--rounds N] [--tools LIST] [--unchanged N] [--work DIR] [--csv DIR]"
files=1000000
rounds=3
tools=lifeboat,restic,borg
unchanged=3
work=/var/tmp/lifeboat-bench-filestore
csv_dir=$lifeboat_root/target/bench
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || die "unknown or incomplete option: $1" "$usage"
    case $1 in
        --files) files=$2 ;;
        --rounds) rounds=$2 ;;
        --tools) tools=$2 ;;
        --unchanged) unchanged=$2 ;;
        --work) work=$(realpath -m "$2") ;;
        --csv) csv_dir=$(realpath -m "$2") ;;
        *) die "unknown option: $1" "$usage" ;;
    esac
    shift 2
done
scripts=$lifeboat_root/deploy/bench
uses() { [[ ",$tools," = *",$1,"* ]]; }

want_basics
want python3 has python3
if uses restic; then want restic has restic; fi
if uses borg; then want borgbackup has borg; fi
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
csv=$csv_dir/bench-filestore.csv
data_dir=$work/odoo-$files
tree=$data_dir/filestore/shop
account=$(as_server id -un)

# Nothing of an earlier run is taken for this one's.
rm -rf "$run" "$csv"
mkdir -p "$run"
echo round,row,tool,wall_s,cpu_s,machine_cpu_s,rss_bytes,rss_sum_bytes,stored_bytes,objects,rate >"$csv"
chmod 755 "$work"
if is_root; then chown "$account" "$work" "$run"; fi
install -m 755 "$LIFEBOAT_BIN" "$run/lifeboat"
cd "$run"

end_all() {
    [ ! -e "$run/pg/postmaster.pid" ] || as_server "$bin/pg_ctl" -D "$run/pg" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$run"
}
trap end_all EXIT
trap 'exit 130' INT TERM

need_tree() {
    [ -e "$data_dir/names" ] || {
        rm -rf "$data_dir"
        mkdir -p "$data_dir"
        python3 "$scripts/filestore.py" "$data_dir" "$files"
    }
    as_server grep -rqs nothing-has-this "$tree" || true
}

need_server() {
    as_server "$bin/initdb" -D "$run/pg" -A trust -U postgres --no-sync >"$run/initdb.log" || return 1
    cat >>"$run/pg/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$run'
wal_level = replica
fsync = off
max_wal_size = 4GB
shared_buffers = 256MB
CONF
    as_server "$bin/pg_ctl" -D "$run/pg" -l "$run/server.log" -w start >/dev/null || return 1
    psql="as_server $bin/psql -h $run -U postgres -v ON_ERROR_STOP=1 -qXAt"
    $psql -c 'CREATE DATABASE shop' || return 1
    $psql -d shop -f - <<'SQL' || return 1
CREATE TABLE ir_attachment (id serial PRIMARY KEY, name varchar, type varchar DEFAULT 'binary', res_model varchar,
    res_id int, res_field varchar, store_fname varchar, url varchar, db_datas bytea, file_size int, checksum varchar,
    create_date timestamp DEFAULT now(), write_date timestamp DEFAULT now());
CREATE TABLE ir_config_parameter (key varchar, value text);
CREATE TABLE ir_module_module (name varchar, state varchar, latest_version varchar);
INSERT INTO ir_config_parameter VALUES ('database.uuid', '11111111-2222-3333-4444-555555555555');
SQL
    $psql -d shop -c "COPY ir_attachment (name, res_model, res_id, store_fname, file_size, checksum) FROM STDIN" <"$data_dir/names" || return 1
    $psql -d shop -c 'CREATE INDEX ON ir_attachment (store_fname)' -c 'VACUUM ANALYZE ir_attachment' -c CHECKPOINT
}

# measure ROUND ROW TOOL REPOSITORY COMMAND…
measure() {
    local round=$1 row=$2 tool=$3 repository=$4
    shift 4
    as_server sync -f "$run"
    as_server touch "$run/out.log"
    python3 "$scripts/measure.py" --csv "$csv" --round "$round" --row "$row" --tool "$tool" --output "$run/out.log" \
        --repository "$repository" -- "$@" || die "$tool failed ($row)" "$(tail -n 20 "$run/out.log")"
}
as() { if is_root; then echo "setpriv --reuid=postgres --regid=postgres --clear-groups"; fi; }

lifeboat_round() {
    as_server rm -rf "$run/lb"
    as_server mkdir "$run/lb"
    local recipient
    recipient=$(as_server "$run/lifeboat" --format json keygen -o "$run/lb/recovery.key" |
        python3 -c 'import json,sys; print(json.load(sys.stdin)["recipient"])')
    as_server tee "$run/lb/lifeboat.toml" >/dev/null <<CONF
[repository]
url = "file://$run/lb/repository"
[keys]
recipients = ["$recipient"]
state_dir = "state"
[[environment]]
name = "production"
purpose = "production"
owner = "bench"
[environment.objectives]
rpo = "60s"
rto = "1h"
[environment.postgres]
dsn = "host=$run user=postgres dbname=postgres"
[[environment.odoo]]
data_dir = "$data_dir"
databases = ["shop"]
CONF
    as_server "$run/lifeboat" -c "$run/lb/lifeboat.toml" init >/dev/null 2>&1
    capture=("$run/lifeboat" -c "$run/lb/lifeboat.toml" --format json backup filestore -e production)
    # shellcheck disable=SC2046
    measure "$1" first Lifeboat "$run/lb/repository" $(as) "${capture[@]}"
    as_server "${capture[@]}" 2>/dev/null | python3 -c "
import json, sys
entry = json.load(sys.stdin)['filestore_captures'][0]['filestore_capture']
found = (entry['files_present'], entry['files_new'], entry['referenced'], entry['complete'])
sys.exit(found != ($files, 0, $files, True) and f'not captured as it should be: {found}')" || die "Lifeboat's capture is not complete"
    for _ in $(seq "$unchanged"); do
        # shellcheck disable=SC2046
        measure "$1" unchanged Lifeboat "$run/lb/repository" $(as) "${capture[@]}"
    done
}

count_must_be() { [ "$2" -eq "$files" ] || die "$1 holds $2 files instead of $files"; }

restic_round() {
    as_server rm -rf "$run/restic" "$run/restic-cache"
    local restic=(env RESTIC_PASSWORD=bench RESTIC_REPOSITORY="$run/restic" RESTIC_CACHE_DIR="$run/restic-cache" RESTIC_COMPRESSION=auto restic -q)
    as_server "${restic[@]}" init >/dev/null
    # shellcheck disable=SC2046
    measure "$1" first restic "$run/restic" $(as) "${restic[@]}" backup "$tree"
    [ "$1" -gt 1 ] || count_must_be restic "$(as_server "${restic[@]}" ls latest | grep -cE '/[0-9a-f]{40}$')"
    for _ in $(seq "$unchanged"); do
        # shellcheck disable=SC2046
        measure "$1" unchanged restic "$run/restic" $(as) "${restic[@]}" backup "$tree"
    done
}

borg_round() {
    as_server rm -rf "$run/borg" "$run/borg-base"
    as_server mkdir -p "$run/borg-base"
    local borg=(env BORG_PASSPHRASE=bench BORG_BASE_DIR="$run/borg-base" borg) n
    as_server "${borg[@]}" init -e repokey-blake2 "$run/borg" >/dev/null 2>&1
    # shellcheck disable=SC2046
    measure "$1" first borg "$run/borg" $(as) "${borg[@]}" create -C zstd,3 "$run/borg::first" "$tree"
    [ "$1" -gt 1 ] || count_must_be borg "$(as_server "${borg[@]}" list --short "$run/borg::first" | grep -cE '/[0-9a-f]{40}$')"
    for n in $(seq "$unchanged"); do
        # shellcheck disable=SC2046
        measure "$1" unchanged borg "$run/borg" $(as) "${borg[@]}" create -C zstd,3 "$run/borg::again$n" "$tree"
    done
}

step "Making a filestore of $files files" need_tree
step "Starting a server with a row for each file" need_server
list=${tools//,/ }
for round in $(seq "$rounds"); do
    for tool in $list; do step "Round $round: $tool" "${tool}_round" "$round"; done
    # Another order next time.
    # shellcheck disable=SC2086
    set -- $list
    first=$1
    shift
    list="$* $first"
done

say "Done; raw figures: $csv"
echo
printf '%s files, %s; %s; load %s\n\n' "$files" "$(du -sh --apparent-size "$tree" | cut -f1)" \
    "$(nproc) cores, $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)" "$(cut -d' ' -f1-3 /proc/loadavg)"
python3 "$scripts/filestore_table.py" "$csv"
