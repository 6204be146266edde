#!/usr/bin/env bash
# Measures what `wal receive` costs and what it gives: throughput with streaming on against off, RPO under load,
# and the latency of commits that wait for the repository. Prints one Markdown table for each repository.
#
#   ./deploy/measure-rpo.sh [BINARY]         # default: target/release/lifeboat
#
# ROUNDS (3), DURATION (20, seconds of each run), CLIENTS (4), SCALE (10) change the load. S3 needs
# LIFEBOAT_TEST_MOTO (see deploy/test.sh): a server on loopback that keeps everything in memory.
# Everything lies in one temporary directory and is gone afterwards.
#
#   off, on, sync   pgbench's TPC-B, interleaved, `off` first in odd rounds and `on` in even ones;
#                   `sync`: synchronous_standby_names = 'lifeboat'
#   RPO             now - commit time of the newest durable commit, looked at every 10 ms during `on` (and during `off`,
#                   where there is nothing to see, so that both carry the same load)
#   one commit      latency of single-row commits of one client in `sync`

# shellcheck source=deploy/common.sh
. "$(dirname "$0")/common.sh"

binary=$(realpath "${1:-target/release/lifeboat}")
rounds=${ROUNDS:-3} duration=${DURATION:-20} clients=${CLIENTS:-4} scale=${SCALE:-10}
[ -x "$binary" ] || die "$binary is not there." "cargo build --release"
bin=$(system_postgres) || die "PostgreSQL is missing." "./deploy/test.sh installs it"
check_account

work=$(mktemp -d /tmp/lifeboat-rpo-XXXXXX)
chmod 755 "$work"
mkdir "$work/pg" "$work/repository"
! is_root || chown postgres: "$work/pg"
receiver='' moto=''

as_server() {
    (cd / && if is_root; then setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; else "$@"; fi)
}
ended() { [ -z "$1" ] || { kill "$1" 2>/dev/null || true; wait "$1" 2>/dev/null || true; }; }
tidy() {
    ended "$receiver"
    as_server "$bin/pg_ctl" -D "$work/pg/data" -m immediate -w stop >/dev/null 2>&1 || true
    ended "$moto"
    rm -rf "$work"
}
trap tidy EXIT

dsn="host=$work/pg user=postgres dbname=postgres"
sql() { as_server "$bin/psql" -XAtq -d "$dsn" -v ON_ERROR_STOP=1 "$@"; }
lifeboat() { AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test "$binary" -c "$work/lifeboat.toml" "$@"; }

# median of the numbers on standard input
median() { sort -g | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

throughput() {
    as_server "$bin/pgbench" -n -c "$clients" -j 2 -T "$duration" "$dsn" 2>"$work/pgbench.log" |
        awk '/^tps/ { print $3 }'
}

start_receiver() {
    AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test "$binary" -c "$work/lifeboat.toml" wal receive -e production \
        >"$work/receiver.log" 2>&1 &
    receiver=$!
    for _ in $(seq 100); do
        [ "$(sql -c "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'lifeboat' AND state = 'streaming'")" = 0 ] ||
            return 0
        sleep 0.1
    done
    die "the receiver does not stream" "$(cat "$work/receiver.log")"
}
stop_receiver() { ended "$receiver" && receiver=''; }

synchronous() {
    sql -c "ALTER SYSTEM SET synchronous_standby_names = '$1'" -c "SELECT pg_reload_conf()" >/dev/null
    # The receiver looks once a second whether commits wait for it.
    sleep 3
}

# Where WAL was at each moment, and what was durable then: the newest durable commit is one that lies before that.
rpo() {
    sql -c "CREATE TEMP TABLE s (at timestamptz, written pg_lsn, durable pg_lsn)" -c "
        DO \$\$ BEGIN
            FOR i IN 1..$((duration * 70)) LOOP
                INSERT INTO s SELECT clock_timestamp(), pg_current_wal_flush_lsn(),
                    (SELECT max(flush_lsn) FROM pg_stat_get_wal_senders());
                PERFORM pg_sleep(0.01);
            END LOOP;
        END \$\$" -c "
        SELECT round((1000 * percentile_cont(q) WITHIN GROUP (ORDER BY age))::numeric)
        FROM unnest('{0.5,0.99,1}'::float[]) q,
             (SELECT extract(epoch FROM a.at - (SELECT max(b.at) FROM s b WHERE b.written <= a.durable)) AS age
              FROM s a) ages
        WHERE age IS NOT NULL GROUP BY q ORDER BY q"
}

# watched FILE: throughput while the RPO is looked at; what was seen goes into FILE.
watched() {
    rpo >"$1" &
    local sampler=$!
    throughput
    wait "$sampler"
}

# Latencies in ms of single-row commits of one client: p50, p99, per second
commits() {
    rm -f "$work"/pg/latency.*
    echo "INSERT INTO one_commit VALUES (1);" >"$work/pg/commit.sql"
    chmod 644 "$work/pg/commit.sql"
    as_server "$bin/pgbench" -n -c "$1" -j 1 -T "$duration" -f "$work/pg/commit.sql" -l --log-prefix="$work/pg/latency" \
        "$dsn" >"$work/pgbench.log" 2>&1
    cat "$work"/pg/latency.* | awk '{ print $3 / 1000 }' | sort -g | awk -v t="$duration" '
        { v[NR] = $1 }
        END { printf "%.1f ms, %.1f ms, %d\n", v[int((NR + 1) / 2)], v[int(NR * 0.99 + 0.5)], NR / t }'
}

# measure NAME LINES-OF-[repository]
measure() {
    local name=$1 round off=() on=() sync=() ages
    rm -rf "$work/state" "$work/recovery.key"
    : >"$work/lifeboat.toml"
    local recipient
    recipient=$(lifeboat --format json keygen -o "$work/recovery.key" | sed -n 's/.*"recipient": *"\([^"]*\)".*/\1/p')
    cat >"$work/lifeboat.toml" <<EOF
[repository]
$2
[keys]
recipients = ["$recipient"]
state_dir = "state"
[[environment]]
name = "production"
purpose = "production"
owner = "measure-rpo"
[environment.objectives]
rpo = "60s"
rto = "1h"
[environment.postgres]
dsn = "$dsn"
EOF
    lifeboat init >/dev/null 2>&1
    for round in $(seq "$rounds"); do
        say "$name, round $round of $rounds"
        [ $((round % 2)) = 0 ] || off+=("$(watched /dev/null)")
        start_receiver
        on+=("$(watched "$work/rpo.$round")")
        synchronous lifeboat
        sync+=("$(throughput)")
        [ "$round" -lt "$rounds" ] || {
            commits 1 >"$work/one"
            commits 8 >"$work/eight"
        }
        synchronous ""
        stop_receiver
        sql -c "SELECT pg_drop_replication_slot('lifeboat')" >/dev/null
        [ $((round % 2)) = 1 ] || off+=("$(watched /dev/null)")
    done
    sql -c "DROP TABLE one_commit" -c "CREATE TABLE one_commit (i int)"
    local off_m on_m sync_m
    off_m=$(printf '%s\n' "${off[@]}" | median)
    on_m=$(printf '%s\n' "${on[@]}" | median)
    sync_m=$(printf '%s\n' "${sync[@]}" | median)
    echo
    echo "| $name | median | all rounds |"
    echo "|---|---|---|"
    echo "| streaming off, tps | $off_m | ${off[*]} |"
    echo "| streaming on, tps | $on_m | ${on[*]} |"
    echo "| on / off | $(awk "BEGIN { printf \"%.3f\", $on_m / $off_m }") | goal: at least 0.95 |"
    echo "| synchronous, tps | $sync_m | ${sync[*]} |"
    ages=$(for round in $(seq "$rounds"); do paste -sd/ "$work/rpo.$round"; done | paste -sd' ')
    echo "| RPO under load, ms: p50/p99/worst | | $ages; goal: p99 at most 1000 |"
    echo "| one commit, 1 client: p50, p99, per second | $(cat "$work/one") | |"
    echo "| one commit, 8 clients: p50, p99, per second | $(cat "$work/eight") | |"
    echo
}

as_server "$bin/initdb" -D "$work/pg/data" -U postgres -A trust --locale=C.UTF-8 --data-checksums >/dev/null
cat >>"$work/pg/data/postgresql.conf" <<EOF
unix_socket_directories = '$work/pg'
listen_addresses = ''
shared_buffers = 256MB
max_wal_size = 4GB
EOF
as_server "$bin/pg_ctl" -D "$work/pg/data" -l "$work/pg/log" -w start >/dev/null
as_server "$bin/pgbench" -i -q -s "$scale" "$dsn" >/dev/null 2>&1
sql -c "CREATE TABLE one_commit (i int)" -c "VACUUM (FREEZE, ANALYZE)" -c "CHECKPOINT"

echo "$("$binary" --version), $("$bin/postgres" --version), $(nproc) cores, $clients clients, $duration s each, scale $scale"
measure "folder" "url = \"file://$work/repository\""
if [ -n "${LIFEBOAT_TEST_MOTO:-}" ]; then
    port=$(shuf -i 20000-40000 -n 1)
    (cd "$work" && exec "$LIFEBOAT_TEST_MOTO" -H 127.0.0.1 -p "$port") >"$work/moto.log" 2>&1 &
    moto=$!
    for _ in $(seq 200); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
        sleep 0.1
    done
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf 'PUT /estate HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' "$port" >&3
    cat <&3 >/dev/null
    exec 3>&-
    measure "S3 (moto, loopback)" "url = \"s3://estate/x\"
endpoint = \"http://127.0.0.1:$port\"
region = \"us-east-1\"
access_key_id = { env = \"AWS_ACCESS_KEY_ID\" }
secret_access_key = { env = \"AWS_SECRET_ACCESS_KEY\" }"
else
    say "LIFEBOAT_TEST_MOTO is not set: S3 is left out"
fi
