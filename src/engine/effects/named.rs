//! What a workflow names and does not hold itself: who performs its effects, what its messages are for, whom its segments are of. A name
//! that nobody answers to stops everyone who gets that far, so it is held against what is known before anyone can.

use std::collections::BTreeSet;
use std::ops::Range;

use super::options::{ChannelOptions, Options};
use crate::segments::{Source, did_you_mean};
use crate::workflow::{AwaitedWhat, Definition, EntryBy, Kind, Performer, Places, Policy};

/// The channel that there is.
const EMAIL: &str = "email";
/// The webhook that is there without being configured.
pub(super) const LOG: &str = "log";

/// Names of one kind.
#[derive(Debug, Clone)]
pub struct Names {
    pub names: BTreeSet<String>,
    /// Where they are from: ends `there is no agent x ..`.
    pub of: String,
    /// How another comes to be one of them.
    pub how: String,
    /// Whether a name that is not among them is a mistake; else it is only said.
    pub is_all: bool,
}

/// Everything that may be named; `None` where nobody can say.
#[derive(Debug, Clone)]
pub struct Known {
    pub agents: Names,
    pub channels: Names,
    pub webhooks: Names,
    pub purposes: Option<Names>,
    pub segments: Option<Names>,
}

impl Known {
    /// What a server of this configuration performs. Whoever performs is in it: an HTTP worker takes the place of no agent that it does not
    /// name.
    pub fn performers(effects: &Options, channels: &ChannelOptions, of: &str, is_all: bool) -> Self {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let names = |names, how: &str| Names { names, of: of.to_owned(), how: how.to_owned(), is_all };
        let mut agents = own(&crate::agents::AGENTS.map(|(name, _)| name));
        agents.extend(effects.workers.keys().cloned());
        let mut webhooks = own(&[LOG]);
        webhooks.extend(channels.webhooks.keys().cloned());
        Self {
            agents: names(agents, "an HTTP worker is configured as [effects.workers.NAME]"),
            channels: names(own(&[EMAIL]), "no other sends yet"),
            webhooks: names(webhooks, "a receiver is configured as [channels.webhooks.NAME]"),
            purposes: None,
            segments: None,
        }
    }

    #[must_use]
    pub fn with_purposes(mut self, policy: &Policy, of: &str, is_all: bool) -> Self {
        let names = policy.permits.purposes.iter().map(|purpose| purpose.name.clone()).collect();
        let how = "another is declared with [[purpose]] in a policy (`flywheel policy show`, `flywheel policy publish`)".to_owned();
        self.purposes = Some(Names { names, of: of.to_owned(), how, is_all });
        self
    }

    #[must_use]
    pub fn with_segments<'n>(mut self, names: impl IntoIterator<Item = &'n str>, of: &str, is_all: bool) -> Self {
        let names = names.into_iter().map(str::to_owned).collect();
        let how = "another is declared with [[segment]] in the topology".to_owned();
        self.segments = Some(Names { names, of: of.to_owned(), how, is_all });
        self
    }
}

/// Where what is found goes.
pub(super) struct Findings<'s> {
    pub(super) wrong: Source<'s>,
    pub(super) told: Source<'s>,
}

impl Findings<'_> {
    fn hold(&mut self, names: Option<&Names>, what: &str, name: &str, place: Range<usize>) {
        let Some(names) = names else { return };
        if names.names.iter().any(|known| known.eq_ignore_ascii_case(name) && (known == name || what == "purpose")) {
            return;
        }
        let known: Vec<&str> = names.names.iter().map(String::as_str).collect();
        let listed = if known.is_empty() { "there are none".to_owned() } else { format!("there are {}", known.join(", ")) };
        let near = did_you_mean(name, known).map_or(String::new(), |near| format!("did you mean `{near}`? "));
        let (message, hint) = (format!("there is no {what} `{name}` {}", names.of), format!("{near}{listed}; {}", names.how));
        let source = if names.is_all { &mut self.wrong } else { &mut self.told };
        source.report(place, message, Some(hint));
    }
}

/// Holds everything that a workflow names against what is known.
pub(super) fn check(definition: &Definition, places: &Places, known: &Known, found: &mut Findings<'_>) {
    match &definition.entry.by {
        EntryBy::Segment(name) => found.hold(known.segments.as_ref(), "segment", name, places.entry("segment")),
        EntryBy::Broadcast { segment, .. } => found.hold(known.segments.as_ref(), "segment", segment, places.entry("broadcast")),
        EntryBy::Event(_) | EntryBy::Command | EntryBy::Schedule { .. } => {}
    }
    for node in &definition.nodes {
        match &node.kind {
            Kind::Effect(effect) => {
                let (names, what) = match effect.by {
                    Performer::Agent => (&known.agents, "agent"),
                    Performer::Channel => (&known.channels, "channel"),
                    Performer::Webhook => (&known.webhooks, "webhook"),
                };
                found.hold(Some(names), what, &effect.target, places.key(&node.name, &[what]));
                if effect.by == Performer::Channel {
                    let place = places.key(&node.name, &["purpose", "channel"]);
                    found.hold(known.purposes.as_ref(), "purpose", &effect.purpose, place);
                }
            }
            Kind::WaitFor { any, .. } => {
                for (at, awaited) in any.iter().enumerate() {
                    if let AwaitedWhat::Enters(name) | AwaitedWhat::Leaves(name) = &awaited.what {
                        found.hold(known.segments.as_ref(), "segment", name, places.awaited(&node.name, at));
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::SHIPPED;

    fn known(is_all: bool) -> Known {
        let performers = Known::performers(&Options::default(), &ChannelOptions::default(), "here", is_all);
        performers.with_purposes(&Policy::shipped(), "in the policy", is_all).with_segments(
            ["lapsing", "lapsed"],
            "in the topology",
            is_all,
        )
    }

    fn found(text: &str, known: &Known) -> (Vec<String>, Vec<String>) {
        let definition = Definition::parse("w.toml", text).unwrap_or_else(|problems| panic!("{problems}"));
        let mut found = Findings { wrong: Source::new("w.toml", text), told: Source::new("w.toml", text) };
        check(&definition, &Places::of(text), known, &mut found);
        let lines = |source: Source<'_>| {
            let line = |problem: crate::segments::Problem| format!("{}: {}; {}", problem.line, problem.message, problem.hint.unwrap());
            source.found().0.into_iter().map(line).collect()
        };
        (lines(found.wrong), lines(found.told))
    }

    #[test]
    fn what_nobody_answers_to_is_refused_with_its_line_the_nearest_name_and_all_that_there_are() {
        let (_, winback) = SHIPPED[0];
        let line = |sought: &str, text: &str| text.lines().position(|line| line.contains(sought)).unwrap() + 1;
        let cases = [
            (
                "agent = \"copywriter\"",
                "agent = \"copywritter\"",
                "there is no agent `copywritter` here; did you mean `copywriter`? there are ad_manager, ",
            ),
            ("channel = \"email\"", "channel = \"sms\"", "there is no channel `sms` here; there are email; "),
            ("agent = \"copywriter\"", "webhook = \"crm\"", "there is no webhook `crm` here; there are log; a receiver is configured as"),
            (
                "channel = \"email\"",
                "channel = \"email\"\npurpose = \"newsleter\"",
                "there is no purpose `newsleter` in the policy; there are marketing, transactional; ",
            ),
            (
                "segment = \"lapsing\"",
                "segment = \"lapsin\"",
                "there is no segment `lapsin` in the topology; did you mean `lapsing`? there are lapsed, lapsing; ",
            ),
        ];
        for (from, to, expected) in cases {
            let text = winback.replacen(from, to, 1);
            assert!(text != winback, "{from}");
            let (wrong, told) = found(&text, &known(true));
            assert!(
                wrong.len() == 1
                    && told.is_empty()
                    && wrong[0].starts_with(&format!("{}: {expected}", line(to.lines().last().unwrap(), &text))),
                "{to}: {wrong:#?}"
            );
            assert_eq!(found(&text, &known(false)), (told, wrong), "where not all is known it is only said");
        }
        for (name, text) in SHIPPED {
            assert_eq!(found(text, &known(true)), (vec![], vec![]), "{name}");
        }
    }

    #[test]
    fn what_is_waited_for_and_a_purpose_that_nobody_wrote_are_held_too() {
        let text = r#"
[workflow]
name = "w"
[workflow.entry]
broadcast = "vips"
[[node]]
name = "wait"
kind = "wait_for"
any = [{ event = "Order Completed" }, { leaves = "vip" }]
timeout = "1d"
next = "send"
[[node]]
name = "send"
kind = "effect"
channel = "email"
timeout = "1m"
next = "over"
[[node]]
name = "over"
kind = "exit"
"#;
        let policy = "[[purpose]]\nname = \"News\"\nbasis = \"opt_in\"\n";
        let policy = Policy::parse("p.toml", policy).unwrap_or_else(|problems| panic!("{problems}"));
        let (wrong, _) = found(text, &known(true).with_purposes(&policy, "in the policy", true));
        let begins = [
            "5: there is no segment `vips`",
            "9: there is no segment `vip`",
            "15: there is no purpose `marketing` in the policy; there are News",
        ];
        assert!(wrong.len() == 3 && wrong.iter().zip(begins).all(|(line, begin)| line.starts_with(begin)), "{wrong:#?}");
        let named = text.replace("channel = \"email\"\n", "channel = \"email\"\npurpose = \"news\"\n");
        assert_eq!(
            found(&named, &known(true).with_purposes(&policy, "in the policy", true)).0.len(),
            2,
            "purposes are one whatever their case"
        );
    }
}
