//! One integration binary; each file is one contract or behaviour of the whole.

mod campaign_world;
mod campaigns;
mod command_line;
mod configuration;
mod crash;
mod digest;
mod effects;
mod features;
mod full_disk;
mod http_api;
mod http_campaigns;
mod http_conformance;
mod http_hostile;
mod http_mailed;
mod http_realtime;
mod http_registry;
mod http_support;
mod inbox;
mod inbox_avro;
mod inbox_world;
#[cfg(feature = "kafka")]
mod kafka_log;
mod late;
#[cfg(feature = "cluster")]
mod limits;
mod log_contract;
mod log_model;
mod log_sim;
mod place;
mod policies;
mod running;
mod seeds;
#[cfg(feature = "cluster")]
mod services;
mod spine;
mod spine_world;
#[cfg(feature = "cluster")]
mod state_cassandra;
mod state_contract;
mod stream_holes;
mod stream_identity;
mod stream_large;
mod stream_loop;
mod stream_poison;
mod stream_recovery;
mod stream_time;
mod stream_torn;
mod suppressions;
mod tidy;
mod topology;
mod workflow_crash;
mod workflow_entries;
mod workflow_logins;
mod workflow_names;
mod workflow_rounds;
mod workflow_rows;
mod workflow_sim;
mod workflow_tenants;
mod workflow_versions;
mod workflow_world;
mod workflows;
