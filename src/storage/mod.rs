//! Object stores: opening one from its URL, create-only writing with read-back, one retry policy.

pub mod layout;
pub mod store;

pub use store::{Created, ObjectInfo, Store};
