# shellcheck shell=bash
# shellcheck disable=SC2154
# Sourced by bench.sh: the clusters, and ending what was started.
#
# Promises: servers that ran before run on; those started here are stopped, by their own process ids.

started_clusters=()
started_processes=()

# server_setting PGDATA LINE: from postmaster.pid (4: port, 5: directory of the socket).
server_setting() { sed -n "$2p" "$1/postmaster.pid"; }

server_runs() { [ -e "$1/postmaster.pid" ] && as_server "$bin/pg_ctl" -D "$1" status >/dev/null 2>&1; }

# start_server PGDATA OPTION…: on a Unix socket in PGDATA's parent directory; its log is PGDATA.log.
start_server() {
    local pgdata=$1
    shift
    as_server "$bin/pg_ctl" -D "$pgdata" -l "$pgdata.log" -w -t 600 -o "-k '$(dirname "$pgdata")' -c listen_addresses='' $*" start \
        >/dev/null || { tail -n 20 "$pgdata.log" >&2; return 1; }
    started_clusters+=("$pgdata")
}

stop_server() {
    local pgdata=$1 kept=() other
    if server_runs "$pgdata"; then as_server "$bin/pg_ctl" -D "$pgdata" -w -t 600 -m fast stop >/dev/null; fi
    for other in "${started_clusters[@]}"; do [ "$other" = "$pgdata" ] || kept+=("$other"); done
    started_clusters=("${kept[@]}")
}

# sql PGDATA COMMAND…: as superuser.
sql_database=retail
sql() {
    local pgdata=$1 command arguments=()
    shift
    for command in "$@"; do arguments+=(-c "$command"); done
    as_server "$bin/psql" -X -qAt -v ON_ERROR_STOP=1 -h "$(server_setting "$pgdata" 5)" -p "$(server_setting "$pgdata" 4)" \
        -U postgres -d "$sql_database" "${arguments[@]}"
}

end_process() {
    local pid=$1 kept=() other
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    for other in "${started_processes[@]}"; do [ "$other" = "$pid" ] || kept+=("$other"); done
    started_processes=("${kept[@]}")
}

end_all() {
    local name
    set +e
    for name in "${started_processes[@]}"; do end_process "$name"; done
    if [ -n "${data:-}" ] && server_runs "$data"; then
        for name in lifeboat_bench barman_bench bench_keep; do drop_slot "$data" "$name"; done
    fi
    for name in "${started_clusters[@]}"; do stop_server "$name"; done
    cd /
    rm -rf "$run"
}

# Slots keep WAL back; the ones that tools made go with them (a moment after the process that used them).
drop_slot() {
    local until=$((SECONDS + 10)) mine="FROM pg_replication_slots WHERE slot_name = '$2'"
    while [ "$(sql "$1" "SELECT pg_drop_replication_slot(slot_name) $mine AND NOT active" "SELECT count(*) $mine")" != 0 ]; do
        [ "$SECONDS" -lt "$until" ] || { say "  the replication slot $2 stays: it is in use"; return 0; }
        sleep 0.1
    done
}

# make_cluster PGDATA WAL_KEEP_SIZE
make_cluster() {
    as_server "$bin/initdb" -D "$1" -k -U postgres -A trust -E UTF8 --locale=C.UTF-8 >/dev/null || return 1
    # Autovacuum would change pages at times of its own choosing.
    as_server tee -a "$1/postgresql.conf" >/dev/null <<CONF
shared_buffers = '1GB'
max_wal_size = '8GB'
checkpoint_timeout = '30min'
maintenance_work_mem = '512MB'
wal_keep_size = '$2'
autovacuum = off
log_line_prefix = '%m [%p] '
CONF
}

fill_cluster() {
    local generator=$lifeboat_root/../shared/bench/make_retail_db.py
    [ -e "$generator" ] || generator=$scripts/retail.py
    rm -rf "$data" "$data.filled"
    make_cluster "$data" 0 || return 1
    start_server "$data" -c fsync=off -c full_page_writes=off || return 1
    as_server "$bin/createdb" -h "$(server_setting "$data" 5)" -U postgres retail || return 1
    python3 "$generator" "$size" | sql "$data" >/dev/null || return 1
    stop_server "$data"
    sync
    echo "$size" >"$data.filled"
}

# The cluster that is backed up: given, kept by an earlier run, or filled now.
need_cluster() {
    if [ -z "$data" ]; then
        data=$work/pg
        if [ "$(cat "$data.filled" 2>/dev/null)" != "$size" ]; then step "Filling a cluster with $size GiB" fill_cluster; fi
    fi
    as_server test -e "$data/PG_VERSION" || die "$data is no cluster."
    if ! server_runs "$data"; then step "Starting the cluster" start_server "$data"; fi
    sql "$data" "SELECT 1 FROM stock_move_line LIMIT 1" >/dev/null || die "$data has no database 'retail' as make_retail_db.py makes it."
    [ "$(sql "$data" 'SHOW fsync')" = on ] || die "the cluster runs without fsync: not a fair source."
    step "VACUUM (FREEZE, ANALYZE), CHECKPOINT" settle_cluster
    local needed free
    cluster_mib=$(($(sql "$data" "SELECT sum(pg_database_size(oid)) FROM pg_database") >> 20))
    # Two restored clusters, a plain copy by Barman, and some compressed ones.
    needed=$((cluster_mib * 45 / 10)) free=$(($(df -P -k "$run" | awk 'NR == 2 { print $4 }') / 1024))
    [ "$free" -gt "$needed" ] || die "$needed MiB are needed in $work, and $free are free."
}

# Otherwise hint bits dirty every page on its first reading, and an "incremental" copies the whole table with any tool.
settle_cluster() { sql "$data" "VACUUM (FREEZE, ANALYZE)" "CHECKPOINT" >/dev/null; }

# What a restored cluster must agree with. Reading everything that was just changed also sets its hint bits now, so
# that the pages are at rest before the backups begin.
fingerprint() {
    sql "$1" "SELECT count(*), sum(id), sum(quantity), sum(hashtext(lot)) FROM stock_move_line" \
        "SELECT count(*), max(id) FROM mail_message" "SELECT count(*), sum(hashtext(token)) FROM api_token"
}

# 20,000 scattered updates and 20,000 inserts; other rows in each round.
change_rows() {
    sql "$data" "SELECT setseed($1 / 100.0)" "UPDATE stock_move_line SET quantity = quantity + 1 WHERE id IN
        (SELECT (random() * (SELECT max(id) - 1 FROM stock_move_line))::bigint + 1 FROM generate_series(1, 20000))" \
        "INSERT INTO stock_move_line (product_id, lot, quantity, location_id, location_dest_id, date, reference)
        SELECT random() * 60000, 'LOT' || lpad((random() * 99999999)::int::text, 8, '0'), random() * 90, random() * 200,
            random() * 200, now(), 'WH/OUT/' || i FROM generate_series(1, 20000) i" >/dev/null
}

# starts_right PGDATA ROWS: starts a restored cluster and compares its rows with a fingerprint. WAL comes from the source where it is needed.
starts_right() {
    local pgdata=$1 expected=$2
    if [ -e "$pgdata/backup_label" ]; then
        as_server sed -i -e '/^recovery_target/d' -e '/^restore_command/d' "$pgdata/postgresql.auto.conf" || return 1
        printf '%s\n' "restore_command = 'cp \"$data/pg_wal/%f\" \"%p\"'" "recovery_target = 'immediate'" \
            "recovery_target_action = 'promote'" | as_server tee -a "$pgdata/postgresql.auto.conf" >/dev/null || return 1
        as_server touch "$pgdata/recovery.signal" || return 1
    fi
    start_server "$pgdata" -p 5433 -c archive_mode=off -c autovacuum=off || return 1
    # It answers as a hot standby before it is promoted.
    local until=$((SECONDS + 600)) found recovering
    while recovering=$(sql "$pgdata" 'SELECT pg_is_in_recovery()') || return 1 && [ "$recovering" != f ]; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.2
    done
    found=$(fingerprint "$pgdata") || return 1
    stop_server "$pgdata"
    [ "$found" = "$expected" ] || { printf 'restored:\n%s\nexpected:\n%s\n' "$found" "$expected" >&2; return 1; }
}
