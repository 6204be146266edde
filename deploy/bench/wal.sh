# shellcheck shell=bash
# shellcheck disable=SC2154
# Sourced by bench.sh: replay of archived WAL, and what streaming WAL costs pgbench; on a small cluster of its own.
#
# Replay is timed by PostgreSQL ("redo done … elapsed"), on the same files, with the same settings: those of the server
# that `lifeboat restore` starts.

prepare_wal() {
    small=$run/small
    sql_database=postgres
    step "Making a small cluster for WAL" make_small
    if wants replay; then step "Making $wal_mib MiB of WAL with pgbench" make_wal; fi
}

make_small() {
    make_cluster "$small" "$((wal_mib + 2048))MB" || return 1
    start_server "$small" -c shared_buffers=256MB || return 1
    bench_small -i -q -s 20
}

bench_small() { as_server "$bin/pgbench" -h "$run" -U postgres "$@" postgres >"$run/output" 2>&1 || { tail "$run/output" >&2; return 1; }; }

written_mib() { echo $(($(sql "$small" "SELECT (pg_current_wal_insert_lsn() - '$1'::pg_lsn)::bigint") >> 20)); }

# A base backup, then WAL; received by Lifeboat, and as files in a folder.
make_wal() {
    local since
    make_estate "$run/lbw" "$small" lifeboat
    start_receiver "$run/lbw" "$small" lifeboat
    "${as_account[@]}" "$lifeboat" -c "$run/lbw/lifeboat.toml" backup base -e production >"$run/output" 2>&1 || return 1
    since=$(sql "$small" "SELECT pg_current_wal_insert_lsn()")
    # The mix of TPC-B, and statements that touch many rows: WAL grows quickly, and of many kinds of records.
    as_server tee "$run/load.sql" >/dev/null <<'SQL'
\set aid random(1, 100000 * :scale - 300)
\set bid random(1, 1 * :scale)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid BETWEEN :aid AND :aid + 200;
UPDATE pgbench_branches SET bbalance = bbalance + 1 WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) SELECT i, :bid, :aid, 1, now() FROM generate_series(1, 50) i;
END;
SQL
    while [ "$(written_mib "$since")" -lt "$wal_mib" ]; do
        bench_small -n -s 20 -f "$run/load.sql" -c 4 -j 2 -T 5 || return 1
    done
    sql "$small" "SELECT pg_switch_wal()" CHECKPOINT >/dev/null
    receiver_has_all "$small"
    end_process "$receiver"
    fetch_base_and_archive
}

fetch_base_and_archive() {
    local name
    new_folder "$run/archive"
    new_folder "$run/w"
    "${as_account[@]}" "$lifeboat" -c "$run/lbw/lifeboat.toml" restore -e production --to latest --no-start --pgdata "$run/w/base" \
        >"$run/output" 2>&1 || { tail "$run/output" >&2; return 1; }
    for name in "$small"/pg_wal/????????????????????????; do as_server cp "$name" "$run/archive/"; done
}

# replay_with TOOL RESTORE_COMMAND: a server of our own on a copy of the base, to the end of WAL. Without
# hot_standby it answers when recovery has ended.
replay_with() {
    local seconds until=$((SECONDS + 1200))
    as_server cp -a "$run/w/base" "$run/w/data"
    sync
    # As restore's own server; the target that --no-start wrote does not matter, both replay everything.
    start_server "$run/w/data" -p 5433 -c "restore_command='$2'" -c archive_mode=off -c hot_standby=off -c autovacuum=off -c jit=off \
        -c shared_buffers=256MB -c fsync=on -c max_wal_size=8GB -c checkpoint_timeout=30min -c recovery_init_sync_method=syncfs \
        || die "the server does not start for replay with $1"
    while ! sql "$run/w/data" 'SELECT 1' >/dev/null 2>&1; do
        if [ "$SECONDS" -gt "$until" ] || ! server_runs "$run/w/data"; then
            tail -n 20 "$run/w/data.log" >&2
            die "replay with $1 does not end"
        fi
        sleep 0.2
    done
    seconds=$(sed -n 's/.*redo done at .* elapsed: \([0-9.]*\) s.*/\1/p' "$run/w/data.log" | tail -n 1)
    [ -n "$seconds" ] || { tail -n 20 "$run/w/data.log" >&2; die "the server's log does not say how long redo with $1 took"; }
    same_history "$1" "$(sql "$run/w/data" "SELECT count(*) FROM pgbench_history")"
    stop_server "$run/w/data"
    rm -rf "$run/w/data" "$run/w/data.log"
    echo "$round,replay,\"$1\",$seconds,,,,,,," >>"$csv"
}

same_history() {
    history_rows=${history_rows:-$2}
    [ "$history_rows" = "$2" ] || die "replay with $1 ended elsewhere: $2 rows instead of $history_rows"
}

replay_lifeboat() {
    rm -rf "$run/w/data"
    measured replay 'Lifeboat, restore' --server-log "$run/*/s/server.log" -- \
        "$lifeboat" -c "$run/lbw/lifeboat.toml" restore -e production --to latest --pgdata "$run/w/data"
    if [ "$round" -eq 1 ]; then
        start_server "$run/w/data" -p 5433 || die "what was restored does not start"
        same_history 'Lifeboat, restore' "$(sql "$run/w/data" "SELECT count(*) FROM pgbench_history")"
        stop_server "$run/w/data"
    fi
    rm -rf "$run/w/data"
}

replay_cp() { replay_with cp "cp \"$run/archive/%f\" \"%p\""; }
replay_fetch() { replay_with 'Lifeboat, wal fetch' "$lifeboat -c $run/lbw/lifeboat.toml wal fetch -e production %f \"%p\""; }

replay_round() {
    local i order=(replay_cp replay_lifeboat replay_fetch)
    round=$1
    say "Round $round of $rounds: replay"
    for i in 0 1 2; do "${order[$(((i + round) % 3))]}"; done
}

# ---------------------------------------------------------------- throughput

# load TOOL: transactions a second of pgbench's own mix.
load() {
    local tps
    sql "$small" CHECKPOINT
    bench_small -n -c 4 -j 2 -T 20 || die "pgbench failed"
    tps=$(sed -n 's/^tps = \([0-9.]*\).*/\1/p' "$run/output")
    [ -n "$tps" ] || die "pgbench does not say how many transactions there were"
    echo "$round,throughput,\"$1\",,,,,,,,$tps" >>"$csv"
}

load_with_lifeboat() {
    make_estate "$run/lbt" "$small" lifeboat_bench
    start_receiver "$run/lbt" "$small" lifeboat_bench
    load 'Lifeboat, wal receive'
    receiver_has_all "$small"
    end_process "$receiver"
    drop_slot "$small" lifeboat_bench
    rm -rf "$run/lbt"
}

load_with_pg_receivewal() {
    local receiving until=$((SECONDS + 60))
    new_folder "$run/received"
    "${as_account[@]}" "$bin/pg_receivewal" -h "$run" -U postgres -D "$run/received" --synchronous >"$run/output.receive" 2>&1 &
    receiving=$!
    started_processes+=("$receiving")
    while [ "$(sql "$small" "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pg_receivewal'")" = 0 ]; do
        [ "$SECONDS" -lt "$until" ] || die "pg_receivewal does not stream"
        sleep 0.1
    done
    load 'pg_receivewal --synchronous'
    end_process "$receiving"
    rm -rf "$run/received"
}

throughput_round() {
    local i order=(load_with_lifeboat load_with_pg_receivewal)
    round=$1
    say "Round $round of $rounds: throughput"
    if [ $((round % 2)) -eq 0 ]; then load 'nobody receives'; fi
    for i in 0 1; do "${order[$(((i + round) % 2))]}"; done
    if [ $((round % 2)) -eq 1 ]; then load 'nobody receives'; fi
}
