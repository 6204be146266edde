# shellcheck shell=bash
# shellcheck disable=SC2154
# Sourced by bench.sh: how each tool backs up and restores, and how that is measured.
#
# Promises: for each tool TOOL of `base_tools`, TOOL_begin makes an empty repository, TOOL_full, TOOL_incremental and
# TOOL_restore ROW… do one measured step, TOOL_end removes everything. What cannot be had (pg_basebackup 15 knows no
# incremental) is an absent function.

# measured ROW TOOL OPTION… -- COMMAND…: runs it as the servers' account; figures go to the CSV file, unless ROW is `-`.
measured() {
    local row=$1 tool=$2 options=() target=$csv
    shift 2
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    [ "$row" != - ] || target=/dev/null
    if ! python3 "$scripts/measure.py" --csv "$target" --round "$round" --row "$row" --tool "$tool" --output "$run/output" \
        "${options[@]}" -- "${pinned[@]}" "${as_account[@]}" "$@"; then
        tail -n 20 "$run/output" >&2
        die "$tool failed ($row): $*"
    fi
}

# Which of the row's figures are wanted: its name, or `-`.
row_or_none() { if wants "$1"; then echo "$1"; else echo -; fi; }

as_account=(env -u PGDATA LC_ALL=C.UTF-8 TMPDIR="$run")
if is_root; then as_account+=(setpriv --reuid="$account" --regid="$account" --clear-groups); fi
# Beyond as many cores as the tools have processes, no tool gets any.
pinned=()
if [ "$(nproc)" -gt "$processes" ]; then pinned=(taskset -c "0-$((processes - 1))"); fi

new_folder() { rm -rf "$1" && as_server mkdir -m 700 "$1"; }

# ---------------------------------------------------------------- Lifeboat

# yes_if_known OPTION COMMAND…
yes_if_known() {
    local option=$1
    shift
    if "$lifeboat" "$@" --help | grep -q -e "$option"; then echo yes; fi
}
has_direct=$(yes_if_known --reader backup base)
has_full=$(yes_if_known --full backup base)
has_delta=$(yes_if_known --delta restore)

# make_estate DIR PGDATA SLOT: an empty repository for a cluster, and a configuration DIR/lifeboat.toml.
make_estate() {
    local dir=$1 recipient
    new_folder "$dir"
    recipient=$("${as_account[@]}" "$lifeboat" --format json keygen -o "$dir/recovery.key" | grep -o 'age1[a-z0-9]*' | head -n 1)
    as_server tee "$dir/lifeboat.toml" >/dev/null <<CONF
[repository]
url = "file://$dir/repository"
compression_level = 3
[keys]
recipients = ["$recipient"]
identity = { file = "recovery.key" }
state_dir = "state"
[[environment]]
name = "production"
purpose = "production"
owner = "bench"
[environment.objectives]
rpo = "60s"
rto = "1h"
[environment.postgres]
dsn = "host=$(server_setting "$2" 5) port=$(server_setting "$2" 4) user=postgres dbname=postgres"
slot = "$3"
bin_dir = "$bin"
CONF
    "${as_account[@]}" "$lifeboat" -c "$dir/lifeboat.toml" init >/dev/null
}

# start_receiver DIR PGDATA SLOT: as in production; sets `receiver`.
start_receiver() {
    local until=$((SECONDS + 60))
    "${as_account[@]}" "$lifeboat" -c "$1/lifeboat.toml" wal receive -e production >"$1/receiver.log" 2>&1 &
    receiver=$!
    started_processes+=("$receiver")
    while [ "$(sql "$2" "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$3' AND active")" != 1 ]; do
        [ "$SECONDS" -lt "$until" ] || { tail "$1/receiver.log" >&2; die "the receiver does not stream"; }
        sleep 0.1
    done
}

# receiver_has_all PGDATA: waits until all WAL written up to now is durable in the repository.
receiver_has_all() {
    local lsn until=$((SECONDS + 600))
    lsn=$(sql "$1" "SELECT pg_current_wal_flush_lsn()")
    while [ "$(sql "$1" "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'lifeboat' AND flush_lsn >= '$lsn'")" = 0 ]; do
        [ "$SECONDS" -lt "$until" ] || die "the receiver does not keep up"
        sleep 0.1
    done
}

# lifeboat_backup ROW TOOL DIR OPTION…: WAL is stored by the receiver or counts for no tool.
lifeboat_backup() {
    local row=$1 tool=$2 dir=$3
    shift 3
    measured "$row" "$tool" --repository "$dir/repository" --without wal --without wal-live -- \
        "$lifeboat" -c "$dir/lifeboat.toml" backup base -e production "$@"
}

full_options=()
if [ -n "$has_full" ]; then full_options=(--full); fi

lifeboat_begin() {
    make_estate "$run/lb" "$data" lifeboat_bench
    start_receiver "$run/lb" "$data" lifeboat_bench
}

lifeboat_full() {
    if [ -n "$has_direct" ]; then
        lifeboat_backup "$(row_or_none full)" 'Lifeboat, direct' "$run/lb" "${full_options[@]}" --reader direct
    else
        lifeboat_backup "$(row_or_none full)" 'Lifeboat, streamed' "$run/lb" "${full_options[@]}"
    fi
}

# In a repository of its own, so that the next incremental is based on the direct one.
lifeboat_streamed_full() {
    if [ -z "$has_direct" ] || ! wants full; then return; fi
    make_estate "$run/lbs" "$data" lifeboat_bench_2
    lifeboat_backup full 'Lifeboat, streamed' "$run/lbs" "${full_options[@]}" --reader streamed
    rm -rf "$run/lbs"
}

lifeboat_incremental() {
    if [ -z "$has_full" ]; then return; fi
    receiver_has_all "$data"
    lifeboat_backup "$1" Lifeboat "$run/lb"
}

lifeboat_restore() {
    local restore=("$lifeboat" -c "$run/lb/lifeboat.toml" restore -e production --to latest)
    receiver_has_all "$data"
    # Recovered, promoted and stopped: what the others leave to the first start.
    measured "$(row_or_none restore)" 'Lifeboat, with recovery' -- "${restore[@]}" --pgdata "$run/r/recovered"
    check_restored Lifeboat "$run/r/recovered" "$rows_now"
    rm -rf "$run/r/recovered"
    measured "$(row_or_none restore)" Lifeboat -- "${restore[@]}" --no-start --pgdata "$run/r/data"
    if wants delta && [ -n "$has_delta" ]; then
        drift "$run/r/data"
        measured delta Lifeboat -- "${restore[@]}" --no-start --delta --pgdata "$run/r/data"
    fi
    check_restored 'Lifeboat, files only' "$run/r/data" "$(if [ -n "$has_full" ]; then echo "$rows_now"; else echo "$rows_at_full"; fi)"
}

lifeboat_end() {
    end_process "$receiver"
    drop_slot "$data" lifeboat_bench
    rm -rf "$run/lb"
}

# ---------------------------------------------------------------- pgBackRest

pgbackrest=("${PGBACKREST_BIN:-pgbackrest}" --config="$run/pgbackrest.conf" --stanza=bench)
pgbackrest_block=
if uses pgbackrest && "${pgbackrest[0]}" help backup repo-block >/dev/null 2>&1; then
    pgbackrest_block=repo1-block=y
    # In 2.45 it is a beta feature, which has to be asked for.
    if "${pgbackrest[0]}" help backup beta >/dev/null 2>&1; then pgbackrest+=(--beta); fi
fi

pgbackrest_begin() {
    new_folder "$run/pgbackrest"
    as_server tee "$run/pgbackrest.conf" >/dev/null <<CONF
[global]
repo1-path=$run/pgbackrest/repository
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=benchmark
repo1-bundle=y
$pgbackrest_block
compress-type=zst
compress-level=3
process-max=$processes
start-fast=y
archive-check=n
expire-auto=n
log-path=$run/pgbackrest
lock-path=$run/pgbackrest
log-level-file=off
log-level-console=warn
[bench]
pg1-path=$data
pg1-port=$(server_setting "$data" 4)
pg1-socket-path=$(server_setting "$data" 5)
pg1-user=postgres
CONF
    "${as_account[@]}" "${pgbackrest[@]}" --no-online stanza-create >"$run/output" 2>&1 || { cat "$run/output" >&2; die "pgBackRest cannot make its stanza"; }
}

pgbackrest_backup() {
    measured "$1" pgBackRest --repository "$run/pgbackrest/repository" -- \
        "${pgbackrest[@]}" --type="$2" backup
}

pgbackrest_full() { pgbackrest_backup "$(row_or_none full)" full; }
pgbackrest_incremental() { pgbackrest_backup "$1" incr; }

pgbackrest_restore() {
    local restore=("${pgbackrest[@]}" --pg1-path="$run/r/data")
    new_folder "$run/r/data"
    measured "$(row_or_none restore)" pgBackRest -- "${restore[@]}" restore
    if wants delta; then
        drift "$run/r/data"
        measured delta pgBackRest -- "${restore[@]}" --delta restore
    fi
    check_restored pgBackRest "$run/r/data" "$rows_now"
}

pgbackrest_end() { rm -rf "$run/pgbackrest"; }

# ---------------------------------------------------------------- pg_basebackup

pg_basebackup_begin() { new_folder "$run/pg_basebackup"; }

pg_basebackup_full() {
    measured "$(row_or_none full)" pg_basebackup --repository "$run/pg_basebackup" -- \
        "$bin/pg_basebackup" -h "$(server_setting "$data" 5)" -p "$(server_setting "$data" 4)" -U postgres -D "$run/pg_basebackup/full" \
        -Ft "--compress=client-zstd:level=3,workers=$processes" -c fast
}

pg_basebackup_restore() {
    local base=$run/pg_basebackup/full
    new_folder "$run/r/data"
    # The WAL that it took along is another archive, which tar puts into place.
    # shellcheck disable=SC2016
    measured "$(row_or_none restore)" pg_basebackup -- sh -c 'zstd -dc "$1/base.tar.zst" | tar -xf - -C "$2" &&
        if [ -e "$1/pg_wal.tar.zst" ]; then zstd -dc "$1/pg_wal.tar.zst"; else cat "$1/pg_wal.tar"; fi | tar -xf - -C "$2/pg_wal" &&
        sync -f "$2/PG_VERSION"' sh "$base" "$run/r/data"
    check_restored pg_basebackup "$run/r/data" "$rows_at_full"
}

pg_basebackup_end() { rm -rf "$run/pg_basebackup"; }

# ---------------------------------------------------------------- Barman

barman_begin() {
    local source connect
    connect="host=$(server_setting "$data" 5) port=$(server_setting "$data" 4) user=postgres dbname=postgres"
    source=$(printf '%s\n' "conninfo = $connect" "streaming_conninfo = $connect" 'streaming_archiver = on' 'slot_name = barman_bench')
    new_folder "$run/barman"
    as_server tee "$run/barman/barman.conf" >/dev/null <<CONF
[barman]
barman_user = $account
barman_home = $run/barman
barman_lock_directory = $run/barman
log_file = $run/barman/barman.log
log_level = WARNING
immediate_checkpoint = true
backup_options = concurrent_backup
path_prefix = $bin
create_slot = auto
parallel_jobs = $processes
[rsync]
description = "plain files, unchanged ones linked"
$source
backup_method = local-rsync
reuse_backup = link
[stream]
description = "pg_basebackup"
$source
backup_method = postgres
backup_compression = zstd
backup_compression_level = 3
backup_compression_workers = $processes
backup_compression_location = client
CONF
}

# barman_ready SERVER: what its checks want to see before a backup, WAL coming in.
barman_ready() {
    local until=$((SECONDS + 120))
    "${as_account[@]}" barman -q -c "$run/barman/barman.conf" receive-wal --create-slot "$1" >/dev/null 2>&1 || true
    "${as_account[@]}" barman -q -c "$run/barman/barman.conf" receive-wal "$1" >"$run/barman/receive.log" 2>&1 &
    barman_receiver=$!
    started_processes+=("$barman_receiver")
    while [ "$(sql "$data" "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'barman_bench' AND active")" != 1 ]; do
        [ "$SECONDS" -lt "$until" ] || { tail "$run/barman/receive.log" "$run/barman/barman.log" >&2; die "Barman receives no WAL"; }
        sleep 0.1
    done
    # Barman wants to have seen one whole segment.
    "${as_account[@]}" barman -q -c "$run/barman/barman.conf" switch-wal --force --archive --archive-timeout 60 "$1" >/dev/null 2>&1 ||
        { tail "$run/barman/barman.log" >&2; die "Barman archives no WAL"; }
}

barman_done() {
    "${as_account[@]}" barman -q -c "$run/barman/barman.conf" receive-wal --stop "$1" >/dev/null 2>&1 || true
    end_process "$barman_receiver"
    drop_slot "$data" barman_bench
}

# barman_backup ROW SERVER NAME OPTION…
barman_backup() {
    local row=$1 server=$2 name=$3
    shift 3
    barman_ready "$server"
    measured "$row" "$name" --repository "$run/barman/$server/base" -- \
        barman -q -c "$run/barman/barman.conf" backup "$@" "$server"
    barman_done "$server"
}

barman_full() { barman_backup "$(row_or_none full)" rsync 'Barman, rsync' --reuse-backup=off; }
barman_streamed_full() {
    if ! wants full; then return; fi
    barman_backup full stream 'Barman, pg_basebackup'
    rm -rf "$run/barman/stream"
}
barman_incremental() { barman_backup "$1" rsync 'Barman, rsync' --reuse-backup=link; }

barman_restore() {
    measured "$(row_or_none restore)" 'Barman, rsync' -- \
        barman -q -c "$run/barman/barman.conf" recover --no-get-wal rsync latest "$run/r/data"
    check_restored Barman "$run/r/data" "$rows_now"
}

barman_end() { rm -rf "$run/barman"; }
