//! (empty)

#[allow(dead_code, unused_imports, reason = "the demo itself is merged beside it")]
mod demo;
