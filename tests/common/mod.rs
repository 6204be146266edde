//! Helpers of the tests: real PostgreSQL servers, a real S3 server over HTTP, real files, the real
//! program. Used by the integration tests and, by path, by unit tests that need a server.
//!
//! Everything is blocking and may be called from a `#[tokio::test]` as well. Everything is made below
//! one [`Scratch`] directory, stopped and removed when its value is dropped, and bounded by a time-out.
//! Which server and tools there are is told by `deploy/test.sh`, through the environment:
//! `LIFEBOAT_TEST_MOTO`, `LIFEBOAT_TEST_PG_<major>`, `LIFEBOAT_TEST_FIXTURES`, `LIFEBOAT_TEST_PROGRAM`; real Odoos by whoever
//! has them: `LIFEBOAT_TEST_ODOO`.

#![allow(dead_code, unused_imports, unused_macros, reason = "each test module takes what it needs")]

mod clock;
mod cluster;
mod disk;
mod engine;
mod estate;
mod fixture;
mod journal;
mod lifeboat;
mod moto;
mod odoo;
mod pgbench;
mod process;
mod proxy;
mod scratch;
mod wait;

pub(crate) use self::clock::Clock;
pub(crate) use self::cluster::{Cluster, ClusterBuilder, majors, server_bin, tool};
pub(crate) use self::disk::SmallDisk;
pub(crate) use self::engine::Engine;
pub(crate) use self::estate::{Estate, EstateBuilder, file_url};
pub(crate) use self::fixture::{Fixture, ODOO_TABLES, fixture_odoo, fixture_of, load_fixture};
pub(crate) use self::journal::{Ack, Journal, JournalResult};
pub(crate) use self::lifeboat::{Lifeboat, Output, Running};
pub(crate) use self::moto::Moto;
pub(crate) use self::odoo::RealOdoo;
pub(crate) use self::pgbench::{pgbench_init, pgbench_run};
pub(crate) use self::process::{alive, children_of};
pub(crate) use self::proxy::FlakyProxy;
pub(crate) use self::scratch::{Account, Scratch, as_server, free_port, own, server_account};
pub(crate) use self::wait::{blocking, wait_until, wait_until_async};

/// Says why a test cannot run on this machine and ends it: `let Some(x) = … else { skip!("no moto") };`.
macro_rules! skip {
    ($($why:tt)*) => {{
        println!("SKIPPED: {}", format_args!($($why)*));
        return;
    }};
}
pub(crate) use skip;
