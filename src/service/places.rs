//! Which of the waiting jobs may begin. Pure.
//!
//! * Jobs and drills have places apart, so that a long drill holds up no backup, and the reverse.
//! * An environment has one run of a kind at a time, and one heavy job (base backup, filestore, verification, prune).
//! * A job that has shown no sign of life for a while does not count: an environment whose PostgreSQL hangs must not
//!   keep others from their backups. It does nothing that would compete with them, either.

use crate::config::JobKind;
use crate::service::order::Order;

/// How many may run at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    /// Jobs, drills apart.
    pub(super) jobs: usize,
    /// Drills.
    pub(super) drills: usize,
}

/// A job that runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Busy<'a> {
    /// What it is.
    pub(super) order: &'a Order,
    /// Whether it told anything lately.
    pub(super) alive: bool,
}

/// Whether `order` may begin beside those that run.
pub(super) fn may_begin(order: &Order, running: &[Busy<'_>], places: Places) -> bool {
    let drill = |order: &Order| order.kind == JobKind::Drill;
    let taken = running.iter().filter(|busy| busy.alive && drill(busy.order) == drill(order)).count();
    let free = taken < if drill(order) { places.drills } else { places.jobs };
    let excluded = running
        .iter()
        .filter(|busy| busy.order.environment == order.environment)
        .any(|busy| busy.order.kind == order.kind || (busy.order.is_heavy() && order.is_heavy()));
    free && !excluded
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: Places = Places { jobs: 2, drills: 1 };

    fn order(kind: JobKind, environment: &str) -> Order {
        Order::requested(kind, environment, Vec::new(), "test").expect("order")
    }

    fn begins(kind: JobKind, environment: &str, running: &[(JobKind, &str, bool)]) -> bool {
        let orders: Vec<_> = running.iter().map(|(kind, environment, _)| order(*kind, environment)).collect();
        let busy: Vec<_> =
            orders.iter().zip(running).map(|(order, (_, _, alive))| Busy { order, alive: *alive }).collect();
        may_begin(&order(kind, environment), &busy, PLACES)
    }

    #[test]
    fn places_are_bounded_and_drills_have_their_own() {
        use JobKind::{Base, Configuration, Drill, Verify};
        assert!(begins(Base, "a", &[]));
        assert!(!begins(Base, "c", &[(Base, "a", true), (Verify, "b", true)]));
        assert!(begins(Drill, "c", &[(Base, "a", true), (Verify, "b", true)]));
        assert!(!begins(Drill, "c", &[(Drill, "a", true)]));
        assert!(begins(Configuration, "a", &[(Base, "a", true)]), "a small job of a busy environment");
        assert!(!begins(Verify, "a", &[(Base, "a", true)]), "one heavy job for each environment");
        assert!(!begins(Configuration, "a", &[(Configuration, "a", false)]), "one of a kind, however silent");
    }

    #[test]
    fn silent_jobs_keep_nobody_out() {
        use JobKind::Base;
        let hanging = [(Base, "a", false), (Base, "b", false), (Base, "c", false)];
        assert!(begins(Base, "d", &hanging));
        assert!(!begins(Base, "a", &hanging));
    }
}
