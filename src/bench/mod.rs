//! `flywheel bench`: what this build does on this machine, one JSON line per figure, each beside the floor measured in the same run.
//!
//! Every line says what was done about durability and under what setup. Loads stay on loopback, bounded in count and time.

mod floor;
mod load;
