//! The command line: grammar in `args`, one file per command, printing in `output`.
//!
//! Commands that read work on the data folder's files beside a running server and need no lock. Commands that write use the server's
//! admin API while one is running on the folder, and the folder itself otherwise.

pub mod args;
pub mod demo;
mod output;
mod sender;
pub mod topic;
