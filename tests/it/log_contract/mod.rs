//! What every log promises, as one suite that runs on every adapter.
//!
//! A case is a function of a [`World`](world::World); an adapter says how to open and seal its log. A new backend joins by a line in
//! `suite!`; a promise that only one backend makes is tested beside that backend.

pub mod adapters;
mod cases;
pub mod world;

#[cfg(feature = "kafka")]
use adapters::Kafka;
use adapters::{Embedded, Memory};
use world::World;

macro_rules! suite {
    (adapters: { $($(#[$on:meta])? $adapter:ident: $new:expr,)+ } cases: $cases:tt) => {
        $($(#[$on])? suite!(@one $adapter, $new, $cases);)+
    };
    (@one $adapter:ident, $new:expr, [$($case:ident)+]) => {
        mod $adapter {
            use super::*;
            $(#[test]
            fn $case() {
                if let Some(adapter) = $new {
                    cases::$case(&mut World::new(Box::new(adapter)));
                }
            })+
        }
    };
}

suite! {
    adapters: {
        memory: Some(Memory::default()),
        embedded_on_disk: Some(Embedded::on_disk()),
        embedded_simulated: Some(Embedded::simulated()),
        #[cfg(feature = "kafka")]
        kafka: Kafka::new(),
    }
    cases: [
        offsets_rise_by_one_in_the_order_of_appends
        a_batch_of_several_partitions_becomes_visible_as_one
        a_transaction_with_one_bad_part_leaves_nothing
        several_batches_of_one_partition_follow_each_other
        an_empty_transaction_is_taken
        keys_and_values_are_any_bytes
        headers_come_back_as_they_were_sent
        appends_of_many_threads_keep_each_threads_order
        a_ticket_can_be_awaited
        a_commit_is_found_with_its_metadata
        outputs_and_offset_are_committed_together
        a_stale_owner_is_fenced_with_all_it_brought
        owners_of_other_groups_and_partitions_are_not_fenced
        an_ownership_ends_with_its_process
        fencing_outlives_a_restart
        a_fetch_at_the_end_is_empty
        a_fetch_starts_within_a_batch
        a_fetch_keeps_to_its_limit_and_always_moves
        waiting_ends_with_the_first_record_or_the_time
        what_is_too_large_is_refused
        a_topic_is_created_once_and_found_again
        a_topic_that_disagrees_is_refused
        a_topic_created_again_is_kept_as_long_as_is_asked_last
        what_does_not_exist_is_refused
        everything_is_there_after_reopening
    ]
}

// What time has passed and what is compacted away is the broker's to say on Kafka, and an append without offsets is several there:
// `kafka_log` has its own cases of these.
suite! {
    adapters: {
        memory_timed: Some(Memory::default()),
        embedded_on_disk_timed: Some(Embedded::on_disk()),
        embedded_simulated_timed: Some(Embedded::simulated()),
    }
    cases: [
        partitions_take_the_transactions_of_many_threads_in_one_order
        a_fetch_outside_of_the_partition_is_refused
        retention_drops_what_is_old_and_read
        a_time_is_found_as_an_offset
        append_time_never_goes_back
        retention_waits_for_every_group
        retention_stops_at_a_pin
        compaction_keeps_the_newest_of_every_key
        compaction_removes_keys_without_a_value
        compaction_waits_for_every_group_and_pin
    ]
}
