//! PostgreSQL's write-ahead log, versions 13 to 18, read as bytes: no I/O, no clock, no async.
//!
//! | module | idea |
//! |---|---|
//! | [`blocks`] | which blocks of relations records change |
//! | [`header`] | page headers: version, cluster, timeline, address |
//! | [`record`] | what a record says, as far as recovery and counting need it |
//! | [`reader`] | bytes in, checked records out |
//! | [`segment`] | one complete segment file: is it whole and ours, what is in it |
//! | [`history`] | timeline history files and the line of ancestors they draw |

pub mod blocks;
mod blocks_codec;
mod bytes;
mod decode;
pub mod header;
pub mod history;
pub mod reader;
pub mod record;
mod references;
pub mod segment;

#[cfg(test)]
pub(in crate::postgres) mod forge;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod trials;

pub use crate::wal_name::{SegmentName, WalFileName, segment_name};
pub use blocks::{BlockMap, BlockSet, Fork, ForkBlocks, RelationFork};
pub(crate) use bytes::Fields;
pub use header::{SegmentHeader, WalVersion};
pub use history::TimelineHistory;
pub use reader::{Unfinished, WalEnd, WalReader};
pub use record::{Record, RecordKind};
pub use segment::{Carry, SegmentSummary};
