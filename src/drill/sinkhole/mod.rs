//! Where everything ends up that a sealed copy tries to reach outside: names, mail, web, anything else.
//!
//! In the sandbox's network every address leads to the loopback interface, so that a socket bound to `0.0.0.0` and
//! `[::]` receives what was meant for the world, and `getsockname` of the accepted socket is the address that was
//! dialled. Each name that is asked for gets an address of its own (`names`), so the name behind a later
//! connection is known. Every attempt becomes one line of JSON ([`Attempt`](crate::evidence::egress_record::Attempt))
//! with the process that made it; nothing is passed on.
//!
//! ```text
//! listen ── dns ── names      what is asked for, and which address stands for it
//!    ├───── smtp              a whole mail is taken: sender, recipients, subject
//!    ├───── guess             HTTP (answered with 503), TLS (its server name), or the first bytes
//!    ├───── datagram          UDP with the address that it was sent to
//!    ├───── watch             what is tried on other ports
//!    └───── note ── caller    the line, and who it was
//! ```
//!
//! A port that nobody listens on refuses the connection; that attempt is seen as a packet (`watch`), without what
//! was wanted. [`Ports`] lists what software of this kind uses; on hosts with `nft`, `redirect` in the namespace could
//! lead all others here.

mod caller;
mod datagram;
mod dns;
mod guess;
mod listen;
mod names;
mod note;
mod smtp;
mod watch;

#[cfg(test)]
mod tests;

pub use listen::{Ports, Sinkhole};
