//! Which blocks change, as kept while WAL passes: against `pg_waldump`, against PostgreSQL's own WAL
//! summaries, and against the files of servers that work in between.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat::postgres::block_files::BlockFiles;
use lifeboat::postgres::changed_blocks::{ChangedBlocks, WalSpan};
use lifeboat::postgres::relation_file::RelationFile;
use lifeboat::postgres::wal::{BlockMap, Fork, RelationFork, TimelineHistory};
use lifeboat::repository::StateDir;
use lifeboat::runtime::Runtime;
use lifeboat::units::{Lsn, Timeline};

use super::*;
use crate::common::{majors, server_bin};

const PAGE: usize = 8192;

/// A map in the form in which the judges' words are put as well: for each fork the limit, and the
/// blocks before it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    forks: BTreeMap<RelationFork, (Option<u32>, BTreeSet<u32>)>,
    databases: BTreeSet<(u32, u32)>,
}

impl Expected {
    fn mark(&mut self, fork: RelationFork, block: u32) {
        self.forks.entry(fork).or_default().1.insert(block);
    }

    fn cut(&mut self, fork: RelationFork, limit: u32) {
        let known = &mut self.forks.entry(fork).or_default().0;
        *known = Some(known.map_or(limit, |known| known.min(limit)));
    }

    /// Without what is not mapped, and without what a limit says already.
    fn settled(mut self) -> Self {
        self.forks.retain(|fork, (limit, blocks)| {
            blocks.retain(|block| limit.is_none_or(|limit| *block < limit));
            fork.fork.is_mapped()
        });
        self
    }

    fn of(map: &BlockMap) -> Self {
        let fork = |(fork, changed): (&RelationFork, &lifeboat::postgres::wal::ForkBlocks)| {
            (*fork, (changed.limit(), changed.blocks().iter().collect()))
        };
        Self { forks: map.forks().map(fork).collect(), databases: map.databases().collect() }
    }

    /// What is in one and not in the other, as long as it is readable.
    #[track_caller]
    fn assert_is(&self, judged: &Self) {
        assert_eq!(self.databases, judged.databases);
        let forks: BTreeSet<_> = self.forks.keys().chain(judged.forks.keys()).collect();
        for fork in forks {
            assert_eq!(self.forks.get(fork), judged.forks.get(fork), "{fork:?}: ours, then the judge's");
        }
    }
}

/// A cluster at work, its WAL received or pushed.
struct Working {
    scratch: Scratch,
    cluster: Cluster,
    estate: Estate,
}

impl Working {
    fn start(major: u32, config: &str, checksums: bool) -> Self {
        let scratch = Scratch::new();
        let mut builder =
            Cluster::builder(&scratch).major(major).wal_segment_mib(1).tablespace("far").config(&format!(
                "autovacuum = off\nwal_compression = on\nwal_keep_size = 2GB\nmax_wal_size = 4GB\n\
             max_prepared_transactions = 5\n{config}"
            ));
        if !checksums {
            builder = builder.no_checksums();
        }
        let cluster = builder.start();
        let estate = Estate::in_folder(&scratch, &cluster);
        cluster.psql("postgres", "SELECT pg_create_physical_replication_slot('lifeboat', true)");
        let working = Self { scratch, cluster, estate };
        working.sql(
            "CREATE TABLE account (id int PRIMARY KEY, teller int, filler text);
             INSERT INTO account SELECT i, i % 10, repeat('x', 80) FROM generate_series(1, 20000) i;
             CREATE TABLE still AS SELECT i, repeat('y', 200) FROM generate_series(1, 2000) i;
             CREATE TABLE idle AS SELECT * FROM still;
             CREATE TABLE emptied AS SELECT * FROM account;
             CREATE TABLE tail AS SELECT * FROM account;
             CREATE TABLE dropped AS SELECT * FROM account LIMIT 100;
             CREATE TABLE wide (id int, body text);
             CREATE TABLE moved AS SELECT * FROM account LIMIT 1000;
             CREATE UNLOGGED TABLE unlogged AS SELECT * FROM account LIMIT 100;
             CREATE SEQUENCE tickets;
             CREATE TABLE loaded (id int, filler text)",
        );
        // Rows of which nobody has read yet that they are committed, and which no vacuum has seen.
        working.sql("INSERT INTO loaded SELECT i, repeat('z', 80) FROM generate_series(1, 20000) i");
        // Rows that a vacuum has seen: what is deleted of them clears bits of the visibility map.
        working.sql("CREATE TABLE seen AS SELECT i, repeat('v', 80) FROM generate_series(1, 5000) i");
        working.sql("VACUUM seen");
        working.sql("CREATE DATABASE doomed");
        working
    }

    fn sql(&self, sql: &str) -> String {
        self.cluster.psql("postgres", sql)
    }

    /// A checkpoint at the beginning of a segment: where a backup would start.
    fn checkpoint(&self) -> Lsn {
        switch(&self.cluster);
        self.sql("CHECKPOINT");
        Lsn(lsn(&self.sql("SELECT redo_lsn FROM pg_control_checkpoint()")))
    }

    /// Changes everything that can be changed, in every way.
    fn work(&self, round: u32) {
        let sql = |text: &str| self.sql(&text.replace('#', &round.to_string()));
        sql("UPDATE account SET teller = teller + 1 WHERE id % 97 = #");
        sql("INSERT INTO wide SELECT i, (SELECT string_agg(md5((i * j)::text), '') FROM generate_series(1, 150) j)
             FROM generate_series(1, 60) i");
        sql("DELETE FROM account WHERE id % 31 = #");
        sql("SELECT count(nextval('tickets')) FROM generate_series(1, 100)");
        sql("CREATE TABLE kinds# AS SELECT i, md5(i::text) AS t, ARRAY[i, i + 1] AS a, point(i, i) AS p
             FROM generate_series(1, 3000) i");
        sql("CREATE INDEX ON kinds# USING gin (a)");
        sql("CREATE INDEX ON kinds# USING gist (p)");
        sql("CREATE INDEX ON kinds# USING spgist (p)");
        sql("CREATE INDEX ON kinds# USING brin (i)");
        sql("CREATE INDEX ON kinds# USING hash (t)");
        sql("CREATE INDEX ON kinds# (t) TABLESPACE far");
        sql("UPDATE kinds# SET a = a || 7, p = point(i, #) WHERE i % 3 = 0");
        sql("VACUUM kinds#, account, loaded");
        sql("SELECT count(*) FROM loaded");
        sql("DELETE FROM loaded WHERE id % 4001 = #");
        sql("DELETE FROM seen WHERE i = #");
        sql("DELETE FROM tail WHERE id > 15000 / #");
        sql("VACUUM tail");
        sql("BEGIN; CREATE TABLE given_up AS SELECT * FROM still; SAVEPOINT s; CREATE INDEX ON given_up (i); ROLLBACK");
        sql("BEGIN; SAVEPOINT s; CREATE TABLE made# AS SELECT * FROM still LIMIT 50; RELEASE s; COMMIT");
        sql("BEGIN; DROP TABLE made#; PREPARE TRANSACTION 'drop'");
        sql("COMMIT PREPARED 'drop'");
        sql("BEGIN; CREATE TABLE never AS SELECT * FROM still LIMIT 50; PREPARE TRANSACTION 'create'");
        sql("ROLLBACK PREPARED 'create'");
        sql("TRUNCATE emptied");
        sql("INSERT INTO emptied SELECT * FROM account WHERE id % 7 = 0");
        sql("VACUUM FULL moved");
        sql("REINDEX TABLE account");
        sql("CREATE DATABASE other#");
        self.cluster.psql(&format!("other{round}"), "CREATE TABLE here AS SELECT generate_series(1, 5000)");
        if round == 1 {
            sql("ALTER TABLE moved SET TABLESPACE far");
            sql("DROP TABLE dropped");
            sql("DROP DATABASE doomed");
            if self.cluster.major() >= 15 {
                sql("CREATE DATABASE copied STRATEGY file_copy");
                sql("ALTER DATABASE copied SET TABLESPACE far");
            }
        }
    }

    fn files(&self) -> BlockFiles {
        BlockFiles::new(&StateDir::new(&self.scratch.join("state")), "production", &Runtime::silent())
    }

    fn system_id(&self) -> u64 {
        self.sql("SELECT system_identifier FROM pg_control_system()").parse().expect("a number")
    }

    fn pg_wal(&self) -> PathBuf {
        self.cluster.data_dir().join("pg_wal")
    }

    fn load_on(&self, history: &TimelineHistory, from: Lsn, to: Lsn, live: bool) -> Result<ChangedBlocks, String> {
        let span = WalSpan { system_id: self.system_id(), segment_size: 1 << 20, history, from, to };
        let pg_wal = self.pg_wal();
        ChangedBlocks::load(&self.files(), &span, live.then_some(&pg_wal)).map_err(|why| why.to_string())
    }

    fn load(&self, from: Lsn, to: Lsn, live: bool) -> Result<ChangedBlocks, String> {
        self.load_on(&TimelineHistory::first(Timeline(1)), from, to, live)
    }

    /// Works while a receiver comes and goes, and waits until everything is received.
    fn receive_work(&self) {
        for round in 1..=3 {
            let receiver = self.estate.receive();
            self.work(round);
            receiver.kill9();
        }
    }

    /// Lets a receiver take everything up to now, and ends it.
    fn receive_rest(&self) {
        let end = current(&self.cluster);
        self.estate.receive_until(&end);
    }

    /// The pages of all relation files, by their path.
    fn pages(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let data = self.cluster.data_dir();
        let files = walkdir::WalkDir::new(data).follow_links(true).into_iter().filter_map(Result::ok);
        let files = files.filter(|f| f.file_type().is_file()).filter_map(|f| {
            let path = f.path().strip_prefix(data).expect("below").to_owned();
            RelationFile::at(path.to_str()?)?;
            Some((path, fs::read(f.path()).expect("a relation's file")))
        });
        files.collect()
    }
}

/// What `pg_waldump` says of the records between two positions.
fn dumped(working: &Working, from: Lsn, to: Lsn, wanted: impl Fn(&RelationFork) -> bool) -> Expected {
    let waldump = tool(working.cluster.major(), "pg_waldump").expect("pg_waldump");
    let output = Command::new(waldump)
        .arg("-p")
        .arg(working.pg_wal())
        .args(["-s", &from.to_string(), "-e", &to.to_string()])
        .output()
        .expect("pg_waldump");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let mut found = Expected::default();
    let numbers = |text: &str| text.split('/').map(|n| n.parse().expect("a number")).collect::<Vec<u32>>();
    let relation = |path: &str| RelationFile::at(path.trim_end_matches([';', ','])).expect("a path").fork;
    for line in text.lines() {
        for reference in line.split(", blkref #").skip(1) {
            let words: Vec<&str> = reference.split([' ', ',', ';']).collect();
            let fork = match words.iter().position(|w| *w == "fork").map(|at| words[at + 1]) {
                None => Fork::Main,
                Some("fsm") => Fork::FreeSpaceMap,
                Some("vm") => Fork::VisibilityMap,
                Some("init") => Fork::Init,
                Some(other) => panic!("fork {other}"),
            };
            let rel = numbers(words[words.iter().position(|w| *w == "rel").expect("rel") + 1]);
            let block = words[words.iter().position(|w| *w == "blk").expect("blk") + 1].parse().expect("a block");
            found.mark(RelationFork { tablespace: rel[0], database: rel[1], relation: rel[2], fork }, block);
        }
        let said = line.split("desc: ").nth(1).expect("a description");
        let words: Vec<&str> = said.split_whitespace().collect();
        if line.starts_with("rmgr: Storage") {
            match words[..] {
                ["CREATE", path] => found.cut(relation(path), 0),
                ["TRUNCATE", path, "to", blocks, "blocks", ..] => found.cut(relation(path), blocks.parse().expect("n")),
                _ => panic!("{line}"),
            }
        } else if line.starts_with("rmgr: Database") {
            let directories: Vec<_> = words.iter().filter(|w| w.contains('/')).map(|w| numbers(w)).collect();
            let created =
                if words[0].starts_with("CREATE") { &directories[directories.len() - 1..] } else { &directories };
            found.databases.extend(created.iter().map(|d| (d[0], d[1])));
        } else if line.starts_with("rmgr: Transaction")
            && !words[0].starts_with("PREPARE")
            && let Some(list) = said.split("; rels: ").nth(1)
        {
            for path in list.split(';').next().expect("a list").split_whitespace() {
                for fork in [Fork::Main, Fork::Init] {
                    found.cut(RelationFork { fork, ..relation(path) }, 0);
                }
            }
        }
    }
    found.forks.retain(|fork, _| wanted(fork));
    found
}

#[test]
fn the_blocks_kept_are_those_that_pg_waldump_names() {
    let working = Working::start(15, "", true);
    let from = working.checkpoint();
    working.receive_work();
    let to = working.checkpoint();
    working.receive_rest();
    let judged = dumped(&working, from, to, |_| true).settled();
    assert!(
        judged.forks.values().any(|(limit, blocks)| limit.is_some_and(|l| l > 0) && blocks.len() > 1),
        "a tail cut"
    );
    assert!(judged.databases.len() > 4, "{:?}", judged.databases);
    Expected::of(working.load(from, to, false).expect("received").map()).assert_is(&judged);

    // Nothing kept, but the server still has its WAL.
    let blocks = working.scratch.join("state/blocks");
    fs::remove_dir_all(&blocks).expect("kept blocks");
    assert!(working.load(from, to, false).expect_err("nothing kept").contains("not kept"));
    Expected::of(working.load(from, to, true).expect("read from pg_wal").map()).assert_is(&judged);

    // Pushed one by one: archived before, kept again; records that cross segments are joined.
    let mut names: Vec<PathBuf> =
        fs::read_dir(working.pg_wal()).expect("pg_wal").map(|e| e.expect("e").path()).collect();
    names.sort();
    let end = working.sql(&format!("SELECT pg_walfile_name('{to}')"));
    let whole = names.iter().filter(|p| p.file_name().is_some_and(|n| n.len() == 24 && n < end.as_str()));
    for path in whole {
        working.estate.push(path).ok();
    }
    let why = working.load(from, to, false).expect_err("the last segment is not complete");
    assert!(why.contains(&end), "{why}");
    Expected::of(working.load(from, to, true).expect("pushed").map()).assert_is(&judged);

    // One damaged file, and there is no answer.
    let file = blocks.join("production/00000001").join(names[names.len() / 2].file_name().expect("a name"));
    let mut bytes = fs::read(&file).expect("kept");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("written");
    assert!(working.load(from, to, false).expect_err("damaged").contains("is damaged"));
    let span = WalSpan {
        system_id: 1,
        segment_size: 1 << 20,
        history: &TimelineHistory::first(Timeline(1)),
        from: to,
        to: Lsn(to.0 + 100),
    };
    assert!(ChangedBlocks::load(&working.files(), &span, None).is_err(), "another cluster");
}

#[test]
fn the_blocks_kept_are_those_that_postgresql_summarises() {
    let mut tried = 0;
    for major in [17, 18] {
        if server_bin(major).is_none() {
            continue;
        }
        tried += 1;
        let working = Working::start(major, "summarize_wal = on", true);
        let from = working.checkpoint();
        working.receive_work();
        let to = working.checkpoint();
        working.receive_rest();
        wait_until("PostgreSQL has summarised", PATIENCE, || {
            working.sql(&format!("SELECT count(*) FROM pg_available_wal_summaries() WHERE end_lsn >= '{to}'")) != "0"
        });
        let rows = working.sql(&format!(
            "SELECT c.reltablespace, c.reldatabase, c.relfilenode, c.relforknumber, c.relblocknumber, c.is_limit_block
             FROM pg_available_wal_summaries() s, pg_wal_summary_contents(s.tli, s.start_lsn, s.end_lsn) c
             WHERE s.start_lsn >= '{from}' AND s.end_lsn <= '{to}'"
        ));
        let mut judged = Expected::default();
        for row in rows.lines() {
            let columns: Vec<&str> = row.split('|').collect();
            let number = |at: usize| columns[at].parse::<u32>().expect("a number");
            let fork = [Fork::Main, Fork::FreeSpaceMap, Fork::VisibilityMap, Fork::Init][number(3) as usize];
            let fork = RelationFork { tablespace: number(0), database: number(1), relation: number(2), fork };
            match (columns[5], fork.relation) {
                ("t", 0) => drop(judged.databases.insert((fork.tablespace, fork.database))),
                ("t", _) => judged.cut(fork, number(4)),
                _ => judged.mark(fork, number(4)),
            }
        }
        assert!(judged.forks.len() > 50 && judged.databases.len() > 4, "{}", judged.forks.len());
        Expected::of(working.load(from, to, false).expect("received").map()).assert_is(&judged.settled());
    }
    if tried == 0 {
        skip!("neither PostgreSQL 17 nor 18 (LIFEBOAT_TEST_PG_17, LIFEBOAT_TEST_PG_18)");
    }
}

/// Pages that differ between two states of the files, except where a backup reads all of a file: those
/// of free space maps, visibility maps and unlogged relations, and those behind a file's former end.
fn changed(
    before: &BTreeMap<PathBuf, Vec<u8>>,
    after: &BTreeMap<PathBuf, Vec<u8>>,
) -> Vec<(RelationFork, u32, usize, PathBuf)> {
    let mut pages = Vec::new();
    for (path, new) in after {
        let file = RelationFile::at(path.to_str().expect("UTF-8")).expect("a relation");
        let unlogged = after.contains_key(Path::new(&format!("{}_init", path.display())));
        if let Some(old) = before.get(path).filter(|_| file.fork.fork.is_mapped() && !unlogged) {
            let differ = old.chunks(PAGE).zip(new.chunks(PAGE)).enumerate().filter(|(_, (old, new))| old != new);
            pages.extend(differ.map(|(at, _)| (file.fork, file.number * 131_072 + at as u32, at * PAGE, path.clone())));
        }
    }
    pages
}

#[test]
fn every_page_that_differs_is_in_the_map() {
    for major in majors() {
        let working = Working::start(major, "", true);
        let from = working.checkpoint();
        let before = working.pages();
        working.receive_work();
        let to = working.checkpoint();
        let after = working.pages();
        working.receive_rest();
        let map = working.load(from, to, false).unwrap_or_else(|why| panic!("{major}: {why}"));
        let changed = changed(&before, &after);
        // With checksums, the first change of a page after a checkpoint is in WAL even if it is a hint.
        let missed: Vec<_> = changed.iter().filter(|(fork, block, ..)| !map.touched(fork).block(*block)).collect();
        assert!(missed.is_empty(), "{major}: {missed:?}");
        assert!(changed.len() > 300, "{major}: {}", changed.len());
        // They also have a new LSN: with checksums, and for these forks, that is what a scan relies on.
        let silent = changed.iter().filter(|(_, _, at, path)| page_lsn(&after[path][*at..]) < from.0);
        let silent: Vec<_> =
            silent.filter(|(_, _, at, path)| after[path][*at..][..PAGE].iter().any(|b| *b != 0)).collect();
        assert!(silent.is_empty(), "{major}: {silent:?}");
        let (mut pages, mut untouched) = (0, 0);
        for (path, bytes) in &after {
            let file = RelationFile::at(path.to_str().expect("UTF-8")).expect("a relation");
            let touched = map.touched(&file.fork);
            pages += bytes.len() / PAGE;
            untouched += (0..bytes.len() / PAGE).filter(|b| !touched.block(*b as u32)).count();
        }
        assert!(untouched * 4 > pages, "{major}: of {pages} pages {untouched} are left out");
        let idle = RelationFile::at(&working.sql("SELECT pg_relation_filepath('idle')")).expect("a path").fork;
        assert!(map.touched(&idle).is_nothing(), "{major}");
        assert_eq!(map.touched(&RelationFork { fork: Fork::VisibilityMap, ..idle }).limit(), Some(0));
    }
}

fn page_lsn(page: &[u8]) -> u64 {
    let half = |at: usize| u64::from(u32::from_le_bytes(*page[at..].first_chunk().expect("a page")));
    half(0) << 32 | half(4)
}

/// Without checksums and `wal_log_hints`, vacuum says "all visible" on a heap page without moving its
/// LSN. A page's LSN alone would miss that; the map does not. A visibility map loses bits without any
/// trace in WAL or on its page, so it is never believed to be unchanged.
#[test]
fn pages_changed_without_a_new_lsn_are_in_the_map() {
    let working = Working::start(15, "wal_log_hints = off", false);
    let from = working.checkpoint();
    let before = working.pages();
    working.receive_work();
    let to = working.checkpoint();
    let after = working.pages();
    working.receive_rest();
    let map = working.load(from, to, false).expect("received");
    let mut silent = 0;
    for (fork, block, at, path) in changed(&before, &after) {
        let (old, new) = (&before[&path][at..at + PAGE], &after[&path][at..at + PAGE]);
        let all_visible = |page: &[u8]| page[10] & 0x04;
        let matters = old[..8] != new[..8] || old[12..20] != new[12..20] || all_visible(old) != all_visible(new);
        assert!(!matters || map.touched(&fork).block(block), "{} block {block}", path.display());
        silent += u32::from(page_lsn(new) < from.0 && all_visible(old) != all_visible(new));
    }
    assert!(silent > 50, "{silent}");
    let seen = working.sql("SELECT pg_relation_filepath('seen') || '_vm'");
    let (old, new) = (&before[Path::new(&seen)], &after[Path::new(&seen)]);
    assert!(old != new && page_lsn(new) < from.0, "the visibility map lost bits");
    assert!(dumped(&working, from, to, |fork| *fork == RelationFile::at(&seen).expect("a path").fork).forks.is_empty());
}

#[test]
fn the_line_is_followed_over_a_promotion() {
    let mut working = Working::start(15, "", true);
    let from = working.checkpoint();
    let receiver = working.estate.receive();
    working.work(1);
    working.cluster.stop();
    let signal = working.cluster.data_dir().join("standby.signal");
    fs::write(&signal, "").expect("a file");
    own(&signal);
    working.cluster.start();
    working.cluster.promote();
    working.work(2);
    let to = working.checkpoint();
    let end = current(&working.cluster);
    wait_until("everything is received", PATIENCE, || {
        let flushed = "SELECT count(*) FROM pg_stat_replication WHERE flush_lsn >= ";
        working.sql(&format!("{flushed}'{end}'")) != "0"
    });
    let text = fs::read_to_string(working.pg_wal().join("00000002.history")).expect("a history");
    let history = TimelineHistory::parse(Timeline(2), &text).expect("a history");
    let found = working.load_on(&history, from, to, false).expect("received");
    receiver.kill9();
    let file: u32 = working.sql("SELECT pg_relation_filenode('account')").parse().expect("a number");
    let account = found.map().forks().find(|(fork, _)| fork.relation == file);
    assert!(account.is_some_and(|(_, changed)| changed.blocks().iter().count() > 10));
    assert!(working.load(from, to, false).is_err(), "timeline 1 does not lead there");
    fs::remove_dir_all(working.scratch.join("state/blocks/production/00000001")).expect("kept blocks");
    assert!(working.load_on(&history, from, to, false).is_err(), "the ancestor's part is missing");
}
