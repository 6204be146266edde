//! Bad input and faults: what each one is called, what it leaves behind, and that the next run works.

mod backups;
mod keys;
mod stores;

use std::time::Duration;

use crate::common::{Cluster, Output};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Must have failed with `code`; everything that was said.
#[track_caller]
pub(super) fn refused(output: Output, code: i32) -> String {
    output.expect_code(code).json()["error"].to_string()
}

pub(super) fn rows(cluster: &Cluster, name: &str, count: u32) {
    let sql = format!("CREATE TABLE {name} AS SELECT i AS id, md5(i::text) AS x FROM generate_series(1, {count}) i");
    cluster.psql("postgres", &sql);
}

pub(super) fn digest(cluster: &Cluster, name: &str) -> String {
    cluster.psql("postgres", &format!("SELECT count(*), md5(string_agg(x, '' ORDER BY id)) FROM {name}"))
}
