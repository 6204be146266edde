//! Keys, recipients, sealing and opening.

pub mod signing;
