//! What holds under every interleaving of asking, sending, giving back and forgetting.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::consent::Consent;
use crate::domain::{HOUR_MS, MINUTE_MS, Millis};

/// One step: time passes, then something happens to one of the messages.
#[derive(Debug, Clone)]
struct Step {
    pass_ms: i64,
    key: u8,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Ask {
        channel: bool,
        purpose: u8,
        priority: u8,
    },
    /// After this part of the permit's time, in per mille.
    Send(i64),
    GiveBack,
    /// Its executor is never heard of again.
    Vanish,
    /// The state goes to a snapshot and comes back.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        6 => (any::<bool>(), 0..3u8, 0..3u8).prop_map(|(channel, purpose, priority)| What::Ask { channel, purpose, priority }),
        4 => (0..1_000i64).prop_map(What::Send),
        2 => Just(What::GiveBack),
        1 => Just(What::Vanish),
        1 => Just(What::Restart),
    ];
    (0..3 * HOUR_MS, 0..24u8, what).prop_map(|(pass_ms, key, what)| Step { pass_ms, key, what })
}

fn policy() -> impl Strategy<Value = Policy> {
    let cap = (1..30i64, 0..5u32, 0..3u32, 0..3u8, 0..4u8).prop_map(|(hours, limit, kept, channel, purpose)| Cap {
        name: format!("{limit} in {hours}"),
        window_ms: hours * HOUR_MS,
        limit,
        channel: ["email", "sms"].get(usize::from(channel)).map(|name| (*name).to_owned()),
        purpose: ["marketing", "product", "receipts"].get(usize::from(purpose)).map(|name| (*name).to_owned()),
        kept_for_normal: 0,
        kept_for_high: kept.min(limit),
    });
    let quiet = (0..24i64, 0..24i64, 1..128u8).prop_map(|(from, to, days)| Quiet {
        from: TimeOfDay(from * HOUR_MS),
        to: TimeOfDay(to * HOUR_MS + 30 * MINUTE_MS),
        days: Days(days),
        channel: None,
        purpose: None,
    });
    (prop::collection::vec(cap, 0..4), prop::collection::vec(quiet, 0..2), 5_000..600_000i64).prop_map(|(caps, quiet, valid_ms)| {
        let purpose = |name: &str, basis| Purpose { name: name.to_owned(), basis };
        let purposes =
            vec![purpose("marketing", Basis::OptOut), purpose("product", Basis::OptOut), purpose("receipts", Basis::Transactional)];
        Policy { purposes, caps, quiet, zone: "America/New_York".to_owned(), valid_ms }
    })
}

struct Sent {
    at: Millis,
    channel: Box<str>,
    purpose: Box<str>,
    priority: Priority,
}

struct Run {
    policy: Policy,
    ledger: Ledger,
    now: Millis,
    /// Granted and not yet settled, as the executor sees it.
    open: Vec<(Grant, Priority)>,
    sent: Vec<Sent>,
}

const PRIORITIES: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

impl Run {
    fn step(&mut self, step: &Step, zone: &str) {
        self.now = self.now + step.pass_ms;
        let key = EffectKey([step.key; 16]);
        let place = self.open.iter().position(|(grant, _)| grant.key() == key);
        match (&step.what, place) {
            (What::Ask { channel, purpose, priority }, _) => {
                let purpose = ["marketing", "product", "receipts"][usize::from(*purpose)];
                self.ask(key, if *channel { "email" } else { "sms" }, purpose, PRIORITIES[usize::from(*priority)], zone);
            }
            (What::Send(part), Some(place)) => {
                let (grant, priority) = self.open.remove(place);
                let at = grant.at() + (grant.until().since_ms(grant.at()) * part) / 1_000;
                self.ledger.used(key, grant.channel(), grant.purpose(), at);
                self.sent.push(Sent { at, channel: grant.channel().into(), purpose: grant.purpose().into(), priority });
            }
            (What::GiveBack, Some(place)) => {
                self.open.remove(place);
                assert!(self.ledger.unused(key));
            }
            (What::Vanish, Some(place)) => {
                let (grant, priority) = self.open.remove(place);
                // The worst it may have done: sent at the last moment.
                let at = grant.until() - 1;
                self.sent.push(Sent { at, channel: grant.channel().into(), purpose: grant.purpose().into(), priority });
            }
            (What::Restart, _) => {
                let mut bytes = Vec::new();
                self.ledger.encode(&mut bytes);
                assert_eq!(Ledger::decode(&bytes).unwrap(), self.ledger);
                for cut in 0..bytes.len() {
                    assert!(Ledger::decode(&bytes[..cut]).is_err());
                }
            }
            _ => {}
        }
    }

    fn ask(&mut self, key: EffectKey, channel: &str, purpose: &str, priority: Priority, zone: &str) {
        let (consent, suppressions) = (Consent::default(), Suppressions::default());
        let address = Some(AddressKey::of(channel, "ada@example.com"));
        let standing = Standing { consent: &consent, suppressions: &suppressions, address, zone: Some(zone), block: None };
        let is_fresh = self.ledger.held(key).is_none();
        let request = Request { key, executor: Executor([7; 16]), channel, purpose, priority, not_after: None };
        match decide(&self.policy, &self.ledger, &standing, &request, self.now) {
            Decision::Granted(grant) => {
                if purpose != "receipts" {
                    self.check_quiet(&grant, zone);
                }
                self.ledger.granted(&grant);
                // A second permit for a message takes the first one's place; the executor is the same.
                self.open.retain(|(other, _)| other.key() != key);
                self.open.push((grant, priority));
            }
            Decision::Refused(refusal) => {
                assert!(purpose != "receipts" || !is_fresh, "a transactional message was refused: {refusal}");
                let Some(retry_at) = refusal.retry_at else { return };
                assert!(retry_at > self.now, "{refusal}");
                let later = decide(&self.policy, &self.ledger, &standing, &request, retry_at);
                assert!(matches!(later, Decision::Granted(_)), "at {retry_at}: {later:?}");
                let before = decide(&self.policy, &self.ledger, &standing, &request, Millis(retry_at.0 - 1).max(self.now));
                assert!(matches!(before, Decision::Refused(_)), "already before {retry_at}");
                // Taken up at the first moment at which it may go, where caps are tightest.
                if key.0[0].is_multiple_of(2) {
                    self.now = retry_at;
                    self.ask(key, channel, purpose, priority, zone);
                }
            }
        }
    }

    /// By the calendar of jiff, at every minute of the permit and at its end.
    fn check_quiet(&self, grant: &Grant, zone: &str) {
        let zone = TimeZone::get(zone).unwrap();
        let length = grant.until().since_ms(grant.at());
        let moments = (0..length).step_by(MINUTE_MS as usize).chain([length - 1]);
        for ms in moments {
            let local = Timestamp::from_millisecond(grant.at().0 + ms).unwrap().to_zoned(zone.clone());
            let midnight = jiff::civil::Time::midnight();
            let of_day = (local.time() - midnight).total(jiff::Unit::Millisecond).unwrap() as i64;
            let today = i64::from(local.weekday().to_monday_zero_offset());
            for rule in &self.policy.quiet {
                let wraps = rule.to.0 <= rule.from.0;
                let began_today = rule.days.has(today) && of_day >= rule.from.0 && (wraps || of_day < rule.to.0);
                let began_yesterday = wraps && rule.days.has((today + 6) % 7) && of_day < rule.to.0;
                assert!(!began_today && !began_yesterday, "a permit at {local}, in {rule:?}");
            }
        }
    }

    fn check_caps(&self) {
        for cap in &self.policy.caps {
            let counted = |sent: &&Sent| cap.covers(&sent.channel, &sent.purpose) && &*sent.purpose != "receipts";
            for last in self.sent.iter().filter(counted) {
                let window = |sent: &&Sent| sent.at <= last.at && last.at.since_ms(sent.at) < cap.window_ms;
                for most in PRIORITIES {
                    let up_to = self.sent.iter().filter(counted).filter(window).filter(|sent| sent.priority <= most).count();
                    assert!(up_to <= cap.places(most), "{up_to} up to {most:?} in {cap:?} until {}", last.at);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn caps_and_quiet_hours_hold_whatever_happens(
        policy in policy(),
        steps in prop::collection::vec(step(), 1..60),
        zone in prop::sample::select(vec!["America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Europe/Berlin"]),
        // Around the changes of offset of 2026, north and south.
        start in prop::sample::select(vec!["2026-03-07T00:00:00Z", "2026-03-28T00:00:00Z", "2026-10-30T00:00:00Z", "2026-04-03T00:00:00Z"]),
    ) {
        let now = Millis::parse(start).unwrap();
        let mut run = Run { policy, ledger: Ledger::default(), now, open: Vec::new(), sent: Vec::new() };
        for step in &steps {
            run.step(step, zone);
        }
        run.check_caps();
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(ledger) = Ledger::decode(&bytes) {
            let mut again = Vec::new();
            ledger.encode(&mut again);
            prop_assert_eq!(&again, &bytes);
        }
        if let Ok(suppressions) = Suppressions::decode(&bytes) {
            // Not always the same bytes: what was lifted was written once.
            let mut again = Vec::new();
            suppressions.encode(&mut again);
            prop_assert_eq!(Suppressions::decode(&again).unwrap(), suppressions);
        }
    }

    #[test]
    fn words_about_addresses_commute(
        words in prop::collection::vec((0..4u8, 0..3u8, 0..50i64, prop::option::of(50..90i64)), 0..20).prop_shuffle(),
        cut in 0..20usize,
    ) {
        let causes = [Cause::SoftBounces, Cause::HardBounce, Cause::Complaint];
        let say = |into: &mut Suppressions, (address, cause, at, until): &(u8, u8, i64, Option<i64>)| {
            let address = AddressKey([*address; 16]);
            match cause {
                0 => into.lift(address, Millis(*at)),
                cause => into.suppress(address, causes[usize::from(*cause)], Millis(*at), until.map(Millis)),
            }
        };
        let (mut forward, mut first, mut second) = (Suppressions::default(), Suppressions::default(), Suppressions::default());
        words.iter().for_each(|word| say(&mut forward, word));
        let cut = cut.min(words.len());
        words[cut..].iter().rev().for_each(|word| say(&mut first, word));
        words[..cut].iter().rev().for_each(|word| say(&mut second, word));
        first.absorb(&second);
        prop_assert_eq!(&first, &forward);
        for address in 0..4 {
            let mut told = Suppressions::default();
            for said in forward.said_of(AddressKey([address; 16])) {
                match said {
                    Said::Suppressed { cause, at, until } => told.suppress(AddressKey([address; 16]), cause, at, until),
                    Said::Lifted { at } => told.lift(AddressKey([address; 16]), at),
                }
            }
            let known: Vec<_> = forward.marks.iter().filter(|(key, _)| *key == AddressKey([address; 16])).cloned().collect();
            prop_assert_eq!(told.marks, known, "whoever is told makes the same of it");
        }
        let mut bytes = Vec::new();
        forward.encode(&mut bytes);
        prop_assert_eq!(Suppressions::decode(&bytes).unwrap(), forward);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// However long the words are for that were lifted: whatever was said since and lasts still holds.
    #[test]
    fn a_word_since_the_last_lift_holds_whatever_was_said_before_it(
        words in prop::collection::vec((prop_oneof![1 => Just(None), 4 => (0..4usize, prop::option::of(50..90i64)).prop_map(Some)], 0..50i64), 0..20),
        now in 50..90i64,
    ) {
        let (mut suppressions, address) = (Suppressions::default(), AddressKey([1; 16]));
        for (word, at) in &words {
            match word {
                None => suppressions.lift(address, Millis(*at)),
                Some((cause, until)) => suppressions.suppress(address, Cause::ALL[*cause], Millis(*at), until.map(Millis)),
            }
        }
        let lifted = words.iter().filter(|(word, _)| word.is_none()).map(|(_, at)| *at).max().unwrap_or(i64::MIN);
        let said = words.iter().filter_map(|(word, at)| word.filter(|_| *at >= lifted).map(|(cause, until)| (cause, *at, until.unwrap_or(i64::MAX))));
        let said: Vec<_> = said.collect();
        let is_newest = |(cause, at, until): &&(usize, i64, i64)| {
            let others = said.iter().filter(|(other, _, until)| other == cause && *until < i64::MAX);
            *until == i64::MAX || others.map(|(_, at, until)| (*at, *until)).max() == Some((*at, *until))
        };
        let until = said.iter().filter(is_newest).map(|(_, _, until)| *until).filter(|until| now < *until).max();
        let found = suppressions.of(address, Millis(now)).map(|(_, until)| until.map_or(i64::MAX, |until| until.0));
        prop_assert_eq!(found, until);
    }
}

#[test]
fn the_ledger_stays_small_whatever_is_sent() {
    let mut ledger = Ledger::default();
    for n in 0..20_000u32 {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&n.to_le_bytes());
        let at = Millis(i64::from(n) * 1_000);
        let purpose = format!("purpose {}", n % 90);
        let (channel, until) = (Box::from("email"), at + MINUTE_MS);
        ledger.granted(&Grant { key: EffectKey(key), executor: Executor([1; 16]), channel, purpose: purpose.as_str().into(), at, until });
        if n % 3 > 0 {
            ledger.used(EffectKey(key), "email", &purpose, at);
        }
    }
    let mut bytes = Vec::new();
    ledger.encode(&mut bytes);
    assert!(ledger.classes.len() <= 64 && bytes.len() < 64 * 200 * 60, "{} bytes", bytes.len());
    assert_eq!(Ledger::decode(&bytes).unwrap(), ledger);
}
