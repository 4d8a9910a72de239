//! A namespace whose commands are decided: the real core over a log in memory, on a thread of its own, with what the gateway asks of a read
//! model answered from the facts themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flywheel::domain::{Millis, Namespace, Offset, PartitionId, Subject, SubjectKey, TenantId};
use flywheel::env::ManualClock;
use flywheel::gateway::{
    Access, ApprovalFound, ApprovalsAsked, Asking, Campaigns, Choice, Decided, EffectFound, InUse, NameTaken, Options, PolicyFound,
    Preference, Preview, Publishing, ReadError, RunFound, RunsAsked, RunsPage, Sources, WorkflowFound,
};
use flywheel::log::{BatchBuilder, Group, LogReader, LogWriter, MemoryLog, TopicPartition, Transaction};
use flywheel::schema;
use flywheel::schema::records::{CommandsRecord, JournalFact, JournalRecord};
use flywheel::stream::{self, Partitions, Topic, Topics};
use flywheel::workflow::{self, Definition, EffectId, Fact, Input, Library, RunId, Story, What};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::http_support::{self, NOW, Running, namespace};

const GROUP: &str = "main.workflow";

pub struct CampaignWorld {
    pub log: Arc<MemoryLog>,
    pub topics: Topics,
    pub state: Mutex<State>,
    pub preferences: Mutex<Vec<Preference>>,
    pub preview: Mutex<Option<Preview>>,
    /// While it is so, commands stay undecided.
    pub holds: AtomicBool,
    /// While it is so, the read model knows no run.
    pub behind: AtomicBool,
    /// How often it was asked for one meanwhile.
    pub asked: AtomicUsize,
    ended: AtomicBool,
}

#[derive(Default)]
pub struct State {
    pub now: Option<Millis>,
    library: Library,
    subjects: BTreeMap<Bytes, workflow::Subject>,
    pub facts: Vec<(SubjectKey, Fact)>,
    next: BTreeMap<u32, Offset>,
}

/// The pieces that stop the deciding when the test ends.
pub struct Deciding(pub Arc<CampaignWorld>, Option<std::thread::JoinHandle<()>>);

impl std::ops::Deref for Deciding {
    type Target = CampaignWorld;
    fn deref(&self) -> &CampaignWorld {
        &self.0
    }
}

impl Drop for Deciding {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.1.take() {
            thread.join().expect("the deciding thread");
        }
    }
}

pub async fn start() -> (Running, Deciding) {
    start_as(Options::default(), http_support::sources()).await
}

pub async fn start_as(options: Options, sources: Sources) -> (Running, Deciding) {
    let log = Arc::new(MemoryLog::new(Arc::new(ManualClock::at(NOW))));
    let topics = Topics::create(&*log, &namespace("main"), Partitions { intake: http_support::PARTITIONS, events: 3, inbox: 0 }).unwrap();
    let world = Arc::new(CampaignWorld {
        log: log.clone(),
        topics,
        state: Mutex::default(),
        preferences: Mutex::default(),
        preview: Mutex::default(),
        holds: AtomicBool::new(false),
        behind: AtomicBool::new(false),
        asked: AtomicUsize::new(0),
        ended: AtomicBool::new(false),
    });
    let decides = world.clone();
    let thread = std::thread::spawn(move || decides.decide_on());
    let running = http_support::start_with(options, sources, log, None, world.clone()).await;
    (running, Deciding(world, Some(thread)))
}

impl CampaignWorld {
    fn decide_on(&self) {
        let ownerships: Vec<_> =
            self.topics.partitions(Topic::Commands).map(|partition| self.log.acquire(&Group(GROUP.into()), partition).unwrap()).collect();
        while !self.ended.load(Ordering::Relaxed) {
            let positions: Vec<(TopicPartition, Offset)> = self
                .topics
                .partitions(Topic::Commands)
                .map(|partition| (partition, *self.state.lock().next.entry(partition.partition.0).or_default()))
                .collect();
            if self.holds.load(Ordering::Relaxed) || !self.log.wait(&positions, Duration::from_millis(20)).unwrap() {
                std::thread::yield_now();
                continue;
            }
            for ((partition, from), ownership) in positions.into_iter().zip(&ownerships) {
                self.decide(partition, from, ownership);
            }
        }
    }

    fn decide(&self, partition: TopicPartition, from: Offset, ownership: &flywheel::log::Ownership) {
        let fetched = self.log.fetch(partition, from, usize::MAX).unwrap();
        if fetched.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        let at = state.now.unwrap_or(NOW);
        state.library = self.library();
        let mut journal = BatchBuilder::new();
        for record in fetched.records() {
            let CommandsRecord::Command(command) = schema::decode(record.value.unwrap()).unwrap() else { continue };
            let input: Input = serde_json::from_str(command.body).unwrap();
            assert_eq!(command.kind, input.kind(), "the kind is the body's tag");
            let key = SubjectKey::from_bytes(Bytes::copy_from_slice(record.key)).unwrap();
            for fact in state.apply(&key, &input, at) {
                let (run, body) = fact.parts();
                let record = JournalRecord::Fact(JournalFact { at: fact.at.0, run: &run, body: &body });
                journal.push_with(key.as_bytes(), NOW, |out| schema::encode(&record, out)).unwrap();
                state.facts.push((key.clone(), fact));
            }
        }
        state.next.insert(partition.partition.0, fetched.next);
        let to = self.topics.partition(Topic::Journal, partition.partition);
        let batches = if journal.is_empty() { Vec::new() } else { vec![(to, journal.build())] };
        let committed = flywheel::log::Committed { offset: fetched.next, metadata: Bytes::new() };
        self.log.append(Transaction { batches, commits: vec![(ownership.clone(), committed)] }).unwrap().wait().unwrap();
    }

    fn library(&self) -> Library {
        let found = stream::workflows(&*self.log, &self.topics).unwrap();
        let mut library = Library::default();
        let parse = |version: &stream::Version| Arc::new(Definition::parse(&version.name, &version.text).unwrap());
        found.known.values().for_each(|version| library.add(parse(version)));
        for (of, digest) in found.all_active() {
            let definition = parse(&found.known[&digest]);
            assert_eq!(definition.digest, digest);
            match of {
                None => library.activate(definition),
                Some(tenant) => library.activate_for(tenant.as_str(), definition),
            }
        }
        library
    }

    /// Appends a command of this user, as others than the gateway do.
    pub fn tell(&self, user: &str, input: &Input) {
        let key = Subject::user(user).key(&flywheel::domain::TenantId::new("acme").unwrap());
        let body = serde_json::to_string(input).unwrap();
        let record = CommandsRecord::Command(flywheel::schema::records::Command { kind: input.kind(), at: None, depth: 0, body: &body });
        let mut batch = BatchBuilder::new();
        batch.push_with(key.as_bytes(), NOW, |out| schema::encode(&record, out)).unwrap();
        let partition = flywheel::domain::partition_of(key.as_bytes(), self.topics.count(Topic::Commands));
        let to = self.topics.partition(Topic::Commands, partition);
        let ticket = self.log.append(Transaction { batches: vec![(to, batch.build())], commits: Vec::new() }).unwrap();
        drop(ticket);
    }

    /// What has been told of this run, as lines.
    pub fn lines(&self, run: RunId) -> Vec<String> {
        let mut story = Story::default();
        let state = self.state.lock();
        state.facts.iter().filter(|(_, fact)| fact.run == Some(run)).map(|(_, fact)| story.line(fact)).collect()
    }

    fn runs(&self, of: &Access) -> Vec<RunFound> {
        let state = self.state.lock();
        let mut runs: BTreeMap<RunId, RunFound> = BTreeMap::new();
        for (key, fact) in state.facts.iter().filter(|(key, _)| key.tenant() == of.tenant) {
            let Some(run) = fact.run else { continue };
            if let What::RunStarted { workflow, .. } = &fact.what {
                let found =
                    RunFound { run, subject: key.subject(), workflow: workflow.clone(), is_paused: false, ended: None, json: Value::Null };
                runs.insert(run, found);
            }
            let Some(found) = runs.get_mut(&run) else { continue };
            match &fact.what {
                What::RunPaused { .. } => found.is_paused = true,
                What::RunResumed { .. } => found.is_paused = false,
                What::RunEnded { ending, .. } => found.ended = Some(format!("{} at {}", ending.as_str(), fact.at)),
                _ => {}
            }
            let status = if found.ended.is_some() {
                "ended"
            } else if found.is_paused {
                "paused"
            } else {
                "running"
            };
            found.json =
                json!({"run": run.to_string(), "workflow": found.workflow, "subject": found.subject.to_string(), "status": status});
        }
        runs.into_values().collect()
    }
}

impl State {
    fn apply(&mut self, key: &SubjectKey, input: &Input, at: Millis) -> Vec<Fact> {
        let subject = self.subjects.entry(key.bytes().clone()).or_default();
        let policy = workflow::Policy::shipped();
        let context = workflow::Context {
            subject: key.as_str(),
            library: &self.library,
            policy: &policy,
            clock: workflow::Clock::Wall,
            is_held: false,
            heard: Millis::MAX,
        };
        workflow::drive(subject, context, input, at).facts
    }
}

/// As the fold writes down what it has heard is in force.
fn heard(log: &MemoryLog, topics: &Topics, of: Option<&TenantId>, name: &str, digest: &str) {
    heard_of(log, topics, "workflow", of, name, digest);
}

fn heard_of(log: &MemoryLog, topics: &Topics, kind: &str, of: Option<&TenantId>, name: &str, digest: &str) {
    let tenant = of.map_or("", TenantId::as_str);
    let activated = JournalRecord::Activated(flywheel::schema::records::Activated { kind, name, digest, from: NOW.0, tenant });
    let batches = topics.partitions(Topic::Journal).map(|partition| {
        let mut batch = BatchBuilder::new();
        batch.push_with(b"", NOW, |out| schema::encode(&activated, out)).unwrap();
        (partition, batch.build())
    });
    log.append(Transaction { batches: batches.collect(), commits: Vec::new() }).unwrap().wait().unwrap();
}

fn now<'a, T: Send + 'a>(value: T) -> Asking<'a, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Campaigns for CampaignWorld {
    fn run<'a>(&'a self, of: &'a Access, run: RunId) -> Asking<'a, Option<RunFound>> {
        if self.behind.load(Ordering::Relaxed) {
            self.asked.fetch_add(1, Ordering::Relaxed);
            return now(None);
        }
        now(self.runs(of).into_iter().find(|found| found.run == run))
    }

    fn runs<'a>(&'a self, of: &'a Access, asked: &'a RunsAsked) -> Asking<'a, RunsPage> {
        let fits = |found: &RunFound| {
            asked.workflow.as_ref().is_none_or(|name| *name == found.workflow)
                && asked.status.as_ref().is_none_or(|status| found.json["status"] == **status)
                && asked.subject.as_ref().is_none_or(|subject| *subject == found.subject.to_string())
                && asked.after.as_ref().is_none_or(|after| found.run.to_string() > *after)
        };
        let mut runs: Vec<RunFound> = self.runs(of).into_iter().filter(fits).collect();
        let is_more = runs.len() > asked.limit as usize;
        runs.truncate(asked.limit as usize);
        let next = runs.last().filter(|_| is_more).map(|last| last.run.to_string());
        now(RunsPage { runs, next })
    }

    fn story<'a>(&'a self, _of: &'a Access, found: &'a RunFound, from: u64, limit: u32) -> Asking<'a, Vec<Value>> {
        let lines = self.lines(found.run).into_iter().skip(from as usize).take(limit as usize);
        now(lines.map(|line| json!({ "line": line })).collect())
    }

    fn approvals<'a>(&'a self, of: &'a Access, asked: &'a ApprovalsAsked) -> Asking<'a, Vec<ApprovalFound>> {
        let workflows: BTreeMap<RunId, String> = self.runs(of).into_iter().map(|found| (found.run, found.workflow)).collect();
        let state = self.state.lock();
        let mut approvals: Vec<ApprovalFound> = Vec::new();
        for (key, fact) in state.facts.iter().filter(|(key, _)| key.tenant() == of.tenant) {
            let Some(run) = fact.run else { continue };
            match &fact.what {
                What::ApprovalRequested { visit, node, who, shows, until, shown } => {
                    approvals.retain(|asked| (asked.run, asked.visit) != (run, *visit));
                    approvals.push(ApprovalFound {
                        run,
                        subject: key.subject(),
                        workflow: workflows[&run].clone(),
                        node: node.clone(),
                        visit: *visit,
                        who: who.clone(),
                        shows: shows.clone(),
                        shown: shown.clone(),
                        asked_at: fact.at,
                        until: *until,
                        decided: None,
                        cancelled: None,
                    });
                }
                What::ApprovalDecided { visit, approved, by, comment, provenance, .. } => {
                    let (by, link, comment) = (by.clone(), provenance.link.clone(), comment.clone());
                    let decided = Decided { approved: *approved, by, link, comment, at: fact.at };
                    for approval in approvals.iter_mut().filter(|approval| approval.run == run && approval.visit == *visit) {
                        approval.decided = Some(decided.clone());
                    }
                }
                What::StepCancelled { .. } | What::RunEnded { .. } | What::Redirected { .. } => {
                    let over = |asked: &&mut ApprovalFound| match &fact.what {
                        What::StepCancelled { visit, .. } => asked.visit == *visit,
                        _ => true,
                    };
                    let of_run = approvals.iter_mut().filter(|asked| asked.run == run && asked.is_open());
                    of_run.filter(over).for_each(|asked| asked.cancelled = Some(fact.at));
                }
                _ => {}
            }
        }
        approvals.retain(|approval| {
            asked.run.is_none_or(|run| run == approval.run)
                && asked.workflow.as_ref().is_none_or(|name| *name == approval.workflow)
                && (!asked.open_only || approval.is_open())
        });
        now(approvals)
    }

    fn is_projected<'a>(&'a self, _: &'a Access, _: PartitionId, _: Offset) -> Asking<'a, bool> {
        now(!self.behind.load(Ordering::Relaxed))
    }

    fn effect<'a>(&'a self, of: &'a Access, effect: EffectId) -> Asking<'a, Option<EffectFound>> {
        let state = self.state.lock();
        let to = state.facts.iter().find_map(|(_, fact)| match &fact.what {
            What::PermitGranted { effect: id, to, .. } if *id == effect => Some(to.clone()),
            _ => None,
        });
        let found = state.facts.iter().find_map(|(key, fact)| match &fact.what {
            What::EffectRequested { effect: id, target, .. } if *id == effect && key.tenant() == of.tenant => {
                Some(EffectFound { run: fact.run?, subject: key.subject(), target: target.clone(), to: to.clone() })
            }
            _ => None,
        });
        now(found)
    }

    fn workflows<'a>(&'a self, _: &'a Namespace, of: Option<&'a TenantId>) -> Asking<'a, Vec<WorkflowFound>> {
        let found = stream::workflows(&*self.log, &self.topics).unwrap();
        let mut shown = Vec::new();
        for (digest, version) in &found.known {
            for whose in version.of.iter().filter(|whose| whose.is_none() || of.is_none() || whose.as_ref() == of) {
                shown.push(WorkflowFound {
                    name: version.name.clone(),
                    digest: digest.to_hex(),
                    about: String::new(),
                    tenant: whose.as_ref().map(ToString::to_string),
                    is_active: found.active(whose.as_ref(), &version.name) == Some(*digest),
                    reads: Definition::parse(&version.name, &version.text).unwrap().profile,
                    when: Definition::parse(&version.name, &version.text).unwrap().entry.when.map(|when| when.text().to_owned()),
                });
            }
        }
        now(shown)
    }

    fn publish<'a>(&'a self, _: &'a Namespace, of: Option<&'a TenantId>, workflows: Vec<Arc<Definition>>, _: &'a str) -> Publishing<'a> {
        // The log in memory is durable at once: nothing blocks.
        let (log, topics, of) = (self.log.clone(), self.topics.clone(), of.cloned());
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || {
                let published = stream::activate_workflows(&*log, &topics, of.as_ref(), &workflows, NOW);
                let are_new = published.map_err(|taken| NameTaken(taken.to_string()))?;
                workflows.iter().for_each(|workflow| heard(&log, &topics, of.as_ref(), &workflow.name, &workflow.digest.to_hex()));
                Ok(are_new)
            });
            Ok(done.await.unwrap())
        })
    }

    fn retire<'a>(&'a self, _: &'a Namespace, of: Option<&'a TenantId>, name: &'a str, _: &'a str) -> Asking<'a, bool> {
        let (log, topics, of, name) = (self.log.clone(), self.topics.clone(), of.cloned(), name.to_owned());
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || {
                let was_active = stream::retire_workflow(&*log, &topics, of.as_ref(), &name, NOW).unwrap();
                heard(&log, &topics, of.as_ref(), &name, "");
                was_active
            });
            Ok(done.await.unwrap())
        })
    }

    fn policy<'a>(&'a self, _: &'a Namespace, of: Option<&'a TenantId>) -> Asking<'a, PolicyFound> {
        let found = stream::policy(&*self.log, &self.topics, of).unwrap();
        now(found.map_or_else(PolicyFound::shipped, |found| PolicyFound {
            digest: found.digest.to_hex(),
            text: found.text,
            tenant: found.of.map(|tenant| tenant.to_string()),
            is_shipped: false,
            from_file: found.from_file,
        }))
    }

    fn publish_policy<'a>(
        &'a self,
        _: &'a Namespace,
        of: Option<&'a TenantId>,
        policy: Arc<workflow::Policy>,
        _: &'a str,
    ) -> Asking<'a, Result<bool, InUse>> {
        let (log, topics, of) = (self.log.clone(), self.topics.clone(), of.cloned());
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || {
                let is_new = stream::activate_policy(&*log, &topics, of.as_ref(), &policy, NOW).unwrap();
                heard_of(&log, &topics, "policy", of.as_ref(), "policy", &policy.digest.to_hex());
                is_new
            });
            Ok(Ok(done.await.unwrap()))
        })
    }

    fn decided(&self, _: &Namespace, partition: PartitionId) -> Result<Offset, ReadError> {
        let committed = self.log.committed(&Group(GROUP.into()), self.topics.partition(Topic::Commands, partition)).unwrap();
        Ok(committed.map_or(Offset(0), |committed| committed.offset))
    }

    fn preferences<'a>(&'a self, _: &'a Access, _: &'a Subject, said: &'a [Choice]) -> Asking<'a, Vec<Preference>> {
        let mut known = self.preferences.lock().clone();
        for one in &mut known {
            let chosen = said.iter().find(|choice| (&choice.purpose, &choice.channel) == (&one.purpose, &one.channel));
            one.granted = chosen.map_or(one.granted, |choice| choice.granted);
        }
        now(known)
    }

    fn preview<'a>(&'a self, _: &'a Access, _: &'a ApprovalFound) -> Asking<'a, Option<Preview>> {
        now(self.preview.lock().clone())
    }
}
