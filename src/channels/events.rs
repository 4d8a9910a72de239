//! What comes back, as events for `intake`: opens, clicks, unsubscribes, bounces and complaints, by the names of Segment's e-mail
//! specification, so that engagement features, consent and goals have a source.
//!
//! The message id follows from the cause: a report delivered twice, or a link fetched twice within a minute, is one event. Withdrawing counts
//! each time, since a yes may have come in between.

use serde_json::{Value, json};

use super::bots::Verdict;
use super::inbound::{Class, Complaint, Recipient};
use super::link::{Kind, Link};
use crate::domain::{MINUTE_MS, Millis, Subject};
use crate::permit::EffectKey;

/// Of a link that was followed; none for machines, whose fetches say nothing of the person, and for links that only show a page.
pub fn followed(link: &Link, verdict: &Verdict<'_>, at: Millis) -> Option<Value> {
    let subject = subject(&link.subject)?;
    let moment = if link.kind == Kind::Unsubscribe { at } else { at.floor_to(MINUTE_MS) }.0.to_string();
    let via = match verdict {
        Verdict::Machine(_) if link.kind != Kind::Unsubscribe => return None,
        Verdict::Proxy(name) => Some(*name),
        _ => None,
    };
    let event = |name, properties| Some(event(name, &subject, link.effect, at, &[&link.detail, &moment], properties));
    match link.kind {
        Kind::Open => event("Email Opened", json!({"via": via})),
        Kind::Click => event("Email Link Clicked", json!({"url": link.detail})),
        // One click by whatever program: RFC 8058 has the mail provider send it.
        Kind::Unsubscribe => {
            let (purpose, channel) = link.detail.split_once('/').unwrap_or((&link.detail, ""));
            event("Consent Updated", json!({"purpose": purpose, "channel": channel, "granted": false}))
        }
        Kind::Preferences | Kind::Approve => None,
    }
}

/// Of a choice on the preferences page that this link opened.
pub fn chosen(link: &Link, purpose: &str, channel: &str, granted: bool, at: Millis) -> Option<Value> {
    let subject = subject(&link.subject)?;
    // Of the moment, unlike a link that is fetched twice: yes, no and yes again within a minute are three choices.
    let cause = [purpose, channel, if granted { "yes" } else { "no" }, &at.0.to_string()];
    let properties = json!({"purpose": purpose, "channel": channel, "granted": granted});
    Some(event("Consent Updated", &subject, link.effect, at, &cause, properties))
}

/// Of one recipient of a delivery report about a message to this person; none where it arrived or may still arrive.
pub fn bounced(subject: &Subject, effect: EffectKey, recipient: &Recipient, at: Millis) -> Option<Value> {
    let class = match recipient.class {
        Class::Hard => "hard",
        Class::Soft => "soft",
        Class::Blocked => "blocked",
        Class::Delayed | Class::Delivered => return None,
    };
    let properties = json!({"class": class, "status": recipient.status, "diagnostic": recipient.diagnostic});
    Some(event("Email Bounced", subject, effect, at, &[class], properties))
}

/// Of a complaint about a message to this person; none if it takes one back.
pub fn complained(subject: &Subject, effect: EffectKey, complaint: &Complaint, at: Millis) -> Option<Value> {
    let properties = json!({"kind": complaint.kind});
    complaint.is_complaint().then(|| event("Email Marked as Spam", subject, effect, at, &[&complaint.kind], properties))
}

/// Messages go to people: nobody else opens and clicks.
fn subject(text: &str) -> Option<Subject> {
    Subject::parse(text).filter(Subject::is_person)
}

fn event(name: &str, subject: &Subject, effect: EffectKey, at: Millis, cause: &[&str], properties: Value) -> Value {
    let mut hasher = blake3::Hasher::new();
    for part in [name].iter().chain(cause) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(&effect.0);
    let mut event = json!({
        "type": "track",
        "event": name,
        "messageId": hasher.finalize().to_hex()[..32],
        "timestamp": at.to_rfc3339(),
        "properties": properties,
    });
    event["properties"]["channel"] = event["properties"]["channel"].as_str().unwrap_or("email").into();
    event["properties"]["effect"] = effect.to_string().into();
    event[if subject.is_user() { "userId" } else { "anonymousId" }] = subject.id().into();
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Millis = Millis(1_780_000_000_000);

    fn link(kind: Kind, detail: &str) -> Link {
        let (tenant, subject, detail) = ("acme".to_owned(), "u:ada".to_owned(), detail.to_owned());
        Link { kind, namespace: "main".to_owned(), tenant, subject, effect: EffectKey([1; 16]), expires: Millis::MAX, detail, sent: None }
    }

    #[test]
    fn a_followed_link_is_an_event_once_a_minute() {
        let click = followed(&link(Kind::Click, "https://x"), &Verdict::Person, AT).unwrap();
        let effect = EffectKey([1; 16]).to_string();
        assert_eq!(
            (click["type"].as_str(), click["event"].as_str(), click["userId"].as_str()),
            (Some("track"), Some("Email Link Clicked"), Some("ada"))
        );
        assert_eq!(click["properties"], json!({"url": "https://x", "channel": "email", "effect": effect}));
        let again = |detail, at| followed(&link(Kind::Click, detail), &Verdict::Person, at).unwrap()["messageId"].clone();
        assert_eq!(again("https://x", AT + 1), click["messageId"]);
        assert_ne!(again("https://y", AT), click["messageId"]);
        assert_ne!(again("https://x", AT + MINUTE_MS), click["messageId"]);
    }

    #[test]
    fn machines_open_and_click_nothing_but_may_unsubscribe() {
        let machine = Verdict::Machine("too soon");
        assert_eq!(followed(&link(Kind::Open, ""), &machine, AT), None);
        assert_eq!(followed(&link(Kind::Click, "https://x"), &machine, AT), None);
        let stop = followed(&link(Kind::Unsubscribe, "marketing/sms"), &machine, AT).unwrap();
        assert_eq!(stop["event"], "Consent Updated");
        let properties = stop["properties"].to_string();
        let said = crate::consent::Said { kind: "track", name: "Consent Updated", properties: &properties, context: "" };
        let stated = crate::consent::stated(said);
        assert_eq!((stated[0].purpose.as_str(), stated[0].channel.as_str(), stated[0].granted), ("marketing", "sms", false));
    }

    #[test]
    fn an_unsubscribe_after_a_yes_within_the_same_minute_counts() {
        let link = link(Kind::Unsubscribe, "marketing/email");
        let id = |at| followed(&link, &Verdict::Person, at).unwrap()["messageId"].clone();
        assert_ne!(id(AT), id(AT + 30_000));
        assert_eq!(id(AT), id(AT));
    }

    #[test]
    fn a_choice_is_what_consent_reads() {
        let link = link(Kind::Preferences, "");
        let event = chosen(&link, "marketing", "", true, AT).unwrap();
        let properties = event["properties"].to_string();
        let said = crate::consent::Said { kind: "track", name: "Consent Updated", properties: &properties, context: "" };
        let stated = crate::consent::stated(said);
        assert_eq!((stated[0].purpose.as_str(), stated[0].granted), ("marketing", true), "{properties}");
        assert_ne!(chosen(&link, "marketing", "", false, AT).unwrap()["messageId"], event["messageId"]);
    }

    #[test]
    fn what_did_not_arrive_for_good_is_an_event() {
        let recipient = |class| Recipient { address: "a@b".into(), class, status: "5.1.1".into(), diagnostic: "gone".into() };
        let of = |class| bounced(&Subject::anonymous("x"), EffectKey([2; 16]), &recipient(class), AT);
        let event = of(Class::Hard).unwrap();
        assert_eq!((event["event"].as_str(), event["anonymousId"].as_str()), (Some("Email Bounced"), Some("x")));
        assert_eq!(event["properties"]["class"], "hard");
        assert_eq!((of(Class::Delayed), of(Class::Delivered)), (None, None));
    }

    #[test]
    fn a_complaint_that_is_taken_back_is_none() {
        let complaint = |kind: &str| Complaint { key: None, kind: kind.into(), addresses: Vec::new(), agent: String::new() };
        let of = |kind| complained(&Subject::user("ada"), EffectKey([2; 16]), &complaint(kind), AT);
        assert_eq!(of("abuse").unwrap()["event"], "Email Marked as Spam");
        assert_eq!(of("not-spam"), None);
    }
}
