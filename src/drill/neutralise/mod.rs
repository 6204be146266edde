//! Makes a restored Odoo database harmless before any Odoo process sees it, and proves it.
//!
//! ```text
//! means        what an environment brings along for it
//! sources      where each installed module's code is, in the order of Odoo
//! inside       the same, told from inside an image whose files are not on this host
//! run          the modules' own scripts, then Lifeboat's statements, one transaction per database
//! statements   steps.toml and assertions.toml, and what of them applies to a database
//! verify       every assertion, in a session of its own, after the commit
//! ```
//!
//! What fails stops it: a database is neutralised altogether or not at all, and Odoo is started on a database only
//! when every assertion about it holds ([`Neutralisation::is_proven`]).

mod inside;
mod means;
mod run;
mod sources;
pub(super) mod statements;
mod verify;

#[cfg(test)]
mod tests;

pub use inside::Elsewhere;
pub(super) use inside::dispatch;
pub use means::Means;
pub use run::{Neutralisation, Settings, database, run};
pub use sources::AddonsPaths;
