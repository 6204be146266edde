# shellcheck shell=bash
# shellcheck disable=SC2154
# Sourced by bench.sh: one round of base backups and restores, each tool in its turn.

base_tools=()
for name in ${tools//,/ }; do base_tools+=("$name"); done

# turns ROUND: the tools, in another order in each round.
turns() {
    local i count=${#base_tools[@]}
    for ((i = 0; i < count; i++)); do echo "${base_tools[$(((i + $1) % count))]}"; done
}

defined() { declare -F "$1" >/dev/null; }

# each STEP ROUND ARGUMENT…: TOOL_STEP of all tools that have it.
each() {
    local step=$1 tool order
    mapfile -t order < <(turns "$2")
    shift 2
    for tool in "${order[@]}"; do
        if defined "${tool}_$step"; then "${tool}_$step" "$@"; fi
    done
}

drift() {
    python3 "$scripts/pages.py" drift "$1" 1 >/dev/null || die "pages of $1 cannot be changed"
}

# check_restored TOOL PGDATA EXPECTED: in the first round only; and the directory goes.
check_restored() {
    if [ "$round" -eq 1 ]; then
        starts_right "$2" "$3" || { tail -n 20 "$2.log" >&2; die "what $1 restored is not what was backed up"; }
    fi
    rm -rf "$2" "$2.log"
}

# The bound of an incremental that is exact to the page, as a tool's line without times.
page_bound() {
    local figures
    figures=$(python3 "$scripts/pages.py" changed "$data" "$1") || die "the changed pages cannot be counted"
    read -r changed_pages all_pages raw_bytes bound_bytes <<<"$figures"
    say "  $changed_pages of $all_pages pages changed: $((raw_bytes >> 20)) MiB, $((bound_bytes >> 20)) MiB at zstd 3"
    if wants incremental; then echo "$round,incremental,changed pages at zstd 3,,,,,,$bound_bytes,$changed_pages," >>"$csv"; fi
}

base_round() {
    local before
    round=$1
    say "Round $round of $rounds: full backups"
    new_folder "$run/r"
    # What was restored is started with the source's own WAL, which waits for that until the round is over.
    sql "$data" "SELECT pg_create_physical_replication_slot('bench_keep', true)" >/dev/null
    each begin "$round"
    each full "$round"
    each streamed_full "$round"
    rows_at_full=$(fingerprint "$data")
    rows_now=$rows_at_full
    if wants incremental || wants unchanged; then
        say "Round $round of $rounds: incremental backups"
        before=$(sql "$data" "SELECT pg_current_wal_insert_lsn()")
        change_rows "$round"
        rows_now=$(fingerprint "$data")
        sql "$data" CHECKPOINT
        page_bound "$before"
        each incremental "$round" "$(row_or_none incremental)"
        if wants unchanged; then each incremental "$round" unchanged; fi
    fi
    if wants restore || wants delta; then
        say "Round $round of $rounds: restores"
        each restore "$round"
    fi
    each end "$round"
    drop_slot "$data" bench_keep
}

# ---------------------------------------------------------------- what was measured, on what

version_of() { "$@" 2>/dev/null | head -n 1; }

describe_machine() {
    local cpu memory
    cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
    memory=$(($(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) >> 20))
    echo "$(date -u +%F), $(nproc) cores (${cpu:-unknown processor}), $memory GiB, $(findmnt -no FSTYPE -T "$work"), $(uname -sr)," \
        "$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release). $(version_of "$bin/postgres" --version)."
    echo
    if [ -n "${cluster_mib:-}" ]; then
        echo "Cluster of $cluster_mib MiB, $rounds rounds, tools in turn; $processes processes or cores each; repository on the same disk;" \
            "page cache warm; \`sync\` before each measurement. Medians, (lowest–highest); ratios to pgBackRest, or to cp, or to nobody receiving."
        echo
    fi
    echo "* $(version_of "$lifeboat" --version): zstd 3, AES-256-GCM. Its receiver runs, as in production; WAL is not counted in bytes and objects."
    if uses pgbackrest; then
        echo "* $(version_of "${pgbackrest[0]}" version): zst 3, aes-256-cbc, bundles, $(if [ -n "$pgbackrest_block" ]; then echo 'block incremental (beta in 2.45)'; else
            echo 'no block incremental (this version lacks it)'; fi), process-max $processes, start-fast, archive-check off. Restores files only: no recovery."
    fi
    if uses pg_basebackup; then echo "* $(version_of "$bin/pg_basebackup" --version): tar, client-zstd 3 with $processes workers, no encryption; restore is zstd and tar."; fi
    if uses barman; then
        echo "* Barman $(version_of barman --version | cut -d' ' -f1): local-rsync without compression and encryption (it offers none there), unchanged files" \
            "linked, $processes jobs; and pg_basebackup with client-zstd 3, $processes workers, without encryption."
    fi
    echo
    echo "Peak RSS: the largest process that is no PostgreSQL server; \`all\`: all of the tool's processes at one moment. Machine's CPU: everything that" \
        "ran meanwhile, the server too. The restore \"with recovery\" includes replay, promotion and a clean stop."
}
