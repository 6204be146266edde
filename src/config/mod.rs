//! The estate's configuration files, parsed to validated types; errors carry file and line.
