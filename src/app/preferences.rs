//! What a person may choose to hear of: the policy's purposes that need a word of theirs, by the channels that messages go through; each as
//! a permit would judge it.

use serde_json::Value;

use crate::consent::{Consent, Status};
use crate::gateway::{Choice, Preference};
use crate::permit::{Basis, Policy};

/// The channel that everybody has.
const EMAIL: &str = "email";

/// `consent` as profiles have it: `{"marketing": {"email": {"granted": true, "at": ".."}}}`; `said` since then.
pub fn preferences(policy: &Policy, consent: &Value, said: &[Choice]) -> Vec<Preference> {
    let mut consent = Consent::from_json(consent);
    for choice in said {
        consent.set(&choice.purpose, &choice.channel, choice.granted, choice.at);
    }
    let mut channels = vec![EMAIL.to_owned()];
    channels.extend(consent.answers().map(|(stated, _)| stated.channel).filter(|channel| !channel.is_empty()));
    channels.sort();
    channels.dedup();
    let mut choices = Vec::new();
    for purpose in policy.purposes.iter().filter(|purpose| purpose.basis != Basis::Transactional) {
        for channel in &channels {
            let granted = match consent.status(&purpose.name, channel) {
                Status::Granted => true,
                Status::Denied => false,
                Status::Unknown => purpose.basis == Basis::OptOut,
            };
            choices.push(Preference { purpose: purpose.name.clone(), channel: channel.clone(), granted });
        }
    }
    choices
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::channels::events;
    use crate::channels::link::{Kind, Link};
    use crate::consent::Said;
    use crate::domain::Millis;
    use crate::permit::EffectKey;

    #[test]
    fn choices_are_the_policys_with_what_the_person_said_last() {
        let policy = toml::from_str::<Policy>(
            "[[purpose]]\nname = \"marketing\"\nbasis = \"opt_out\"\n[[purpose]]\nname = \"news\"\nbasis = \"opt_in\"\n\
             [[purpose]]\nname = \"receipts\"\nbasis = \"transactional\"\n",
        )
        .unwrap();
        let shown = |consent: Value| {
            let shown =
                preferences(&policy, &consent, &[]).into_iter().map(|one| (format!("{}/{}", one.purpose, one.channel), one.granted));
            shown.collect::<Vec<_>>()
        };
        let of = |name: &str, granted| (name.to_owned(), granted);
        assert_eq!(shown(Value::Null), [of("marketing/email", true), of("news/email", false)]);
        let answer = |granted: bool| json!({"granted": granted, "at": "2024-03-01T00:00:00.000Z"});
        let said = json!({"marketing": {"email": answer(false)}, "news": {"*": answer(true), "sms": answer(false)}});
        assert_eq!(shown(said), [of("marketing/email", false), of("marketing/sms", true), of("news/email", true), of("news/sms", false)]);
        assert_eq!(shown(json!({"*": {"*": answer(false)}})), [of("marketing/email", false), of("news/email", false)]);
    }

    /// The whole way of a tick: the page's event, what consent reads of it, what the page shows then, and what a permit would say.
    #[test]
    fn a_tick_against_a_general_no_is_a_yes_to_just_that() {
        let policy = toml::from_str::<Policy>(
            "[[purpose]]\nname = \"marketing\"\nbasis = \"opt_out\"\n[[purpose]]\nname = \"news\"\nbasis = \"opt_out\"\n",
        )
        .unwrap();
        let mut consent = Consent::default();
        let said = |consent: &mut Consent, kind, name, properties: &str, at| {
            consent.observe(Said { kind, name, properties, context: "" }, at);
        };
        said(&mut consent, "identify", "", r#"{"consent": {"marketing": false, "news": false}}"#, Millis(1_000));
        let stored = |consent: &Consent| serde_json::from_str::<Value>(&consent.to_json()).unwrap();
        let ticked = |shown: Vec<Preference>| shown.into_iter().map(|one| one.granted).collect::<Vec<_>>();
        assert_eq!(ticked(preferences(&policy, &stored(&consent), &[])), [false, false]);
        let now = Millis(2_000);
        let choice = Choice { purpose: "marketing".to_owned(), channel: "email".to_owned(), granted: true, at: now };
        let answered = preferences(&policy, &stored(&consent), &[choice]);
        let link = Link {
            kind: Kind::Preferences,
            namespace: "main".to_owned(),
            tenant: "acme".to_owned(),
            subject: "u:ann".to_owned(),
            effect: EffectKey([1; 16]),
            expires: Millis::MAX,
            detail: String::new(),
            sent: None,
        };
        let event = events::chosen(&link, "marketing", "email", true, now).expect("an event");
        said(&mut consent, "track", "Consent Updated", &event["properties"].to_string(), now);
        assert_eq!(ticked(answered.clone()), [true, false], "news stays as it was");
        assert_eq!(preferences(&policy, &stored(&consent), &[]), answered, "what the page answered is what is shown later");
        let may = |purpose: &str| consent.status(purpose, "email");
        assert_eq!((may("marketing"), may("news")), (Status::Granted, Status::Denied), "and what a permit goes by");
    }
}
