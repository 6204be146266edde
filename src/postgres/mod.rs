//! PostgreSQL from outside: its write-ahead log, its control file, its backups.

pub mod backup_label;
pub mod control_file;
pub mod wal;
