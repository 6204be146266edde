//! Object stores: opening one from its URL, create-only writing with read-back, one retry policy; leases in one.

mod failure;
pub mod fault;
pub mod layout;
pub mod lease;
mod local;
pub mod object_lock;
pub mod open;
pub mod probe;
mod s3;
pub mod store;

pub use local::Leftovers;
pub use object_lock::ObjectLocks;
pub use open::{Location, open, open_for_init, remove_leftovers};
pub use probe::{Finding, ProbeReport, State, probe};
pub use store::{Created, ObjectInfo, RetryPolicy, Store};

#[cfg(test)]
mod contract;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod lease_simulation;
#[cfg(test)]
mod lease_tests;
#[cfg(test)]
mod moto;
