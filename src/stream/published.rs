//! What people publish to a namespace: workflows and policies, of the whole namespace or of one tenant, and what files named at start say.
//!
//! A tenant's own is for the tenant's subjects only. A workflow's name is a tenant's or the namespace's, never both, so that whoever
//! starts `winback` need not say whose; a tenant's policy takes the place of the namespace's. A file named at start counts when it says
//! something else than it said last: what was published meanwhile outlives a restart.
//!
//! Leaves to the caller that nobody else publishes at the same time; how definitions are stored is in `definitions`.

use std::collections::{BTreeMap, BTreeSet};

use super::definitions::{KIND_POLICY, KIND_WORKFLOW, Stored, activation, each};
use super::in_use::keeps_purposes;
use super::{Error, Topics};
use crate::domain::{Digest, Millis, TenantId};
use crate::log::{LogReader, LogWriter};
use crate::schema::records::Definition;
use crate::workflow;

/// Who says what a file named at start says.
const BY_FILE: &str = "the file named at start";

/// A version of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub name: String,
    /// Canonical.
    pub text: String,
    /// What it is for, as its file said when it was published last.
    pub about: String,
    /// Who was given it; none: the whole namespace.
    pub of: BTreeSet<Option<TenantId>>,
}

/// Somebody's word that something is in force, or no more.
#[derive(Debug, Clone, Copy)]
pub struct Word<'w> {
    /// From when on, in the namespace's time.
    pub from: Millis,
    /// When it was said.
    pub at: Millis,
    /// Who says so; nobody where it is not known.
    pub by: &'w str,
}

/// Nobody's word, said when it is in force from.
impl From<Millis> for Word<'static> {
    fn from(from: Millis) -> Self {
        Self { from, at: from.max(Millis(0)), by: "" }
    }
}

/// Every workflow that a namespace was ever given, and which of each name takes new entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workflows {
    pub known: BTreeMap<Digest, Version>,
    /// By whose it is and its name.
    active: BTreeMap<(Option<TenantId>, String), Digest>,
}

impl Workflows {
    /// The version that takes new entries under this name and is this one's own.
    pub fn active(&self, of: Option<&TenantId>, name: &str) -> Option<Digest> {
        self.active.get(&(of.cloned(), name.to_owned())).copied()
    }

    /// Every version that takes new entries, with whose it is: those of the namespace, then each tenant's.
    pub fn all_active(&self) -> impl Iterator<Item = (Option<&TenantId>, Digest)> {
        self.active.iter().map(|((of, _), digest)| (of.as_ref(), *digest))
    }

    /// The version that a subject of this tenant would enter.
    pub fn entered_by(&self, tenant: &TenantId, name: &str) -> Option<Digest> {
        self.active(Some(tenant), name).or_else(|| self.active(None, name))
    }

    /// Who else's a name is, such that this one may not have it too.
    fn taken(&self, of: Option<&TenantId>, name: &str) -> Option<Option<TenantId>> {
        let other = |theirs: &Option<TenantId>| theirs.is_none() != of.is_none();
        self.active.keys().find(|(theirs, known)| known == name && other(theirs)).map(|(theirs, _)| theirs.clone())
    }
}

/// The workflows of a namespace, as its `definitions` say.
pub fn workflows(log: &dyn LogReader, topics: &Topics) -> Result<Workflows, Error> {
    let mut found = Workflows::default();
    each(log, topics, |Stored { kind, name, digest, body: text, tenant, about, .. }| {
        if kind != KIND_WORKFLOW {
            return;
        }
        let Some(digest) = digest else {
            found.active.remove(&(tenant, name));
            return;
        };
        let version =
            found.known.entry(digest).or_insert_with(|| Version { name: name.clone(), text, about: String::new(), of: BTreeSet::new() });
        version.about = about;
        version.of.insert(tenant.clone());
        found.active.insert((tenant, name), digest);
    })?;
    Ok(found)
}

/// Stores workflows and has new entries of the tenant's subjects, or of everyone's, go to them from `from` on, all in one append; says of
/// each whether they did not already. Runs in progress stay on the digest that they began under.
pub fn activate_workflows<'w, W: std::ops::Deref<Target = workflow::Definition>>(
    log: &dyn LogWriter,
    topics: &Topics,
    of: Option<&TenantId>,
    definitions: &[W],
    word: impl Into<Word<'w>>,
) -> Result<Vec<bool>, Error> {
    let word = word.into();
    let mut found = workflows(log, topics)?;
    let (mut are_new, mut new) = (Vec::new(), Vec::new());
    for workflow in definitions.iter().map(|workflow| &**workflow) {
        free(&found, of, &workflow.name)?;
        let is_new = found.active.insert((of.cloned(), workflow.name.clone()), workflow.digest) != Some(workflow.digest);
        are_new.push(is_new);
        if is_new {
            new.push((workflow, workflow.digest.to_hex()));
        }
    }
    if !new.is_empty() {
        let stored = new.iter().map(|(workflow, digest)| of_workflow(workflow, digest, of, word));
        log.append(activation(topics, &stored.collect::<Vec<_>>(), word.from)?)?.wait()?;
    }
    Ok(are_new)
}

/// The same for one of the whole namespace.
pub fn activate_workflow(log: &dyn LogWriter, topics: &Topics, workflow: &workflow::Definition, from: Millis) -> Result<bool, Error> {
    Ok(activate_workflows(log, topics, None, &[workflow], from)?.contains(&true))
}

/// A file named at start says what a workflow of the namespace is. True if it said something else before, or nothing: then new entries go
/// to it. Otherwise whatever was published since stays in force.
pub fn declare_workflow(log: &dyn LogWriter, topics: &Topics, workflow: &workflow::Definition, from: Millis) -> Result<bool, Error> {
    if declared(log, topics, KIND_WORKFLOW, &workflow.name)? == Some(workflow.digest) {
        return Ok(false);
    }
    free(&workflows(log, topics)?, None, &workflow.name)?;
    let digest = workflow.digest.to_hex();
    let stored = Definition { from_file: true, ..of_workflow(workflow, &digest, None, Word { by: BY_FILE, ..from.into() }) };
    log.append(activation(topics, &[stored], from)?)?.wait()?;
    Ok(true)
}

/// Has the tenant's, or the namespace's, workflow of this name take no new entries from `from` on; true if it took some before. Runs in
/// progress go on.
pub fn retire_workflow<'w>(
    log: &dyn LogWriter,
    topics: &Topics,
    of: Option<&TenantId>,
    name: &str,
    word: impl Into<Word<'w>>,
) -> Result<bool, Error> {
    let Word { from, at, by } = word.into();
    if workflows(log, topics)?.active(of, name).is_none() {
        return Ok(false);
    }
    let definition =
        Definition { kind: KIND_WORKFLOW, name, digest: "", body: "", tenant: text(of), from_file: false, about: "", at: at.0, by };
    log.append(activation(topics, &[definition], from)?)?.wait()?;
    Ok(true)
}

fn free(found: &Workflows, of: Option<&TenantId>, name: &str) -> Result<(), Error> {
    match found.taken(of, name) {
        None => Ok(()),
        Some(by) => Err(Error::NameTaken { name: name.to_owned(), by: by.map(|tenant| tenant.to_string()) }),
    }
}

fn of_workflow<'d>(workflow: &'d workflow::Definition, digest: &'d str, of: Option<&'d TenantId>, word: Word<'d>) -> Definition<'d> {
    let (name, body, about) = (workflow.name.as_str(), workflow.canonical.as_str(), workflow.about.as_str());
    Definition { kind: KIND_WORKFLOW, name, digest, body, tenant: text(of), from_file: false, about, at: word.at.0, by: word.by }
}

/// A policy as it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFound {
    pub digest: Digest,
    /// Canonical.
    pub text: String,
    /// Whose it is; none: of the whole namespace.
    pub of: Option<TenantId>,
    /// A file named at start says so.
    pub from_file: bool,
}

/// The policies in force, by whose they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies(BTreeMap<Option<TenantId>, PolicyFound>);

impl Policies {
    /// The one that holds for a tenant, or for everyone who has none of their own; none: the shipped one does.
    pub fn of(&self, tenant: Option<&TenantId>) -> Option<&PolicyFound> {
        self.0.get(&tenant.cloned()).or_else(|| self.0.get(&None))
    }
}

/// The policies of a namespace, as its `definitions` say.
pub fn policies(log: &dyn LogReader, topics: &Topics) -> Result<Policies, Error> {
    let mut found = BTreeMap::new();
    each(log, topics, |Stored { kind, digest, body: text, tenant: of, from_file, .. }| {
        if kind != KIND_POLICY {
            return;
        }
        match digest {
            None => drop(found.remove(&of)),
            Some(digest) => drop(found.insert(of.clone(), PolicyFound { digest, text, of, from_file })),
        }
    })?;
    Ok(Policies(found))
}

/// The one of them that holds for a tenant, or for everyone who has none of their own.
pub fn policy(log: &dyn LogReader, topics: &Topics, of: Option<&TenantId>) -> Result<Option<PolicyFound>, Error> {
    Ok(policies(log, topics)?.of(of).cloned())
}

/// Stores a policy and has everything of the tenant's, or of everyone's who has no own one, be decided by it from here on, unless it is so
/// already; true if it did. Refused if a workflow in force would lose a purpose by it.
pub fn activate_policy<'w>(
    log: &dyn LogWriter,
    topics: &Topics,
    of: Option<&TenantId>,
    policy: &workflow::Policy,
    word: impl Into<Word<'w>>,
) -> Result<bool, Error> {
    let word = word.into();
    let policies = policies(log, topics)?;
    let in_force = policies.of(of).filter(|found| found.of.as_ref() == of);
    if in_force.is_some_and(|found| found.digest == policy.digest) {
        return Ok(false);
    }
    keeps_purposes(&workflows(log, topics)?, &policies, of, Some(policy))?;
    let digest = policy.digest.to_hex();
    log.append(activation(topics, &[of_policy(policy, &digest, of, word)], word.from)?)?.wait()?;
    Ok(true)
}

/// Takes back the policy of a tenant's own, whose people are then decided about by the namespace's, or the namespace's, in whose place is the
/// shipped one; true if there was one. Refused if a workflow in force would lose a purpose by it.
pub fn retire_policy<'w>(log: &dyn LogWriter, topics: &Topics, of: Option<&TenantId>, word: impl Into<Word<'w>>) -> Result<bool, Error> {
    let Word { from, at, by } = word.into();
    let policies = policies(log, topics)?;
    if policies.of(of).is_none_or(|found| found.of.as_ref() != of) {
        return Ok(false);
    }
    keeps_purposes(&workflows(log, topics)?, &policies, of, None)?;
    let (kind, name) = (KIND_POLICY, KIND_POLICY);
    let definition = Definition { kind, name, digest: "", body: "", tenant: text(of), from_file: false, about: "", at: at.0, by };
    log.append(activation(topics, &[definition], from)?)?.wait()?;
    Ok(true)
}

/// A file named at start says what the namespace's policy is; as with [`declare_workflow`].
pub fn declare_policy(log: &dyn LogWriter, topics: &Topics, policy: &workflow::Policy, from: Millis) -> Result<bool, Error> {
    if declared(log, topics, KIND_POLICY, KIND_POLICY)? == Some(policy.digest) {
        return Ok(false);
    }
    keeps_purposes(&workflows(log, topics)?, &policies(log, topics)?, None, Some(policy))?;
    let digest = policy.digest.to_hex();
    let stored = Definition { from_file: true, ..of_policy(policy, &digest, None, Word { by: BY_FILE, ..from.into() }) };
    log.append(activation(topics, &[stored], from)?)?.wait()?;
    Ok(true)
}

fn of_policy<'d>(policy: &'d workflow::Policy, digest: &'d str, of: Option<&'d TenantId>, word: Word<'d>) -> Definition<'d> {
    let (kind, body, at) = (KIND_POLICY, policy.canonical.as_str(), word.at.0);
    Definition { kind, name: KIND_POLICY, digest, body, tenant: text(of), from_file: false, about: "", at, by: word.by }
}

/// What the file last said.
fn declared(log: &dyn LogReader, topics: &Topics, kind: &str, name: &str) -> Result<Option<Digest>, Error> {
    let mut last = None;
    each(log, topics, |stored| {
        if stored.from_file && stored.kind == kind && stored.name == name {
            last = stored.digest;
        }
    })?;
    Ok(last)
}

fn text(of: Option<&TenantId>) -> &str {
    of.map_or("", TenantId::as_str)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{Namespace, Offset};
    use crate::env::ManualClock;
    use crate::log::MemoryLog;
    use crate::schema;
    use crate::schema::records::EventsRecord;
    use crate::stream::{Partitions, Topic, segments_lacking};

    fn named(name: &str, wait: &str) -> workflow::Definition {
        let text = format!(
            "[workflow]\nname = \"{name}\"\n[workflow.entry]\ncommand = true\n\n[[node]]\nname = \"rest\"\nkind = \"delay\"\nwait = \"{wait}\"\nnext = \"over\"\n\n[[node]]\nname = \"over\"\nkind = \"exit\"\n"
        );
        workflow::Definition::parse("w.toml", &text).unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn permits(basis: &str) -> workflow::Policy {
        let text = format!("[[purpose]]\nname = \"marketing\"\nbasis = \"{basis}\"\n");
        workflow::Policy::parse("p.toml", &text).unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn empty() -> (MemoryLog, Topics) {
        let log = MemoryLog::new(Arc::new(ManualClock::at(Millis(0))));
        let topics = Topics::create(&log, &Namespace::new("main").unwrap(), Partitions { intake: 1, events: 3, inbox: 0 }).unwrap();
        (log, topics)
    }

    /// Whose, and the digest, of each that takes entries.
    fn active(log: &MemoryLog, topics: &Topics) -> Vec<(Option<TenantId>, Digest)> {
        workflows(log, topics).unwrap().all_active().map(|(of, digest)| (of.cloned(), digest)).collect()
    }

    #[test]
    fn a_published_workflow_is_in_force_until_another_of_its_name_or_its_retirement() {
        let (log, topics) = empty();
        let (first, second, other) = (named("a", "1d"), named("a", "2d"), named("b", "1d"));
        let publish = |workflows: &[&workflow::Definition]| activate_workflows(&log, &topics, None, workflows, Millis(5)).unwrap();
        assert_eq!(
            [publish(&[&first, &other]), publish(&[&first]), publish(&[&other, &second])],
            [[true, true].as_slice(), &[false], &[false, true]]
        );
        let found = workflows(&log, &topics).unwrap();
        assert_eq!(found.known.len(), 3);
        assert_eq!((&found.known[&first.digest].name, &found.known[&first.digest].text), (&first.name, &first.canonical));
        assert_eq!(active(&log, &topics), [(None, second.digest), (None, other.digest)]);
        assert_eq!(publish(&[&first]), [true], "an earlier one can come back");
        let retire = |name| retire_workflow(&log, &topics, None, name, Millis(6)).unwrap();
        assert_eq!([retire("a"), retire("a"), retire("never")], [true, false, false]);
        assert_eq!(active(&log, &topics), [(None, other.digest)]);
        for partition in topics.partitions(Topic::Events) {
            let fetched = log.fetch(partition, Offset(0), 1 << 20).unwrap();
            let digests = fetched.records().map(|record| match schema::decode(record.value.unwrap()).unwrap() {
                EventsRecord::Activated(activated) => activated.digest.len(),
                other => panic!("{other:?}"),
            });
            assert_eq!(digests.collect::<Vec<_>>(), [64, 64, 64, 64, 0], "each partition has heard of all of it");
        }
    }

    #[test]
    fn a_name_is_a_tenants_or_the_namespaces_and_never_both() {
        let (log, topics) = empty();
        let (acme, other) = (tenant("acme"), tenant("other"));
        let publish = |of: Option<&TenantId>, name: &str, wait: &str| {
            activate_workflows(&log, &topics, of, &[&named(name, wait)], Millis(5)).map(|are_new| are_new[0])
        };
        assert!(publish(Some(&acme), "a", "1d").unwrap() && publish(Some(&other), "a", "2d").unwrap());
        let found = workflows(&log, &topics).unwrap();
        assert_eq!(found.entered_by(&acme, "a"), Some(named("a", "1d").digest));
        assert_eq!(found.entered_by(&other, "a"), Some(named("a", "2d").digest));
        assert_eq!(found.entered_by(&tenant("third"), "a"), None);
        let refused = publish(None, "a", "3d").unwrap_err().to_string();
        assert!(refused.contains("tenant acme has a workflow a"), "{refused}");
        assert!(!retire_workflow(&log, &topics, None, "a", Millis(6)).unwrap(), "what is a tenant's is not the namespace's");
        for of in [&acme, &other] {
            assert!(retire_workflow(&log, &topics, Some(of), "a", Millis(6)).unwrap());
        }
        assert!(publish(None, "a", "3d").unwrap(), "the name is free again");
        let refused = publish(Some(&acme), "a", "1d").unwrap_err().to_string();
        assert!(refused.contains("the namespace has a workflow a"), "{refused}");
        assert!(!retire_workflow(&log, &topics, Some(&acme), "a", Millis(7)).unwrap());
        assert_eq!(workflows(&log, &topics).unwrap().entered_by(&acme, "a"), Some(named("a", "3d").digest));
    }

    #[test]
    fn a_file_counts_when_it_says_something_new_and_not_over_what_was_published_since() {
        let (log, topics) = empty();
        let (first, second, published) = (named("a", "1d"), named("a", "2d"), named("a", "9d"));
        let declare = |workflow| declare_workflow(&log, &topics, workflow, Millis(5)).unwrap();
        assert!(declare(&first) && !declare(&first));
        activate_workflow(&log, &topics, &published, Millis(6)).unwrap();
        assert!(!declare(&first), "the file is as it was");
        assert_eq!(active(&log, &topics), [(None, published.digest)]);
        assert!(declare(&second) && declare(&first), "each time it was changed, also back");
        assert_eq!(active(&log, &topics), [(None, first.digest)]);
        retire_workflow(&log, &topics, None, "a", Millis(7)).unwrap();
        assert!(!declare(&first));
        assert_eq!(active(&log, &topics), []);

        let (opt_in, opt_out) = (permits("opt_in"), permits("opt_out"));
        let declare = |policy| declare_policy(&log, &topics, policy, Millis(5)).unwrap();
        let in_force = || policy(&log, &topics, None).unwrap().map(|found| (found.digest, found.from_file));
        assert_eq!(in_force(), None);
        assert!(declare(&opt_in) && !declare(&opt_in));
        assert_eq!(in_force(), Some((opt_in.digest, true)));
        assert!(activate_policy(&log, &topics, None, &opt_out, Millis(6)).unwrap());
        assert!(!declare(&opt_in));
        assert_eq!(in_force(), Some((opt_out.digest, false)));
    }

    fn writes(name: &str, purpose: &str) -> workflow::Definition {
        let text = format!(
            "[workflow]\nname = \"{name}\"\n[workflow.entry]\nsegment = \"lapsed\"\n\n[[node]]\nname = \"send\"\nkind = \"effect\"\nchannel = \"email\"\n\
             purpose = \"{purpose}\"\ntimeout = \"1m\"\nnext = \"over\"\n\n[[node]]\nname = \"over\"\nkind = \"exit\"\n"
        );
        workflow::Definition::parse("w.toml", &text).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn a_policy_may_not_take_away_what_a_workflow_in_force_writes_for() {
        let (log, topics) = empty();
        let (acme, other) = (tenant("acme"), tenant("other"));
        // Of marketing alone; the shipped one has transactional too.
        let (narrow, wide) = (permits("opt_in"), workflow::Policy::shipped());
        let activate = |of: Option<&TenantId>, policy: &workflow::Policy| {
            activate_policy(&log, &topics, of, policy, Millis(5)).map_err(|error| error.to_string())
        };
        activate_workflows(&log, &topics, None, &[&writes("receipt", "Transactional"), &writes("news", "marketing")], Millis(5)).unwrap();
        for of in [None, Some(&acme)] {
            let refused = activate(of, &narrow).unwrap_err();
            assert!(refused.contains("`transactional` is used by node `send` of workflow receipt:"), "{refused}");
        }
        let refused = declare_policy(&log, &topics, &narrow, Millis(5)).unwrap_err().to_string();
        assert!(refused.contains("workflow receipt"), "{refused}");
        assert_eq!(policies(&log, &topics).unwrap(), Policies::default(), "nothing of it is in force");
        retire_workflow(&log, &topics, None, "receipt", Millis(6)).unwrap();
        assert!(activate(None, &narrow).unwrap(), "what takes nothing new needs nothing");

        // A tenant with a policy of its own goes by that one, and may not lose what it has more than everyone.
        assert!(activate(Some(&acme), &wide).unwrap());
        activate_workflows(&log, &topics, Some(&acme), &[&writes("receipt", "transactional")], Millis(7)).unwrap();
        let retired = retire_policy(&log, &topics, Some(&acme), Millis(8)).unwrap_err().to_string();
        assert!(retired.contains("workflow receipt of tenant acme"), "{retired}");
        let again = permits("opt_out");
        assert!(activate(None, &again).unwrap() && activate(Some(&other), &narrow).unwrap(), "which is nobody else's concern");
        retire_workflow(&log, &topics, Some(&acme), "receipt", Millis(9)).unwrap();
        assert!(retire_policy(&log, &topics, Some(&acme), Millis(9)).unwrap());
    }

    #[test]
    fn a_segment_that_a_topology_lacks_is_told_with_who_names_it() {
        let (log, topics) = empty();
        activate_workflows(&log, &topics, Some(&tenant("acme")), &[&writes("news", "marketing")], Millis(5)).unwrap();
        let found = workflows(&log, &topics).unwrap();
        assert_eq!(segments_lacking(&found, ["lapsing", "lapsed"]), []);
        let told = ("lapsed".to_owned(), "the entry of workflow news of tenant acme".to_owned());
        assert_eq!(segments_lacking(&found, ["lapsing"]), [told]);
    }

    #[test]
    fn a_tenants_policy_takes_the_place_of_the_namespaces_for_itself_only() {
        let (log, topics) = empty();
        let (acme, other) = (tenant("acme"), tenant("other"));
        let (opt_in, opt_out) = (permits("opt_in"), permits("opt_out"));
        let publish = |of, policy| activate_policy(&log, &topics, of, policy, Millis(5)).unwrap();
        let of = |tenant: &TenantId| policy(&log, &topics, Some(tenant)).unwrap().map(|found| (found.of, found.digest));
        assert!(publish(None, &opt_out));
        assert_eq!([of(&acme), of(&other)], [Some((None, opt_out.digest)), Some((None, opt_out.digest))]);
        assert!(publish(Some(&acme), &opt_in) && !publish(Some(&acme), &opt_in));
        assert_eq!([of(&acme), of(&other)], [Some((Some(acme.clone()), opt_in.digest)), Some((None, opt_out.digest))]);
        let retire = |of| retire_policy(&log, &topics, of, Millis(6)).unwrap();
        assert!(!retire(Some(&other)) && retire(Some(&acme)) && !retire(Some(&acme)));
        assert_eq!(of(&acme), Some((None, opt_out.digest)), "the namespace's decides again");
        assert!(retire(None) && !retire(None));
        assert_eq!(of(&acme), None, "the shipped one does");
    }
}
