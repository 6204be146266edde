#!/bin/bash
# Runs once, when the cluster is made: the role that Lifeboat uses.
set -euo pipefail
psql -v ON_ERROR_STOP=1 -v password="$LIFEBOAT_DB_PASSWORD" -U "$POSTGRES_USER" -d postgres <<'SQL'
CREATE ROLE lifeboat LOGIN REPLICATION PASSWORD :'password';
GRANT pg_read_all_settings, pg_read_all_data, pg_monitor TO lifeboat;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) TO lifeboat;
\c template1
GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) TO lifeboat;
SQL
