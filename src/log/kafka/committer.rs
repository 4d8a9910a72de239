//! Consume, process, produce as one: a thread that writes what the loops of this process hand in, with their offsets, in transactions.
//!
//! While one transaction commits, what comes meanwhile gathers for the next, so that many loops cost one transaction. Its outcome is always
//! known in the end: a commit that failed half-way is looked up by the nonce that it left with its offsets. Fencing is the broker's, by the
//! group's generation and by the producer's epoch; nothing of a stale owner is written past the check here either.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::oneshot;

use super::client::{self, Complaints};
use super::delivery::{self, Append, Part, Reports};
use super::ledger::{self, Commit};
use super::owners::Owners;
use super::raw::Topic;
use super::reader::{Physical, Reader};
use super::{Options, offsets, transactions};
use crate::domain::Millis;
use crate::log::{Advice, Appended, Committed, Error, Group, Ownership, RecordBatch, Ticket, TopicPartition};

/// What one transaction gathers at most, beside its first part.
const BYTES_MAX: usize = 64 << 20;
const PARTS_MAX: usize = 256;
/// Between looks at what is still being sent: `flush` would look every 100 ms.
const SENDING_POLL: Duration = Duration::from_millis(1);
/// Between attempts to find out what became of a transaction.
const LOOK_UP_PAUSE: Duration = Duration::from_millis(200);

/// What a loop hands in.
pub(super) struct Job {
    pub(super) batches: Vec<(Physical, RecordBatch)>,
    pub(super) commits: Vec<(Ownership, Physical, Committed)>,
    pub(super) reply: oneshot::Sender<Result<Appended, Error>>,
}

impl Job {
    fn bytes(&self) -> usize {
        self.batches.iter().map(|(_, batch)| batch.data().len()).sum()
    }
}

pub(super) struct Committer {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    is_closing: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Committer {
    pub(super) fn new(options: &Arc<Options>, complaints: &Complaints, owners: &Arc<Owners>, reader: &Arc<Reader>) -> Self {
        let (sender, receiver) = mpsc::channel();
        let mut writer = Writer {
            options: Arc::clone(options),
            complaints: complaints.clone(),
            owners: Arc::clone(owners),
            reader: Arc::clone(reader),
            producer: None,
            topics: HashMap::new(),
            is_closing: Arc::default(),
        };
        let is_closing = Arc::clone(&writer.is_closing);
        let thread = std::thread::Builder::new().name("kafka-commits".into()).spawn(move || writer.run(&receiver));
        Self { jobs: Mutex::new(Some(sender)), is_closing, thread: Mutex::new(Some(thread.expect("the system has room for a thread"))) }
    }

    pub(super) fn hand_in(
        &self,
        batches: Vec<(Physical, RecordBatch)>,
        commits: Vec<(Ownership, Physical, Committed)>,
    ) -> Result<Ticket, Error> {
        let (reply, ticket) = Ticket::new();
        let jobs = self.jobs.lock();
        let jobs = jobs.as_ref().ok_or(Error::Closed)?;
        jobs.send(Job { batches, commits, reply }).map_err(|_| Error::Closed)?;
        Ok(ticket)
    }

    /// What was handed in is still written, if the brokers answer.
    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.jobs.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            // Its panic was logged; there is nothing to add to it here.
            let _ = thread.join();
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.close();
    }
}

/// Why a transaction did not become.
enum Failed {
    /// Nothing of it is visible, and it was ended: the parts may be handed in again.
    Aborted(Error),
    /// The same, because this group no longer takes this process for a member as it was.
    Refused(Group, Error),
    /// It may be visible or not: to be looked up.
    Unknown(Error),
}

struct Writer {
    options: Arc<Options>,
    complaints: Complaints,
    owners: Arc<Owners>,
    reader: Arc<Reader>,
    producer: Option<Arc<BaseProducer<Reports>>>,
    topics: HashMap<Arc<str>, Topic<Reports>>,
    is_closing: Arc<AtomicBool>,
}

impl Writer {
    fn run(&mut self, jobs: &mpsc::Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut bytes = first.bytes();
            let mut gathered = vec![first];
            while bytes < BYTES_MAX
                && gathered.len() < PARTS_MAX
                && let Ok(next) = jobs.try_recv()
            {
                bytes += next.bytes();
                gathered.push(next);
            }
            self.write(gathered);
        }
    }

    /// Writes what it can of them as one transaction; each is told what came of it.
    fn write(&mut self, mut jobs: Vec<Job>) {
        while !jobs.is_empty() {
            jobs = self.without_stale(jobs);
            if jobs.is_empty() {
                return;
            }
            let nonce = uuid::Uuid::new_v4().simple().to_string();
            match self.attempt(&jobs, &nonce) {
                Ok(appended) => {
                    for (job, appended) in jobs.drain(..).zip(appended) {
                        tell(job, Ok(appended));
                    }
                }
                Err(Failed::Aborted(error)) => jobs.drain(..).for_each(|job| tell(job, Err(error.clone()))),
                Err(Failed::Refused(group, error)) => {
                    let (of_group, others): (Vec<Job>, Vec<Job>) =
                        jobs.into_iter().partition(|job| job.commits.iter().any(|(owner, ..)| owner.group == group));
                    of_group.into_iter().for_each(|job| tell(job, Err(error.clone())));
                    jobs = others;
                }
                Err(Failed::Unknown(error)) => {
                    tracing::warn!(%error, "a transaction's outcome is unknown; looking it up");
                    self.look_up(std::mem::take(&mut jobs), &nonce, &error);
                }
            }
        }
    }

    /// Tells those whose owner was replaced, here or by the group.
    fn without_stale(&self, jobs: Vec<Job>) -> Vec<Job> {
        let stale = |job: &Job| job.commits.iter().map(|(owner, ..)| owner).find(|owner| !self.owners.is_held(owner)).cloned();
        let mut good = Vec::with_capacity(jobs.len());
        for job in jobs {
            match stale(&job) {
                Some(owner) => tell(job, Err(Error::Fenced(owner.partition))),
                None => good.push(job),
            }
        }
        good
    }

    fn attempt(&mut self, jobs: &[Job], nonce: &str) -> Result<Vec<Appended>, Failed> {
        let producer = self.producer().map_err(Failed::Aborted)?;
        if let Some(owner) = jobs.iter().flat_map(|job| &job.commits).map(|(owner, ..)| owner).find(|owner| !self.owners.is_held(owner)) {
            let lost = Error::Unavailable { context: format!("committing for {}", owner.group.0), message: "it was taken over".into() };
            return Err(Failed::Refused(owner.group.clone(), lost));
        }
        if let Err(error) = producer.begin_transaction() {
            return Err(self.ended(&producer, "beginning a transaction", &error));
        }
        let reports = match self.send(&producer, jobs, nonce) {
            Ok(reports) => reports,
            Err(error) => return Err(Failed::Aborted(self.abort(&producer, error))),
        };
        if let Err((group, error)) = self.send_offsets(&producer, jobs, nonce) {
            let is_refusal = matches!(
                error.rdkafka_error_code(),
                Some(Code::IllegalGeneration | Code::UnknownMemberId | Code::FencedInstanceId | Code::RebalanceInProgress)
            );
            let meaning = match error.rdkafka_error_code() {
                Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch) => {
                    return Err(self.ended(&producer, "committing offsets", &error));
                }
                _ if is_refusal => Error::Unavailable {
                    context: format!("committing for {}", group.0),
                    message: "the group is changing hands, or took this process for dead".into(),
                },
                _ => self.owners.meaning("committing offsets", &error),
            };
            let meaning = self.abort(&producer, meaning);
            return Err(if is_refusal { Failed::Refused(group, meaning) } else { Failed::Aborted(meaning) });
        }
        self.commit(&producer)?;
        let done = reports.iter().zip(jobs).map(|(append, job)| {
            for ((of, _), end) in job.batches.iter().zip(append.ends()) {
                self.reader.appended(of, end);
            }
            append.appended()
        });
        Ok(done.collect())
    }

    fn producer(&mut self) -> Result<Arc<BaseProducer<Reports>>, Error> {
        if let Some(producer) = &self.producer {
            return Ok(Arc::clone(producer));
        }
        let producer = transactions::producer(&self.options, &self.complaints, &transactions::id(&self.options))?;
        // Whoever fenced the one of before has claimed what it took.
        self.owners.review()?;
        self.producer = Some(Arc::clone(&producer));
        Ok(producer)
    }

    fn forget_producer(&mut self) {
        self.topics.clear();
        self.producer = None;
    }

    /// Hands in all records, the ledger's with them, and sees them acknowledged.
    fn send(&mut self, producer: &Arc<BaseProducer<Reports>>, jobs: &[Job], nonce: &str) -> Result<Vec<Arc<Append>>, Error> {
        let reports: Vec<Arc<Append>> = jobs
            .iter()
            .map(|job| {
                let records = job.batches.iter().map(|(_, batch)| batch.len()).sum::<usize>();
                Append::new(records + 1, job.batches.len(), |_| {})
            })
            .collect();
        for (job, append) in jobs.iter().zip(&reports) {
            for (at, (of, batch)) in job.batches.iter().enumerate() {
                self.hand_in(producer, of, batch, &append.part(at))?;
            }
        }
        let in_ledger = self.owners.ledger_commits();
        let of_ledger = Append::new(usize::MAX, 1, |_| {});
        for (owner, of, committed) in jobs.iter().flat_map(|job| &job.commits) {
            let commit = Commit::new(committed.offset, nonce, &committed.metadata);
            let record = ledger::commit(&self.owners.seat(&owner.group, of), &commit);
            self.hand_in(producer, &in_ledger, &record, &of_ledger.part(0))?;
        }
        let deadline = Instant::now() + self.options.transaction_timeout;
        while producer.in_flight_count() > 0 {
            producer.poll(SENDING_POLL);
            if Instant::now() >= deadline {
                let context = "writing a transaction".to_owned();
                return Err(Error::Unavailable { context, message: "it was not acknowledged within kafka.transaction_timeout_ms".into() });
            }
        }
        producer.poll(Duration::ZERO);
        let failure = reports.iter().chain([&of_ledger]).find_map(|append| append.failure());
        match failure {
            Some(Code::MessageSizeTooLarge) => Err(Error::TooLarge { bytes: super::MESSAGE_BYTES_MAX + 1, max: super::MESSAGE_BYTES_MAX }),
            Some(code) => Err(self.owners.meaning("writing a transaction", &KafkaError::MessageProduction(code))),
            None => Ok(reports),
        }
    }

    fn hand_in(
        &mut self,
        producer: &Arc<BaseProducer<Reports>>,
        of: &Physical,
        batch: &RecordBatch,
        part: &Arc<Part>,
    ) -> Result<(), Error> {
        if !self.topics.contains_key(&of.topic) {
            let topic = Topic::new(producer, &of.topic).ok_or_else(|| Error::UnknownTopic(of.topic.to_string()))?;
            self.topics.insert(Arc::clone(&of.topic), topic);
        }
        let topic = &self.topics[&of.topic];
        let deadline = Instant::now() + self.options.transaction_timeout;
        for record in batch {
            let opaque = delivery::opaque(part);
            loop {
                match topic.produce(of.partition, &record, opaque) {
                    Ok(()) => break,
                    Err(Code::QueueFull) if Instant::now() < deadline => producer.poll(SENDING_POLL),
                    Err(code) => {
                        delivery::taken_back(opaque);
                        return Err(self.owners.meaning("writing a transaction", &KafkaError::MessageProduction(code)));
                    }
                }
            }
        }
        Ok(())
    }

    fn send_offsets(&self, producer: &BaseProducer<Reports>, jobs: &[Job], nonce: &str) -> Result<(), (Group, KafkaError)> {
        let mut groups: BTreeMap<&Group, Vec<(&Physical, &Committed, &Ownership)>> = BTreeMap::new();
        for (owner, of, committed) in jobs.iter().flat_map(|job| &job.commits) {
            groups.entry(&owner.group).or_default().push((of, committed, owner));
        }
        for (group, commits) in groups {
            let refused = |error| (group.clone(), error);
            let not_now = || KafkaError::Global(Code::RebalanceInProgress);
            // In this order: an owner that was lost after the metadata was taken is refused by the broker, one before it here.
            let metadata = self.owners.metadata(group).map_err(|_| refused(not_now()))?;
            if commits.iter().any(|(.., owner)| !self.owners.is_held(owner)) {
                return Err(refused(not_now()));
            }
            let mut list = TopicPartitionList::new();
            for (of, committed, _) in commits {
                let mut element = list.add_partition(&of.topic, of.partition);
                element.set_offset(KafkaOffset::Offset(committed.offset.0 as i64)).map_err(refused)?;
                element.set_metadata(offsets::text(nonce, &committed.metadata));
            }
            producer.send_offsets_to_transaction(&list, &metadata, self.options.call_timeout).map_err(refused)?;
        }
        Ok(())
    }

    fn commit(&mut self, producer: &Arc<BaseProducer<Reports>>) -> Result<(), Failed> {
        let deadline = Instant::now() + self.options.transaction_timeout;
        loop {
            let Err(error) = producer.commit_transaction(self.options.call_timeout) else { return Ok(()) };
            let (requires_abort, may_go_on) = match &error {
                KafkaError::Transaction(error) => (error.txn_requires_abort(), error.is_retriable()),
                _ => (false, false),
            };
            if requires_abort {
                let meaning = self.owners.meaning("committing a transaction", &error);
                return Err(Failed::Aborted(self.abort(producer, meaning)));
            }
            // A call that ran out of time may be called again and goes on where it was.
            if !(may_go_on && Instant::now() < deadline) {
                let meaning = self.owners.meaning("committing a transaction", &error);
                self.forget_producer();
                return Err(Failed::Unknown(meaning));
            }
        }
    }

    /// Ends the transaction with nothing visible; where even that fails the next producer does it.
    fn abort(&mut self, producer: &Arc<BaseProducer<Reports>>, why: Error) -> Error {
        if let Err(error) = producer.abort_transaction(self.options.call_timeout) {
            tracing::debug!(%error, "a transaction could not be aborted; the next producer ends it");
            self.forget_producer();
        }
        why
    }

    /// This producer is of no more use, perhaps because another process took over under its id.
    fn ended(&mut self, _producer: &Arc<BaseProducer<Reports>>, doing: &str, error: &KafkaError) -> Failed {
        let meaning = self.owners.meaning(doing, error);
        self.forget_producer();
        Failed::Unknown(meaning)
    }

    /// Finds out which of them became visible, however long the brokers are away: a loop that handed in the same again could double it.
    fn look_up(&mut self, jobs: Vec<Job>, nonce: &str, why: &Error) {
        // A new producer first, so that none becomes visible later.
        if let Err(error) = self.insist(|writer| writer.producer().map(drop)) {
            let unknown = Error::OutcomeUnknown(format!("{why}; then {error}"));
            return jobs.into_iter().for_each(|job| tell(job, Err(unknown.clone())));
        }
        for job in jobs {
            let outcome = match self.insist(|writer| writer.became(&job, nonce)) {
                Ok(Became::Visible) => Ok(Appended { first_offsets: Vec::new(), append_time: Millis(0) }),
                Ok(Became::Nothing) => Err(Error::Unavailable { context: "committing a transaction".into(), message: why.to_string() }),
                Ok(Became::Anothers(partition)) => Err(Error::Fenced(partition)),
                Err(error) => Err(Error::OutcomeUnknown(format!("{why}; then {error}"))),
            };
            tell(job, outcome);
        }
    }

    fn insist<T>(&mut self, mut attempt: impl FnMut(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        loop {
            match attempt(self) {
                Err(error) if error.advice() == Advice::Retry && !self.is_closing.load(Ordering::Acquire) => {
                    tracing::debug!(%error, "still asking");
                    client::pause(LOOK_UP_PAUSE);
                }
                outcome => return outcome,
            }
        }
    }

    fn became(&self, job: &Job, nonce: &str) -> Result<Became, Error> {
        for (owner, of, _) in &job.commits {
            let stored = self.owners.committed(&self.owners.seat(&owner.group, of))?;
            if stored.is_some_and(|stored| stored.nonce == nonce) {
                return Ok(Became::Visible);
            }
            if !self.owners.is_held(owner) {
                return Ok(Became::Anothers(owner.partition));
            }
        }
        Ok(Became::Nothing)
    }
}

enum Became {
    Visible,
    Nothing,
    /// Another process has taken the partition over.
    Anothers(TopicPartition),
}

fn tell(job: Job, outcome: Result<Appended, Error>) {
    // Whoever handed it in may have gone.
    let _ = job.reply.send(outcome);
}
