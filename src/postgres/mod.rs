//! pg
mod intake;
