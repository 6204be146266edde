//! The sandbox of a drill: what every kind must hold (`contract`), limits, and what a killed Lifeboat leaves.

mod container;
mod contract;
mod expiry;
mod kills;
mod limits;
