//! Who owns what: seats taken over by this process, and what stands in the way of taking one over.
//!
//! A seat is a (group, partition). Its owner claims it in the ledger under its transactional id. Whoever takes it over from an owner that
//! did not give it back claims it first and then begins a transaction epoch under that owner's id: the owner's open transaction ends there
//! and then, every later one under that epoch is refused by the broker, and before it begins another it reads the claims. In the other
//! order it could begin again between the two and go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::ConsumerGroupMetadata;

use super::client::{self, Complaints};
use super::ledger::{self, Claim, Ledger, Seat};
use super::member::Member;
use super::offsets::{Found, Offsets, Stored};
use super::plain::Plain;
use super::reader::{Physical, Reader};
use super::{Options, transactions};
use crate::log::{Error, Group, Ownership, RecordBatch, TopicPartition};

/// How long a stable offset is waited for before its owner is taken for dead.
const SETTLES: Duration = Duration::from_secs(1);

pub(super) struct Owners {
    options: Arc<Options>,
    complaints: Complaints,
    reader: Arc<Reader>,
    plain: Arc<Plain>,
    pub(super) offsets: Offsets,
    pub(super) ledger: Mutex<Ledger>,
    ledger_name: Arc<str>,
    held: Mutex<HashMap<(Group, TopicPartition), u64>>,
    members: Mutex<HashMap<Group, Arc<Member>>>,
    places: Mutex<HashMap<TopicPartition, Physical>>,
}

impl Owners {
    pub(super) fn new(options: &Arc<Options>, complaints: &Complaints, reader: &Arc<Reader>, plain: &Arc<Plain>) -> Self {
        Self {
            options: Arc::clone(options),
            complaints: complaints.clone(),
            reader: Arc::clone(reader),
            plain: Arc::clone(plain),
            offsets: Offsets::new(options, complaints),
            ledger: Mutex::default(),
            ledger_name: ledger::name(&options.prefix).into(),
            held: Mutex::default(),
            members: Mutex::default(),
            places: Mutex::default(),
        }
    }

    /// Reads the ledger's partition on to its end and looks at it.
    pub(super) fn look<T>(&self, partition: i32, look: impl FnOnce(&Ledger) -> T) -> Result<T, Error> {
        let mut ledger = self.ledger.lock();
        ledger.refresh(&self.reader, &self.ledger_name, partition)?;
        Ok(look(&ledger))
    }

    /// Writes a fact and waits until it is there.
    pub(super) fn state(&self, fact: RecordBatch) -> Result<(), Error> {
        self.state_all(vec![fact])
    }

    pub(super) fn state_all(&self, facts: Vec<RecordBatch>) -> Result<(), Error> {
        let of = Physical { topic: Arc::clone(&self.ledger_name), partition: ledger::FACTS };
        self.plain.append(facts.into_iter().map(|fact| (of.clone(), fact)).collect())?.wait().map(drop)
    }

    pub(super) fn complaints(&self) -> &Complaints {
        &self.complaints
    }

    pub(super) fn ledger_commits(&self) -> Physical {
        Physical { topic: Arc::clone(&self.ledger_name), partition: ledger::COMMITS }
    }

    pub(super) fn seat(&self, group: &Group, of: &Physical) -> Seat {
        Seat { group: format!("{}{}", self.options.prefix, group.0), topic: of.topic.to_string(), partition: of.partition as u32 }
    }

    /// What is committed, waited for while a transaction holds it.
    pub(super) fn committed(&self, seat: &Seat) -> Result<Option<Stored>, Error> {
        let deadline = Instant::now() + self.options.transaction_timeout + self.options.call_timeout;
        loop {
            match self.offsets.stored(seat, SETTLES)? {
                Found::Stored(stored) => return Ok(Some(stored)),
                Found::Nothing => return self.remembered(seat),
                Found::Unsettled if Instant::now() < deadline => {}
                Found::Unsettled => {
                    let context = format!("asking what {} committed of {}/{}", seat.group, seat.topic, seat.partition);
                    return Err(Error::Unavailable { context, message: "a transaction that holds it does not end".into() });
                }
            }
        }
    }

    /// What the ledger knows of an offset that the broker does not: it has forgotten it, or there never was one.
    fn remembered(&self, seat: &Seat) -> Result<Option<Stored>, Error> {
        let commit = self.look(ledger::COMMITS, |ledger| ledger.commits.get(seat).cloned())?;
        let Some(commit) = commit else { return Ok(None) };
        // It may have been committed between the two questions.
        match self.offsets.stored(seat, SETTLES)? {
            Found::Stored(stored) => return Ok(Some(stored)),
            Found::Unsettled => return Ok(Some(Stored { offset: commit.offset, metadata: commit.metadata(), nonce: commit.nonce })),
            Found::Nothing => {}
        }
        tracing::warn!(
            group = seat.group,
            topic = seat.topic,
            partition = seat.partition,
            "the broker has forgotten a committed offset; the ledger has it"
        );
        Ok(Some(Stored { offset: commit.offset, metadata: commit.metadata(), nonce: commit.nonce }))
    }

    /// The metadata that was too long for the broker.
    pub(super) fn long_metadata(&self, seat: &Seat, nonce: &str) -> Result<bytes::Bytes, Error> {
        let commit = self.look(ledger::COMMITS, |ledger| ledger.commits.get(seat).cloned())?;
        let metadata = commit.filter(|commit| commit.nonce == nonce).and_then(|commit| commit.metadata());
        metadata.ok_or_else(|| {
            Error::Corrupt(format!("the ledger lacks the metadata of {}'s offset in {}/{}", seat.group, seat.topic, seat.partition))
        })
    }

    /// Takes over (group, partition) from whoever had it.
    pub(super) fn acquire(&self, group: &Group, id: TopicPartition, of: &Physical) -> Result<Ownership, Error> {
        let seat = self.seat(group, of);
        let me = transactions::id(&self.options);
        let before = self.look(ledger::FACTS, |ledger| ledger.claims.get(&seat).cloned())?;
        let epoch = before.as_ref().map_or(0, |claim| claim.epoch) + 1;
        let mut ending = before.map_or_else(Vec::new, |claim| {
            let owner = (!claim.released).then_some(claim.owner);
            claim.ending.into_iter().chain(owner).collect()
        });
        // What this process had open under an earlier ownership is in the way no longer than a commit takes.
        ending.retain(|owner| *owner != me);
        if !ending.is_empty() {
            let claim = Claim { epoch, owner: me.clone(), ending: ending.clone(), released: false };
            self.state(ledger::claim(&seat, &claim))?;
            for owner in &ending {
                tracing::info!(
                    owner,
                    group = seat.group,
                    partition = seat.partition,
                    "taking over from an owner that did not give it back"
                );
                transactions::fence(&self.options, &self.complaints, owner)?;
            }
        }
        self.committed(&seat)?;
        self.state(ledger::claim(&seat, &Claim { epoch, owner: me, ending: Vec::new(), released: false }))?;
        self.places.lock().insert(id, of.clone());
        self.held.lock().insert((group.clone(), id), epoch);
        Ok(Ownership { group: group.clone(), partition: id, epoch })
    }

    pub(super) fn is_held(&self, ownership: &Ownership) -> bool {
        self.held.lock().get(&(ownership.group.clone(), ownership.partition)) == Some(&ownership.epoch)
    }

    /// Lets go of everything that others have claimed: to be asked before this process, fenced, begins to write again.
    pub(super) fn review(&self) -> Result<(), Error> {
        let held: Vec<((Group, TopicPartition), u64)> = self.held.lock().iter().map(|(place, epoch)| (place.clone(), *epoch)).collect();
        let me = transactions::id(&self.options);
        let mut lost = Vec::new();
        for (place, epoch) in held {
            let Some(of) = self.places.lock().get(&place.1).cloned() else { continue };
            let seat = self.seat(&place.0, &of);
            let claim = self.look(ledger::FACTS, |ledger| ledger.claims.get(&seat).cloned())?;
            if !claim.is_some_and(|claim| claim.epoch == epoch && claim.owner == me) {
                lost.push(place);
            }
        }
        let mut held = self.held.lock();
        held.retain(|place, _| !lost.contains(place));
        Ok(())
    }

    /// No longer ours, whatever is under way.
    pub(super) fn lose(&self, group: &Group, id: TopicPartition) {
        self.held.lock().remove(&(group.clone(), id));
    }

    /// Gives a seat back with nothing under way.
    pub(super) fn give_back(&self, group: &Group, id: TopicPartition, of: &Physical) -> Result<(), Error> {
        let Some(epoch) = self.held.lock().remove(&(group.clone(), id)) else { return Ok(()) };
        let claim = Claim { epoch, owner: transactions::id(&self.options), ending: Vec::new(), released: true };
        self.state(ledger::claim(&self.seat(group, of), &claim))
    }

    pub(super) fn joined(&self, group: &Group, member: &Arc<Member>) {
        self.members.lock().insert(group.clone(), Arc::clone(member));
    }

    pub(super) fn left(&self, group: &Group) {
        self.members.lock().remove(group);
    }

    /// How this process speaks for the group in a transaction.
    pub(super) fn metadata(&self, group: &Group) -> Result<ConsumerGroupMetadata, Error> {
        let member = self.members.lock().get(group).cloned();
        match member {
            Some(member) => member.metadata().ok_or_else(|| Error::Unavailable {
                context: format!("group {}", group.0),
                message: "this process is not a member at the moment".into(),
            }),
            None => self.offsets.outsider(&format!("{}{}", self.options.prefix, group.0)),
        }
    }

    pub(super) fn meaning(&self, doing: &str, error: &rdkafka::error::KafkaError) -> Error {
        client::meaning(doing, error, &self.complaints, &self.options)
    }
}
