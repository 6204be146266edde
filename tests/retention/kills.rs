//! `prune` killed anywhere on its way, in both phases: what stays can be restored at once, and the next run ends what was
//! begun.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::*;
use crate::common::Running;

/// When a run is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// After so many eighths of the time that a whole run takes.
    Eighths(u32),
    /// Once it has written something that was not there.
    Written,
    /// Once the ledger tells of it.
    Told,
    /// Once so many objects are deleted.
    Deleted(usize),
}

/// The repository and this host's state as they were, to have the same run again.
struct Saved<'a> {
    shop: &'a Shop,
    objects: usize,
    entries: usize,
}

impl<'a> Saved<'a> {
    const PLACES: [&'static str; 2] = ["repository", "state"];

    fn new(shop: &'a Shop) -> Self {
        let saved = Self { shop, objects: shop.estate.objects("").len(), entries: shop.estate.objects("ledger").len() };
        Self::PLACES.iter().for_each(|name| saved.copy(name, &format!("{name}.saved")));
        saved
    }

    fn again(&self) {
        Self::PLACES.iter().for_each(|name| self.copy(&format!("{name}.saved"), name));
    }

    fn copy(&self, from: &str, to: &str) {
        let place = |name: &str| -> PathBuf { self.shop.estate.scratch.join(name) };
        let _ = std::fs::remove_dir_all(place(to));
        let copied = Command::new("cp").arg("-a").arg(place(from)).arg(place(to)).status().expect("cp");
        assert!(copied.success());
    }

    /// Runs `prune` and kills it; whether it was still running.
    fn killed(&self, at: Moment, whole: Duration) -> bool {
        self.again();
        let estate = &self.shop.estate;
        let mut running: Running = estate.spawn(&["prune"]);
        let began = Instant::now();
        let come = || match at {
            Moment::Eighths(n) => began.elapsed() >= whole * n / 8,
            Moment::Written => estate.objects("").len() > self.objects,
            Moment::Told => estate.objects("ledger").len() > self.entries,
            Moment::Deleted(n) => estate.objects("").len() + n <= self.objects,
        };
        while running.is_running() && !come() {
            std::thread::sleep(Duration::from_micros(200)); // nothing announces it
        }
        !running.kill9().status.success()
    }
}

/// Kills runs at these moments; each time what stays must be whole, and the next run must do the rest. How many runs were
/// killed before they had ended.
fn kill_each(shop: &Shop, moments: &[Moment], staying: [&str; 2], rest: impl Fn(&Shop)) -> usize {
    let saved = Saved::new(shop);
    let began = Instant::now();
    shop.prune(&[]);
    let whole = began.elapsed();
    let mut killed = 0;
    for moment in moments {
        killed += usize::from(saved.killed(*moment, whole));
        shop.estate.run(&["verify"]).ok();
        for id in staying {
            shop.estate.plan(&format!("backup:{id}")).ok();
        }
        rest(shop);
    }
    killed
}

/// `[a, b, c, d]`, of which b is held and d the last: a and c go.
fn ripe(scratch: &Scratch) -> Shop {
    let shop = shop(scratch, |builder| builder);
    let (b, d) = (shop.bases[1].clone(), shop.bases[3].clone());
    let hold = ["hold", "add", "--until", "2100-01-01", "--reason", "audit", "--point", &format!("backup:{b}")];
    shop.estate.run(&hold).ok();
    wait_until("the last base backup is a second old", PATIENCE, || shop.staying() == [b.clone(), d.clone()]);
    shop
}

fn gone(shop: &Shop) {
    for n in [0, 2] {
        let refused = shop.estate.plan(&format!("backup:{}", shop.bases[n])).expect_code(7).json();
        assert!(refused["error"]["message"].as_str().is_some_and(|m| m.contains("given up by retention")), "{refused}");
    }
}

#[test]
fn a_run_that_is_killed_while_it_gives_up_points_loses_none_that_stays() {
    let scratch = Scratch::new();
    let shop = ripe(&scratch);
    // What is given up is not deleted by the run after.
    shop.estate.reconfigure("delete_after = \"1s\"", "delete_after = \"1h\"");
    let (b, d) = (shop.bases[1].as_str(), shop.bases[3].as_str());
    let moments = [Moment::Eighths(2), Moment::Eighths(5), Moment::Written, Moment::Told];
    let killed = kill_each(&shop, &moments, [b, d], |shop| {
        shop.prune(&[]);
        gone(shop);
        let waiting = shop.prune(&["--dry-run"])["waiting"].clone();
        assert_eq!(waiting.as_array().map(Vec::len), Some(1), "given up once: {waiting}");
    });
    assert!(killed >= 2, "only {killed} of {} were killed before they had ended", moments.len());
    assert_eq!(shop.words(&format!("backup:{b}"), "point"), "a");
}

#[test]
fn a_run_that_is_killed_while_it_deletes_leaves_what_stays_and_the_next_deletes_the_rest() {
    let scratch = Scratch::new();
    let shop = ripe(&scratch);
    let (b, d) = (shop.bases[1].as_str(), shop.bases[3].as_str());
    shop.prune(&[]);
    gone(&shop);
    wait_until("the delay has passed", PATIENCE, || {
        shop.prune(&["--dry-run"])["deleted"].as_array().is_some_and(|d| !d.is_empty())
    });
    let moments = [Moment::Eighths(4), Moment::Told, Moment::Deleted(1), Moment::Deleted(15)];
    let left = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let killed = kill_each(&shop, &moments, [b, d], |shop| {
        shop.prune(&[]);
        let report = shop.prune(&["--dry-run"]);
        assert_eq!(
            (&report["waiting"], &report["deleted"]),
            (&serde_json::json!([]), &serde_json::json!([])),
            "{report}"
        );
        let verified = shop.estate.run(&["verify", "--deep"]).ok().json();
        assert_eq!(verified["verify"]["problems"], serde_json::json!([]));
        shop.estate.run(&["evidence", "verify"]).ok();
        left.borrow_mut().insert(["data", "wal"].map(|folder| shop.estate.objects(folder)));
    });
    assert!(killed >= 2, "only {killed} of {} were killed before they had ended", moments.len());
    assert_eq!(left.borrow().len(), 1, "what is left in the end depends on where a run was killed");
    assert_eq!(shop.words(&format!("backup:{b}"), "point"), "a");
    assert_eq!(shop.words("latest", "latest"), "abcd");
}
