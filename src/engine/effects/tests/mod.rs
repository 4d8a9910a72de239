//! What the executor promises, as scenes over the board (no threads, time passed in) and over a running one on a log in memory.

mod performing;
mod permits;
mod promises;
mod running;
mod words;
