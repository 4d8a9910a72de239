//! What became of a command: appended by the edge, decided by the fold a moment later, told from the facts that followed it in the journal.
//!
//! The judgement is a pure function of the command and those facts. So two clicks, two people, or a click after the deadline give one
//! decision, and whoever was not the one hears who was.

use serde_json::{Value, json};

use crate::domain::Millis;
use crate::workflow::{EffectId, Ending, Fact, RunId, Skipped, Story, Visit, What};

/// What was asked of a run, as far as its outcome is to be recognised.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::gateway) enum Asked {
    Start { cause: String },
    Signal { cause: String },
    Approval { node: String, visit: Option<Visit>, cause: String },
    Pause { by: String },
    Resume { by: String },
    Cancel,
    Terminate,
    Retry,
    Resolve { effect: EffectId },
}

/// What the journal says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) enum Became {
    /// It was done; the word for it.
    Done(&'static str),
    /// Somebody or something was first.
    Refused { code: &'static str, message: String },
    /// Nothing in these facts comes of it.
    Nothing,
}

pub(in crate::gateway) fn judge(asked: &Asked, run: RunId, facts: &[Fact]) -> Became {
    let mut ended = None;
    for fact in facts {
        if let Some(became) = by_fact(asked, run, fact) {
            return became;
        }
        if let (Some(of), What::RunEnded { ending, outcome, .. }) = (fact.run, &fact.what)
            && of == run
        {
            ended = Some(how_ended(*ending, outcome, fact.at));
        }
    }
    match ended {
        Some(how) => Became::Refused { code: "run_ended", message: format!("the run has ended: {how}") },
        None => Became::Nothing,
    }
}

fn by_fact(asked: &Asked, run: RunId, fact: &Fact) -> Option<Became> {
    let done = |word| Some(Became::Done(word));
    let refused = |code, message| Some(Became::Refused { code, message });
    if let (Asked::Start { cause }, What::RunSkipped { cause: skipped, reason, workflow, .. }) = (asked, &fact.what)
        && cause == skipped
    {
        return match reason {
            Skipped::AlreadyStarted => done("already_started"),
            reason => refused("not_started", format!("{workflow} did not start: {}", why_skipped(*reason))),
        };
    }
    if let (Asked::Start { cause }, What::BroadcastBegun { cause: begun, .. }) = (asked, &fact.what)
        && cause == begun
    {
        return done("broadcast");
    }
    if let (Asked::Resolve { effect }, What::EffectSettled { effect: settled, .. }) = (asked, &fact.what)
        && effect == settled
    {
        return done("settled");
    }
    if fact.run != Some(run) {
        return None;
    }
    match (asked, &fact.what) {
        (Asked::Start { .. }, What::RunStarted { .. }) => done("started"),
        (Asked::Signal { cause }, What::WaitMatched { cause: matched, .. }) if cause == matched => done("matched"),
        (Asked::Approval { node, visit, cause }, What::ApprovalDecided { node: decided, visit: of, approved, by, provenance, .. })
            if node == decided && visit.is_none_or(|visit| visit == *of) =>
        {
            // Two people may write the same name, or none: whose it was is known by the click.
            if *cause == provenance.cause {
                return done(word_of(*approved));
            }
            refused("already_decided", format!("{} {} it at {}", provenance.told(by), word_of(*approved), fact.at))
        }
        (Asked::Approval { cause, .. }, What::ApprovalLate { provenance, .. }) if *cause == provenance.cause => {
            refused("too_late", "the deadline had passed when this came".to_owned())
        }
        (Asked::Approval { cause, .. }, What::ApprovalRefused { provenance, reason, .. }) if *cause == provenance.cause => {
            refused("asked_anew", format!("nothing was decided: {reason}"))
        }
        (Asked::Pause { by }, What::RunPaused { by: paused, .. }) if by == paused => done("paused"),
        (Asked::Resume { by }, What::RunResumed { by: resumed }) if by == resumed => done("resumed"),
        (Asked::Cancel, What::RunEnded { ending: Ending::Cancelled, .. }) => done("cancelled"),
        (Asked::Terminate, What::RunEnded { ending: Ending::Terminated, .. }) => done("terminated"),
        (Asked::Retry, What::AttemptMinted { by_hand: true, .. }) => done("retried"),
        (Asked::Resolve { effect }, What::EffectCompleted { effect: of, .. } | What::LookedUp { effect: of, .. }) if effect == of => {
            done("resolved")
        }
        (Asked::Resolve { effect }, What::AttemptMinted { effect: of, .. }) if effect == of => done("resolved"),
        _ => None,
    }
}

fn word_of(approved: bool) -> &'static str {
    if approved { "approved" } else { "rejected" }
}

fn why_skipped(reason: Skipped) -> &'static str {
    match reason {
        Skipped::AlreadyStarted => "it did before, by the same cause",
        Skipped::Reentry => "its re-entry policy says no",
        Skipped::StillRunning => "an earlier run goes on",
        Skipped::NoKey => "its key's expression gave nothing",
        Skipped::Merging => "what was done before the login is still coming in",
        Skipped::TooMany => "the subject has too many runs",
        Skipped::TooDeep => "too many runs in a row were begun by what the one before emitted",
        Skipped::Condition => "its entry's condition does not hold",
        Skipped::NoSuchWorkflow => "it takes no new entries",
    }
}

fn how_ended(ending: Ending, outcome: &str, at: Millis) -> String {
    if outcome.is_empty() { format!("{} at {at}", ending.as_str()) } else { format!("{} at {at}, {outcome}", ending.as_str()) }
}

/// Facts as an answer lists them.
pub(in crate::gateway) fn lines(facts: &[Fact], run: RunId) -> Vec<Value> {
    let mut story = Story::default();
    let of_run = facts.iter().filter(|fact| fact.run.is_none_or(|of| of == run));
    of_run.map(|fact| json!({"at": fact.at.to_string(), "line": story.line(fact)})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::Provenance;

    const RUN: RunId = RunId(7);
    const AT: Millis = Millis(1_700_000_000_000);

    fn fact(what: What) -> Fact {
        Fact { at: AT, run: Some(RUN), what }
    }

    fn by_click(cause: &str) -> Provenance {
        Provenance { cause: cause.into(), link: "marketing".into(), ..Provenance::default() }
    }

    fn decided(approved: bool, by: &str, cause: &str) -> Fact {
        let provenance = by_click(cause);
        fact(What::ApprovalDecided { visit: 3, node: "review".into(), approved, by: by.into(), comment: String::new(), provenance })
    }

    fn approval(cause: &str) -> Asked {
        Asked::Approval { node: "review".into(), visit: Some(3), cause: cause.into() }
    }

    #[test]
    fn one_decides_and_the_others_hear_who() {
        let both = [decided(true, "bo", "c-1")];
        assert_eq!(judge(&approval("c-1"), RUN, &both), Became::Done("approved"));
        let Became::Refused { code, message } = judge(&approval("c-2"), RUN, &both) else { panic!() };
        let told = "bo (by the link of marketing) approved it at 2023-11-14T22:13:20.000Z";
        assert_eq!((code, message.as_str()), ("already_decided", told));
        assert_eq!(judge(&approval("c-1"), RunId(8), &both), Became::Nothing, "another run's decision is none of this one");
    }

    #[test]
    fn of_two_who_write_the_same_name_one_decided() {
        let both = [decided(true, "marketing", "c-1")];
        assert_eq!(judge(&approval("c-1"), RUN, &both), Became::Done("approved"));
        assert!(matches!(judge(&approval("c-2"), RUN, &both), Became::Refused { code: "already_decided", .. }));
    }

    #[test]
    fn who_was_late_or_meant_another_question_hears_that() {
        let late = What::ApprovalLate { visit: 3, by: "al".into(), approved: true, provenance: by_click("c-1") };
        let late = [fact(late), decided(false, "silence", "")];
        assert!(matches!(judge(&approval("c-1"), RUN, &late), Became::Refused { code: "too_late", .. }));
        let (by, reason, provenance) = ("al".into(), "it has been asked anew since".into(), by_click("c-1"));
        let anew = [fact(What::ApprovalRefused { visit: 3, node: "review".into(), approved: true, by, reason, provenance })];
        let Became::Refused { code, message } = judge(&approval("c-1"), RUN, &anew) else { panic!() };
        assert_eq!((code, message.as_str()), ("asked_anew", "nothing was decided: it has been asked anew since"));
        assert_eq!(judge(&approval("c-2"), RUN, &anew), Became::Nothing, "what another was told");
        let of_the_round_before = Asked::Approval { node: "review".into(), visit: Some(7), cause: "c-2".into() };
        assert_eq!(judge(&of_the_round_before, RUN, &[decided(true, "bo", "c-1")]), Became::Nothing);
    }

    #[test]
    fn a_run_that_ended_meanwhile_says_how() {
        let end = |ending| fact(What::RunEnded { ending, node: String::new(), outcome: "by bo".into(), parent: None });
        assert_eq!(judge(&Asked::Cancel, RUN, &[end(Ending::Cancelled)]), Became::Done("cancelled"));
        let Became::Refused { code, message } = judge(&Asked::Pause { by: "al".into() }, RUN, &[end(Ending::Goal)]) else { panic!() };
        assert_eq!((code, message.contains("goal at 2023")), ("run_ended", true));
        assert_eq!(judge(&Asked::Retry, RUN, &[]), Became::Nothing);
    }

    #[test]
    fn the_same_cause_started_already_is_no_failure() {
        let skipped =
            |reason| Fact { at: AT, run: None, what: What::RunSkipped { workflow: "w".into(), cause: "c".into(), reason, parent: None } };
        let start = Asked::Start { cause: "c".into() };
        assert_eq!(judge(&start, RUN, &[skipped(Skipped::AlreadyStarted)]), Became::Done("already_started"));
        assert!(matches!(judge(&start, RUN, &[skipped(Skipped::Reentry)]), Became::Refused { code: "not_started", .. }));
        assert_eq!(judge(&Asked::Start { cause: "d".into() }, RUN, &[skipped(Skipped::Reentry)]), Became::Nothing);
    }
}
