//! The command line: grammar in `args`, dispatch in `run`, one file per command, printing in `output`.
//!
//! Commands that read work on the data folder's files beside a running server and need no lock. Commands that write use the server's
//! admin API while one is running on the folder, and the folder itself otherwise.

pub mod args;
mod check;
pub mod demo;
mod exit;
mod keep;
mod mail;
pub(crate) mod output;
mod people;
pub mod policy;
mod query;
mod ready;
mod run;
mod send;
mod sender;
mod suppression;
mod template;
mod time;
mod topic;
mod trace;
mod up;
pub mod wait;
pub mod workflow;
mod writer;

pub use run::main;
