//! One database of a cluster, restored alone to any moment: into a cluster under a new name, or as an archive that
//! Odoo's own database manager reads. Backups are of whole clusters, so the cluster is restored aside first.
//!
//! ```text
//! admit ─▶ aside: files, recovery ─▶ find ─▶ (mask, identity, neutralise) ─▶ dump ─▶ load under a temporary name
//!                                                                          │          compare ─▶ filestore ─▶ name
//!                                                                          └▶ archive beside FILE ─▶ name
//! aside::clean removes whatever has no final name, however it ended
//! ```
//!
//! Promises: nothing that exists is changed or written over; what has its final name is whole, and was compared with
//! the restored original; data that are to be masked are masked before they leave the private server.

mod archive;
mod aside;
mod dump;
mod find;
mod load;
mod objects;
mod place;
mod programs;
mod run;
mod wish;

pub use archive::Archived;
pub use aside::Aside;
pub use find::Found;
pub use load::Target;
pub use objects::Counted;
pub use place::require_free;
pub use programs::Programs;
pub use run::{Done, reap, run};
pub use wish::{Destination, IntoCluster, Neutralise, Wish};
