//! `lifeboat demo`. Who lives here: `seed`, the shop whose data the demo loses and gets back.

mod seed;
