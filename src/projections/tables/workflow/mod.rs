//! `journal` to rows: runs, their open steps, effects, messages, approvals, arms, skipped entries, and counts per node and day.
//!
//! A batch's facts are folded in memory and each touched row is written once. What a fact moves is in memory if the run was seen lately,
//! else it is loaded from its rows, all that a batch lacks at once; a run that ended is forgotten. Read `told` (records), `run` and
//! `effect` (the fold), `out` and `counts` (what else comes of it), `rows` and `load` (to the database and back).

mod counts;
mod effect;
mod load;
mod out;
mod rows;
mod run;
mod told;

use rustc_hash::{FxHashMap, FxHashSet};

use self::effect::Effect;
use self::load::Lookups;
use self::out::Out;
use self::rows::{Active, Cells, Statements, Suppression};
use self::run::Run;
use self::told::Told;
use super::Who;
use crate::domain::{Digest, Offset, PartitionId};
use crate::projections::Error;
use crate::projections::bulk::Cell;
use crate::projections::store::Store;
use crate::schema::records::{JournalFact, JournalRecord};
use crate::workflow::{EffectId, RunId, address_left};

/// Runs kept in memory after a batch, in each of two generations. One takes about a kilobyte; who sleeps longer is loaded again.
const KEPT_MAX: usize = 8_192;

/// A place in the log as one number that rises with time: the partition in the low bits.
const PARTITION_BITS: u32 = 12;
const PARTITION_MASK: i64 = (1 << PARTITION_BITS) - 1;

/// Where in `journal` the record is that a row has its number from.
pub fn place_of(place: i64) -> (PartitionId, Offset) {
    (PartitionId((place & PARTITION_MASK) as u32), Offset((place >> PARTITION_BITS) as u64))
}

#[derive(Debug)]
pub struct Workflows {
    statements: Statements,
    lookups: Lookups,
    facts: Vec<Fact>,
    young: FxHashMap<RunId, Run>,
    old: FxHashMap<RunId, Run>,
    /// Definitions whose row is there.
    definitions: FxHashSet<i64>,
    cells: Cells,
    time: FxHashMap<u32, i64>,
}

#[derive(Debug)]
struct Fact {
    at: i64,
    place: i64,
    run: Option<RunId>,
    told: Told,
    /// Of those that begin something: whose it is.
    who: Option<Box<(String, String)>>,
}

/// An answer for an effect that is not in memory.
struct Stray {
    effect: EffectId,
    at: i64,
    outcome: String,
    result: Option<Box<serde_json::value::RawValue>>,
}

impl Workflows {
    pub fn new() -> Self {
        Self {
            statements: Statements::new(),
            lookups: Lookups::new(),
            facts: Vec::new(),
            young: FxHashMap::default(),
            old: FxHashMap::default(),
            definitions: FxHashSet::default(),
            cells: Cells::default(),
            time: FxHashMap::default(),
        }
    }

    /// Whether anything of the record becomes rows.
    pub fn add(&mut self, key: &[u8], record: &JournalRecord<'_>, partition: u32, offset: Offset) -> Result<bool, String> {
        match record {
            JournalRecord::Time(time) => {
                self.time.insert(partition, time.time);
                Ok(true)
            }
            JournalRecord::Activated(activated) if activated.kind == "workflow" => {
                let (tenant, workflow) = (activated.tenant.to_owned(), activated.name.to_owned());
                let definition = (!activated.digest.is_empty()).then(|| self.definition(workflow.clone(), activated.digest.to_owned()));
                self.cells.activated.push(Active { tenant, workflow, definition });
                Ok(true)
            }
            JournalRecord::Activated(_) => Ok(false),
            JournalRecord::Fact(fact) => self.add_fact(key, fact, partition, offset),
        }
    }

    fn add_fact(&mut self, key: &[u8], fact: &JournalFact<'_>, partition: u32, offset: Offset) -> Result<bool, String> {
        let told = Told::read(fact.body).map_err(|error| format!("not a fact: {error}"))?;
        // What somebody has is in `profiles`; what they had may be on the list.
        let told = if matches!(told, Told::AttributeSet { was: None, .. }) { Told::Nothing {} } else { told };
        let run = match fact.run {
            "" => None,
            run => Some(RunId::parse(run).ok_or_else(|| format!("{run:?} is no run id"))?),
        };
        let who = match told {
            Told::RunStarted { .. }
            | Told::RunSkipped { .. }
            | Told::AttributeSet { .. }
            | Told::Suppressed { .. }
            | Told::Unsuppressed { .. } => {
                let who = Who::parse(key).ok_or("its key is not tenant, zero byte, 'u:' or 'a:', id")?;
                Some(Box::new((who.tenant.to_owned(), who.subject.to_owned())))
            }
            _ => None,
        };
        let place = (offset.0 as i64) << PARTITION_BITS | i64::from(partition) & PARTITION_MASK;
        let is_row = run.is_some() || !matches!(told, Told::Nothing {});
        if is_row {
            self.facts.push(Fact { at: fact.at, place, run, told, who });
        }
        Ok(is_row)
    }

    pub async fn write(&mut self, store: &mut Store) -> Result<(), Error> {
        if self.facts.is_empty() && self.time.is_empty() && self.cells.activated.is_empty() {
            return Ok(());
        }
        self.load(store).await?;
        let (mut out, mut strays, mut touched) = (Out::default(), Vec::new(), Vec::new());
        for fact in std::mem::take(&mut self.facts) {
            self.fold(fact, &mut out, &mut strays, &mut touched);
        }
        touched.sort_unstable();
        for (_, id) in &touched {
            self.cells.add(&self.young[id]);
        }
        for effect in self.settled(store, strays).await? {
            self.cells.add_effect(&effect);
        }
        let mut times: Vec<_> = self.time.drain().collect();
        times.sort_unstable();
        self.cells.time.extend(times.into_iter().flat_map(|(partition, time)| [Cell::Int(i64::from(partition)), Cell::Int(time)]));
        self.statements.write(store, std::mem::take(&mut self.cells), out).await?;
        self.tidy(&touched);
        Ok(())
    }

    /// Brings the runs that this batch is about into the young generation.
    async fn load(&mut self, store: &mut Store) -> Result<(), Error> {
        let mut missing = FxHashSet::default();
        let mut begun = FxHashSet::default();
        for fact in &self.facts {
            let Some(id) = fact.run else { continue };
            if matches!(fact.told, Told::RunStarted { .. }) {
                begun.insert(id);
            }
            if self.young.contains_key(&id) || begun.contains(&id) {
                continue;
            }
            match self.old.remove(&id) {
                Some(run) => drop(self.young.insert(id, run)),
                None => drop(missing.insert(id)),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        for run in self.lookups.runs(store, missing.into_iter().collect()).await? {
            self.young.insert(run.id, run);
        }
        Ok(())
    }

    fn fold(&mut self, fact: Fact, out: &mut Out, strays: &mut Vec<Stray>, touched: &mut Vec<(i64, RunId)>) {
        let Fact { at, place, run, told, who } = fact;
        match told {
            Told::RunStarted { workflow, digest, key, cause, first, parent } => {
                let (Some(id), Some(who)) = (run, who) else { return };
                let definition = self.definition(workflow, digest);
                let parent = parent.map(|parent| (parent.subject, parent.run.to_string()));
                let mut run = Run::started(place, id, *who, definition, key, cause, parent, at);
                run.arrive(first, at, out);
                touched.push((place, id));
                self.young.insert(id, run);
            }
            Told::RunSkipped { workflow, cause, reason } => {
                let Some(who) = who else { return };
                let texts = [who.0, who.1, workflow, reason, cause].map(Cell::Text);
                self.cells.skips.extend([Cell::Int(place)].into_iter().chain(texts).chain([at.into()]));
            }
            Told::Suppressed { address, channel, reason, said, until, by } => {
                let Some(who) = who else { return };
                let address = [who.0, who.1, channel, address];
                self.cells.suppressions.push(Suppression { address, word: Some((reason, said, until, by)) });
            }
            Told::AttributeSet { name, value, was } => {
                let (Some(who), Some(address)) = (who, was.and_then(|was| address_left(&name, &was, &value))) else { return };
                let address = [who.0, who.1, String::new(), address.to_string()];
                self.cells.suppressions.push(Suppression { address, word: None });
            }
            Told::Unsuppressed { address, channel } => {
                let Some(who) = who else { return };
                let address = [who.0, who.1, channel, address];
                self.cells.suppressions.push(Suppression { address, word: None });
            }
            Told::EffectSettled { run, effect, outcome, result } => {
                let known = self.young.get_mut(&run).and_then(|run| run.effects.iter_mut().find(|known| known.id == effect));
                match known {
                    Some(known) => {
                        known.settle(at, &outcome, result.as_ref().map(|result| result.get()));
                        self.touch(run, touched);
                    }
                    None => strays.push(Stray { effect, at, outcome, result }),
                }
            }
            told => {
                let Some(id) = run else { return };
                self.touch(id, touched);
                if let Some(run) = self.young.get_mut(&id).filter(|run| run.ended.is_none()) {
                    run.fold(at, place, told, out);
                }
            }
        }
    }

    /// Notes that a run's rows are to be written, once.
    fn touch(&mut self, id: RunId, touched: &mut Vec<(i64, RunId)>) {
        if let Some(run) = self.young.get_mut(&id)
            && !std::mem::replace(&mut run.touched, true)
        {
            touched.push((run.place, id));
        }
    }

    /// A number that follows from the definition, so that any file has the same for it.
    fn definition(&mut self, workflow: String, digest: String) -> i64 {
        let hash = Digest::of(format!("{workflow}\0{digest}").as_bytes()).to_hex();
        let number = i64::from_str_radix(&hash[..12], 16).expect("a digest is hexadecimal");
        if self.definitions.insert(number) {
            self.cells.definitions.extend([Cell::Int(number), Cell::Text(workflow), Cell::Text(digest)]);
        }
        number
    }

    /// Answers that came late, put to the effects' own rows.
    async fn settled(&self, store: &mut Store, strays: Vec<Stray>) -> Result<Vec<Effect>, Error> {
        let mut effects: Vec<Effect> = Vec::new();
        for stray in strays {
            let at = match effects.iter().position(|effect| effect.id == stray.effect) {
                Some(at) => at,
                None => match self.lookups.effect(store, stray.effect).await? {
                    Some(effect) => {
                        effects.push(effect);
                        effects.len() - 1
                    }
                    None => continue,
                },
            };
            effects[at].settle(stray.at, &stray.outcome, stray.result.as_ref().map(|result| result.get()));
        }
        effects.sort_unstable_by_key(|effect| effect.place);
        Ok(effects)
    }

    /// Forgets what ended, and what was not seen for two generations.
    fn tidy(&mut self, touched: &[(i64, RunId)]) {
        for (_, id) in touched {
            let Some(run) = self.young.get_mut(id) else { continue };
            run.written();
            if run.ended.is_some() {
                self.young.remove(id);
            }
        }
        if self.young.len() > KEPT_MAX {
            self.old = std::mem::take(&mut self.young);
        }
    }
}
