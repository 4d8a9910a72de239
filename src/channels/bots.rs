//! Whether a person opened or clicked, or a machine on the way: rules as data, in `bots.toml`.
//!
//! A list of one's own (`channels.bots`) takes the place of the shipped one. `events` makes no event of what a machine did.

use std::sync::OnceLock;

use serde::Deserialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    Open,
    Click,
}

/// One request for a tracking link.
#[derive(Debug, Clone, Copy)]
pub struct Hit<'a> {
    pub act: Act,
    pub method: &'a str,
    pub agent: &'a str,
    /// Of the headers `Sec-Purpose`, `Purpose` and `X-Moz`, what is there.
    pub purpose: &'a str,
    /// Since the message was sent, if that is known.
    pub since_sent_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<'a> {
    Person,
    /// A person, seen through this mail provider's cache.
    Proxy(&'a str),
    /// Nobody; with what gave it away.
    Machine(&'a str),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    #[serde(default)]
    too_soon_click_ms: i64,
    #[serde(default, rename = "rule")]
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: String,
    agent: String,
    #[serde(default)]
    whole: bool,
    verdict: Word,
    #[serde(default)]
    on: Option<Act>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Proxy,
    Machine,
}

impl Rules {
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        let mut rules: Rules = toml::from_str(text)?;
        rules.rules.iter_mut().for_each(|rule| rule.agent.make_ascii_lowercase());
        Ok(rules)
    }

    pub fn shipped() -> &'static Rules {
        static RULES: OnceLock<Rules> = OnceLock::new();
        RULES.get_or_init(|| Rules::parse(include_str!("bots.toml")).expect("the shipped rules parse, by a test"))
    }

    pub fn judge(&self, hit: &Hit<'_>) -> Verdict<'_> {
        if !hit.method.eq_ignore_ascii_case("GET") {
            return Verdict::Machine("not a GET");
        }
        let purpose = hit.purpose.to_ascii_lowercase();
        if ["prefetch", "prerender", "preview"].iter().any(|word| purpose.contains(word)) {
            return Verdict::Machine("fetched ahead");
        }
        if hit.act == Act::Click && hit.since_sent_ms.is_some_and(|ms| ms < self.too_soon_click_ms) {
            return Verdict::Machine("too soon");
        }
        let agent = hit.agent.trim().to_ascii_lowercase();
        let fits = |rule: &&Rule| {
            let is_named = if rule.whole { agent == rule.agent } else { agent.contains(&rule.agent) };
            is_named && rule.on.is_none_or(|act| act == hit.act)
        };
        match self.rules.iter().find(fits) {
            None => Verdict::Person,
            Some(Rule { name, verdict: Word::Proxy, .. }) => Verdict::Proxy(name),
            Some(Rule { name, verdict: Word::Machine, .. }) => Verdict::Machine(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

    #[track_caller]
    fn check(act: Act, agent: &str, expected: Verdict<'_>) {
        let hit = Hit { act, method: "GET", agent, purpose: "", since_sent_ms: Some(60_000) };
        assert_eq!(Rules::shipped().judge(&hit), expected, "{agent}");
    }

    #[test]
    fn user_agents_are_judged_by_the_shipped_rules() {
        check(Act::Open, FIREFOX, Verdict::Person);
        check(Act::Click, FIREFOX, Verdict::Person);
        check(Act::Open, "Mozilla/5.0", Verdict::Machine("Apple Mail privacy"));
        check(Act::Click, "Mozilla/5.0", Verdict::Person);
        check(
            Act::Open,
            "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
            Verdict::Proxy("Gmail"),
        );
        check(Act::Open, "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html", Verdict::Proxy("Yahoo Mail"));
        check(Act::Click, "Barracuda Sentinel (EE)", Verdict::Machine("Barracuda"));
        check(Act::Click, "", Verdict::Machine("no user agent"));
        check(Act::Click, "python-requests/2.32", Verdict::Machine("python"));
    }

    #[test]
    fn how_and_when_it_was_fetched_gives_machines_away() {
        let hit = Hit { act: Act::Click, method: "GET", agent: FIREFOX, purpose: "", since_sent_ms: Some(3_000) };
        let judge = |hit| Rules::shipped().judge(&hit);
        assert_eq!(judge(hit), Verdict::Person);
        assert_eq!(judge(Hit { since_sent_ms: Some(2_999), ..hit }), Verdict::Machine("too soon"));
        assert_eq!(judge(Hit { method: "HEAD", ..hit }), Verdict::Machine("not a GET"));
        assert_eq!(judge(Hit { purpose: "prefetch;prerender", ..hit }), Verdict::Machine("fetched ahead"));
    }

    #[test]
    fn a_list_of_ones_own_is_read_strictly() {
        assert!(Rules::parse("[[rule]]\nname = \"a\"\nagent = \"a\"\nverdict = \"human\"").is_err());
        assert!(Rules::parse("[[rules]]").is_err());
    }
}
