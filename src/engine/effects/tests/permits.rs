//! Permits at the board: what is asked for can be sent in time, and what is not begun is given back.

use std::sync::Arc;

use super::promises::{ME, World, done, failed, world_with};
use super::words::{Effect, MAIL, ended, paused};
use crate::domain::{Namespace, Offset};
use crate::engine::effects::pending::{Pending, Standing};
use crate::engine::effects::schedule::Limits;
use crate::engine::effects::table::Tables;
use crate::permit::Executor;
use crate::state::MemoryStore;

/// Mails with their permits, at a destination that sends so many at once.
fn granted(at_once: u32, count: u128) -> (World, Vec<Effect>) {
    let mut world = world_with(Limits { concurrency: at_once, per_second: 0 });
    let mails: Vec<Effect> = (1..=count).map(|number| MAIL.of(number)).collect();
    for mail in &mails {
        world.minted(*mail).fact(*mail, mail.started(1, &ME.to_string())).fact(*mail, mail.granted(1, &ME.to_string()));
    }
    world.said();
    (world, mails)
}

/// A broadcast to a server that takes `took_ms` for each, where permits come a second after they were asked for: what was said of attempts.
fn broadcast(at_once: u32, count: u128, took_ms: u64) -> Vec<String> {
    let mut world = world_with(Limits { concurrency: at_once, per_second: 0 });
    for number in 1..=count {
        world.minted(MAIL.of(number));
    }
    let (mut said, mut asked, mut begun): (Vec<String>, Vec<(u64, Effect)>, Vec<u64>) = Default::default();
    while said.iter().filter(|what| what.starts_with("done")).count() < count as usize {
        assert!(world.now < 10_000_000, "{} of {count} after {} s: {said:?}", said.len(), world.now / 1_000);
        for what in world.go().said() {
            match what.strip_prefix("start ").and_then(|start| start.split_once(' ')) {
                Some((number, _)) => asked.push((world.now, MAIL.of(number.parse().unwrap()))),
                None => said.push(what),
            }
        }
        let (due, later): (Vec<_>, Vec<_>) = asked.iter().partition(|(at, _)| at + 1_000 <= world.now);
        asked = later;
        for (_, mail) in due {
            world.fact(mail, mail.started(1, &ME.to_string())).fact(mail, mail.granted(1, &ME.to_string()));
        }
        begun.resize(world.jobs.len(), world.now);
        while begun.first().is_some_and(|at| at + took_ms <= world.now) {
            begun.remove(0);
            world.answer(done());
            begun.resize(world.jobs.len(), world.now);
        }
        world.now += 100;
    }
    said
}

#[test]
fn a_broadcast_to_a_slow_server_loses_no_attempt() {
    for took_ms in [100, 2_000, 9_000] {
        let said = broadcast(4, 120, took_ms);
        assert!(said.iter().all(|what| what.starts_with("done")), "{took_ms} ms each: {said:?}");
    }
}

#[test]
fn a_permit_whose_turn_does_not_come_is_given_back_before_it_runs_out_and_frees_its_place() {
    let (mut world, _) = granted(1, 2);
    world.minted(MAIL.of(3));
    assert_eq!((world.performing(), world.said()), (vec![(1, 1)], vec![]), "two places: one that sends, one that waits");
    assert_eq!(world.board.next_due(), Some(45_000), "with a quarter of its minute left");
    world.now = 44_999;
    assert!(world.go().said().is_empty());
    world.now = 45_000;
    assert_eq!(world.go().said(), ["not begun 2 1", "start 3 1"]);
    world.answer(done());
    assert!(world.performing().is_empty(), "it is not sent after that");
}

#[test]
fn a_destination_that_begins_to_fail_is_sent_nothing_more_and_what_was_permitted_waits_as_no_attempt() {
    let (mut world, mails) = granted(3, 6);
    world.answer(failed()).answer(failed()).answer(failed());
    // The three that had come after them were begun before the third failed, or are given back.
    let said = world.said();
    assert!(said.iter().any(|what| what.starts_with("not begun")), "{said:?}");
    let begun = world.performing().len();
    for mail in &mails[3..] {
        world.fact(*mail, mail.void(1)).fact(*mail, mail.minted(2));
    }
    assert_eq!((world.performing().len(), world.said()), (begun, vec![]), "asked for again when it works again");
}

#[test]
fn a_permit_is_given_back_when_its_run_is_paused_its_step_cancelled_or_its_run_over() {
    for what in [paused(), ended(), MAIL.of(2).cancelled()] {
        let (mut world, mails) = granted(1, 2);
        world.fact(mails[1], what.clone());
        assert_eq!(world.said(), ["not begun 2 1"], "{what}");
        world.answer(done());
        assert!(world.performing().is_empty(), "{what}");
    }
}

#[test]
fn a_stop_gives_back_whatever_was_asked_for_and_not_begun() {
    let (mut world, _) = granted(1, 2);
    world.answer(done()).answer(done()).said();
    let (mail, ad) = (MAIL.of(8), super::words::AD.of(9));
    world.minted(mail).fact(mail, mail.started(1, &ME.to_string())).minted(ad);
    world.said();
    world.board.give_all_back(world.now);
    let mut said = world.go().said();
    said.sort();
    assert_eq!(said, ["not begun 8 1", "not begun 9 1"]);
    world.fact(mail, mail.granted(1, &ME.to_string()));
    assert!(world.performing().is_empty(), "nor is it begun after all");
}

#[test]
fn of_a_message_that_waited_with_its_permit_when_the_executor_was_killed_nobody_knows_whether_it_was_sent() {
    let (mut world, _) = granted(1, 2);
    let namespace = Namespace::new("shop").unwrap();
    let tables = Tables::new(Arc::new(MemoryStore::default()), &namespace, 1, crate::domain::Incarnation(0));
    let mut flushed = tables.collect(&mut world.board.pending, 0, Offset(9));
    tables.write(&mut flushed).unwrap();
    // Its turn comes after what is on disk was written.
    world.answer(done());
    assert_eq!(world.performing(), [(2, 1)]);
    let mut after = Pending::new(Executor([8; 16]));
    tables.load(0, &mut after).unwrap();
    let standings: Vec<Standing> = after.slots().map(|(_, entry)| entry.open.unwrap().standing).collect();
    assert_eq!(
        standings,
        [Standing::Orphaned { permitted: true }; 2],
        "it may have been sent: said to have failed, it would be sent twice"
    );
}

#[test]
fn what_gets_no_answer_to_its_start_makes_room_for_what_it_may_have_to_wait_for() {
    let mut world = world_with(Limits { concurrency: 1, per_second: 0 });
    let (first, second) = (super::words::AD.of(7), super::words::AD.of(5));
    world.minted(first).minted(second);
    assert_eq!(world.said(), ["start 7 1"]);
    world.now = 44_999;
    assert!(world.go().said().is_empty());
    world.now = 45_000;
    assert_eq!(world.go().said(), ["not begun 7 1", "start 5 1"]);
}

#[test]
fn who_asked_when_another_had_already_keeps_no_place_and_performs_what_is_minted_next() {
    let mut world = world_with(Limits { concurrency: 1, per_second: 0 });
    let ad = super::words::AD;
    world.minted(ad).said();
    // In event time a start of a life before may be decided after ours was handed in.
    world.fact(ad, ad.started(1, &Executor([8; 16]).to_string()));
    assert_eq!(world.said(), ["unknown 3 1"]);
    world.fact(ad, ad.unknown(1)).fact(ad, ad.looks_up(2));
    assert_eq!(world.performing(), [(3, 2)]);
}
