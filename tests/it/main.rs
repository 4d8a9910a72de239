//! One integration binary; each file is one contract or behaviour of the whole.

mod command_line;
mod configuration;
mod crash;
mod digest;
mod features;
mod full_disk;
mod http_api;
mod http_conformance;
mod http_hostile;
mod http_support;
mod late;
mod log_contract;
mod log_model;
mod log_sim;
mod running;
mod spine;
mod spine_world;
mod state_contract;
mod stream_identity;
mod stream_large;
mod stream_loop;
mod stream_poison;
mod stream_recovery;
mod stream_time;
mod tidy;
mod topology;
