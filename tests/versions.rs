//! Every supported PostgreSQL, with the sizes and settings that change the layout: backed up, received,
//! restored to a restore point and to the end, compared row by row.

use std::sync::Mutex;

use crate::common::{Cluster, Estate, Scratch, majors, server_bin, skip};

/// What a major version is tried with.
struct Case {
    major: u32,
    wal_segment_mib: u32,
    checksums: bool,
}

const CASES: [Case; 6] = [
    Case { major: 13, wal_segment_mib: 1, checksums: true },
    Case { major: 14, wal_segment_mib: 16, checksums: false },
    Case { major: 15, wal_segment_mib: 64, checksums: true },
    Case { major: 16, wal_segment_mib: 1, checksums: false },
    Case { major: 17, wal_segment_mib: 64, checksums: true },
    Case { major: 18, wal_segment_mib: 16, checksums: true },
];

/// One digest of all rows, in both tablespaces.
const DIGEST: &str = "SELECT count(*), md5(string_agg(x::text, ',' ORDER BY id)) FROM \
                      (SELECT id, body FROM here UNION ALL SELECT id + 1000000, body FROM there) AS x";

/// Two servers at a time: memory and cores of a small machine.
static TURN: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];

fn round_trip(case: &Case) {
    let Case { major, wal_segment_mib, checksums } = *case;
    if server_bin(major).is_none() {
        skip!("no PostgreSQL {major} (LIFEBOAT_TEST_PG_{major})");
    }
    let _turn = TURN[major as usize % 2].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let scratch = Scratch::new();
    let mut builder = Cluster::builder(&scratch).major(major).wal_segment_mib(wal_segment_mib).tablespace("far");
    if !checksums {
        builder = builder.no_checksums();
    }
    if major >= 17 {
        builder = builder.config("summarize_wal = on");
    }
    let mut cluster = builder.start();
    let estate = Estate::builder(&scratch, &cluster).init();
    cluster.psql(
        "postgres",
        "CREATE TABLE here (id serial PRIMARY KEY, body text);
         CREATE TABLE there (id serial PRIMARY KEY, body text) TABLESPACE far;
         INSERT INTO here (body) SELECT md5(i::text) FROM generate_series(1, 20000) i;
         INSERT INTO there (body) SELECT repeat(md5(i::text), 20) FROM generate_series(1, 2000) i",
    );
    let receiver = estate.receive(&cluster);
    estate.backup();
    // Enough for several segments of the smaller sizes, toasted values and an index that splits.
    let more = |from: u32| {
        cluster.psql(
            "postgres",
            &format!(
                "INSERT INTO here (body) SELECT md5(i::text) FROM generate_series({from}, {from} + 20000) i;
                 INSERT INTO there (body) SELECT (SELECT string_agg(md5((i * j)::text), '') FROM generate_series(1, 200) j)
                   FROM generate_series(1, 100) i;
                 UPDATE here SET body = body || '!' WHERE id % 7 = 0;
                 DELETE FROM there WHERE id % 11 = 0"
            ),
        );
    };
    more(100_000);
    // What is restored below comes from an incremental, by the one reader or the other.
    let reader = if major % 2 == 0 { "direct" } else { "streamed" };
    let incremental = estate.run(&["backup", "base", "--reader", reader]).ok().json();
    assert!(incremental["base_backup"]["previous"].is_string(), "PostgreSQL {major}: {incremental}");
    let at_point = cluster.psql("postgres", DIGEST);
    cluster.psql("postgres", "SELECT pg_create_restore_point('before the second half')");
    more(200_000);
    let at_end = cluster.psql("postgres", DIGEST);
    assert_ne!(at_point, at_end);
    estate.caught_up(&cluster);
    receiver.kill9();
    cluster.kill9();

    let old_place = scratch.join("pg/tablespace-far").display().to_string();
    for (target, name, expected) in [("name:before the second half", "r1", at_point), ("latest", "r2", at_end)] {
        let place = estate.place(name);
        let space = scratch.server_dir(&format!("{name}-far"));
        let mapping = format!("{old_place}={}", space.display());
        estate.restore(target, &place, &["--tablespace-mapping", &mapping]).ok();
        let copy = Cluster::adopt(&scratch, &place, major);
        assert_eq!(copy.psql("postgres", DIGEST), expected, "PostgreSQL {major} to {target}");
        let on = copy.psql("postgres", "SHOW data_checksums; SHOW wal_segment_size; SHOW archive_mode");
        assert_eq!(on, format!("{}\n{wal_segment_mib}MB\noff", if checksums { "on" } else { "off" }));
        let there =
            copy.psql("postgres", "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'far'");
        assert_eq!(there, space.display().to_string());
    }
}

macro_rules! versions {
    ($($name:ident: $index:literal,)*) => {$(
        #[test]
        fn $name() {
            round_trip(&CASES[$index]);
        }
    )*};
}

versions! {
    postgresql_13_comes_back: 0,
    postgresql_14_comes_back: 1,
    postgresql_15_comes_back: 2,
    postgresql_16_comes_back: 3,
    postgresql_17_comes_back: 4,
    postgresql_18_comes_back: 5,
}

#[test]
fn every_supported_version_has_a_case() {
    let tried: Vec<u32> = CASES.iter().map(|case| case.major).collect();
    assert_eq!(tried, (13..=18).collect::<Vec<_>>());
    assert!(majors().iter().all(|major| tried.contains(major)));
}
