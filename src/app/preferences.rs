//! What a person may choose to hear of: the policy's purposes that need a word of theirs, by the channels that messages go through.

use serde_json::Value;

use crate::gateway::Preference;
use crate::permit::{Basis, Policy};

/// The channel that everybody has.
const EMAIL: &str = "email";
/// How consent is shown that holds for every purpose or channel.
const ANY: &str = "*";

/// `consent` as profiles have it: `{"marketing": {"email": {"granted": true, "at": ".."}}}`.
pub fn preferences(policy: &Policy, consent: &Value) -> Vec<Preference> {
    let mut channels = vec![EMAIL.to_owned()];
    for of_purpose in consent.as_object().into_iter().flatten().filter_map(|(_, channels)| channels.as_object()) {
        channels.extend(of_purpose.keys().filter(|name| *name != ANY).cloned());
    }
    channels.sort();
    channels.dedup();
    let mut choices = Vec::new();
    for purpose in policy.purposes.iter().filter(|purpose| purpose.basis != Basis::Transactional) {
        for channel in &channels {
            let granted = said(consent, &purpose.name, channel).unwrap_or(purpose.basis == Basis::OptOut);
            choices.push(Preference { purpose: purpose.name.clone(), channel: channel.clone(), granted });
        }
    }
    choices
}

/// A no at any level is one; a yes is what is said where nobody said no.
fn said(consent: &Value, purpose: &str, channel: &str) -> Option<bool> {
    let mut yes = None;
    for purpose in [ANY, purpose] {
        for channel in [ANY, channel] {
            match consent[purpose][channel]["granted"].as_bool() {
                Some(false) => return Some(false),
                Some(true) => yes = Some(true),
                None => {}
            }
        }
    }
    yes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn choices_are_the_policys_with_what_the_person_said_last() {
        let policy = toml::from_str::<Policy>(
            "[[purpose]]\nname = \"marketing\"\nbasis = \"opt_out\"\n[[purpose]]\nname = \"news\"\nbasis = \"opt_in\"\n\
             [[purpose]]\nname = \"receipts\"\nbasis = \"transactional\"\n",
        )
        .unwrap();
        let shown = |consent: Value| {
            let shown = preferences(&policy, &consent).into_iter().map(|one| (format!("{}/{}", one.purpose, one.channel), one.granted));
            shown.collect::<Vec<_>>()
        };
        let of = |name: &str, granted| (name.to_owned(), granted);
        assert_eq!(shown(Value::Null), [of("marketing/email", true), of("news/email", false)]);
        let said = json!({"marketing": {"email": {"granted": false}}, "news": {"*": {"granted": true}, "sms": {"granted": false}}});
        assert_eq!(shown(said), [of("marketing/email", false), of("marketing/sms", true), of("news/email", true), of("news/sms", false)]);
        assert_eq!(shown(json!({"*": {"*": {"granted": false}}})), [of("marketing/email", false), of("news/email", false)]);
    }
}
