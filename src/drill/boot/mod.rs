//! Starts Odoo on a restored database, asks it as a user would, and stops it.
//!
//! ```text
//! run ── settings      the odoo.conf and the arguments that keep the copy apart (pure)
//!  ├──── access        a role of its own, identity of the database, a user and samples to ask for
//!  ├──── process       started through the sandbox's `Launch`, awaited, ended
//!  ├──── log           what its log amounts to (pure)
//!  ├──── asking ── web log in, pages, assets, attachments, an invoice
//!  └──── pages ── web  what checks of the user's ask for
//! ```
//!
//! `/web/health` is never taken as proof: it answers without the database, and with modules and files missing.
//! Odoo is started only on databases that are proven to be neutralised; the caller sees to that.

mod access;
mod asking;
mod log;
mod pages;
mod process;
mod run;
mod settings;
mod web;

#[cfg(test)]
mod tests;

pub(super) use pages::unanswered;
pub use run::{Booted, run};
pub use settings::base_url;
pub use settings::{PORT, Settings, Surroundings};
pub use web::Way;
