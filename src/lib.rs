//! Flywheel: an event-sourced stream processor with durable workflows for marketing.
//!
//! Owns nothing but the order of the modules, which is the order to read them in: words, pure cores, ports and adapters,
//! shells, edge, root. `ARCHITECTURE.md` says who may import whom; `tests/it/tidy.rs` checks it.
#![forbid(unsafe_op_in_unsafe_fn)]

// 0: words
pub mod domain;

// 1: pure cores
pub mod consent;
pub mod features;
pub mod identity;
pub mod intake;
pub mod models;
pub mod permit;
pub mod segments;
pub mod workflow;

// 2: ports and adapters
pub mod channels;
pub mod env;
pub mod limits;
pub mod log;
pub mod schema;
pub mod state;

// 3: programs
pub mod agents;

// 4: shells
pub mod engine;
pub mod projections;
pub mod replay;
pub mod stream;

// 5: edge
pub mod gateway;

// 6: root
pub mod app;
pub mod bench;
pub mod cli;
pub mod config;
