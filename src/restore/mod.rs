//! Restore
pub mod files;
