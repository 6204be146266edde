//! What goes on meanwhile: pgbench, base backups on time, and processes that are killed.

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Log, PATIENCE, Plan};
use crate::common::{Cluster, Estate, Running, as_server, tool};

/// Splitmix64: the same choices for the same seed on every machine.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// pgbench at a rate that leaves room for the rest; ends with the value.
#[derive(Debug)]
pub(super) struct Load(Child);

impl Load {
    pub(super) fn start(cluster: &Cluster) -> Self {
        let pgbench = tool(cluster.major(), "pgbench").expect("asked before");
        let mut command = as_server(&pgbench);
        command.args(["-n", "-c", "3", "-R", "150", "-T", "100000", &cluster.dsn()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("pgbench"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The receiver, base backups, and their violent ends.
#[derive(Debug)]
pub(super) struct Chaos<'a> {
    estate: &'a Estate,
    cluster: &'a Cluster,
    plan: Plan,
    log: &'a Log,
    random: Random,
    receiver: Option<Running>,
    backups: u32,
    backups_killed: u32,
    receivers_killed: u32,
}

impl<'a> Chaos<'a> {
    /// With a receiver that streams.
    pub(super) fn new(estate: &'a Estate, cluster: &'a Cluster, plan: Plan, log: &'a Log) -> Self {
        let receiver = Some(estate.receive(cluster));
        let random = Random::new(!plan.seed);
        Self { estate, cluster, plan, log, random, receiver, backups: 0, backups_killed: 0, receivers_killed: 0 }
    }

    pub(super) fn run(&mut self, stop: &AtomicBool) {
        let mut backup_due = Instant::now() + self.plan.between_backups / 2;
        let mut kill_due = Instant::now() + self.random.millis(2_000, 8_000);
        while !stop.load(Ordering::SeqCst) {
            if Instant::now() >= backup_due {
                backup_due += self.plan.between_backups;
                self.backup();
            }
            if Instant::now() >= kill_due {
                self.kill_receiver();
                kill_due = Instant::now() + self.random.millis(3_000, 20_000);
            }
            let receiver = self.receiver.as_mut().expect("it runs between two kills");
            assert!(receiver.is_running(), "the receiver ended by itself: {}", receiver.said());
            std::thread::sleep(Duration::from_millis(20)); // until something is due
        }
    }

    /// One in three is killed on its way, and so is the receiver sometimes meanwhile.
    fn backup(&mut self) {
        let kill = self.random.below(3) == 0;
        let kill_after = self.random.millis(1, 2_500);
        let kill_receiver = self.random.below(4) == 0;
        let began = Instant::now();
        let mut backup = self.estate.spawn(&["backup", "base"]);
        if kill_receiver {
            std::thread::sleep(self.random.millis(1, 500)); // a moment that nothing announces
            self.kill_receiver();
        }
        if kill {
            while backup.is_running() && began.elapsed() < kill_after {
                std::thread::sleep(Duration::from_millis(5)); // that moment again
            }
            if backup.is_running() {
                backup.kill9();
                self.backups_killed += 1;
                self.log.say(&format!("base backup killed after {kill_after:?}"));
                return;
            }
        }
        let json = backup.wait(PATIENCE * 3).ok().json();
        self.backups += 1;
        let id = json["base_backup"]["id"].as_str().expect("an id").to_owned();
        self.log.say(&format!("base backup {id}, {:.1} s", began.elapsed().as_secs_f64()));
    }

    fn kill_receiver(&mut self) {
        self.receiver.take().expect("it runs between two kills").kill9();
        std::thread::sleep(self.random.millis(1, 1_500)); // nobody receives for that long
        self.receiver = Some(self.estate.receive(self.cluster));
        self.receivers_killed += 1;
        self.log.say("receiver killed and started again");
    }

    /// Ends the receiver; what was done.
    pub(super) fn finish(mut self) -> String {
        if let Some(receiver) = self.receiver.take() {
            receiver.kill9();
        }
        format!(
            "{} base backups, {} killed; {} receivers killed",
            self.backups, self.backups_killed, self.receivers_killed
        )
    }
}
