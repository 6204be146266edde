//! `lifeboat demo`. Who lives here: `seed`, the shop whose data the demo loses and gets back.

#[allow(dead_code, unused_imports, reason = "merged first")]
mod seed;
