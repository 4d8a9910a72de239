//! The message that follows an approval, before it is sent: the template of the next mail, filled with what the approval shows.
//!
//! A value is known if the approval shows the very expression that the message takes, and that gives the same whenever it is asked, or if it
//! is a text of its own. Where anything else is needed there is no preview: a message that might read otherwise is not shown as the one that will go.

use serde_json::{Map, Value};

use crate::engine::effects::{Templates, literal};
use crate::gateway::{ApprovalFound, Preview};
use crate::workflow::{Definition, Kind};

const EMAIL: &str = "email";

pub fn preview(templates: &Templates, definition: &Definition, approval: &ApprovalFound, address: Option<&str>) -> Option<Preview> {
    let (at, node) = definition.find(&approval.node)?;
    let Kind::Approval(asks) = &node.kind else { return None };
    let Kind::Effect(message) = &definition.message_after(asks)?.kind else { return None };
    let shown = |text: &str| asks.shows.iter().find(|(_, shows)| shows.text() == text).and_then(|(name, _)| approval.shows.get(name));
    let mut given = Map::new();
    for (name, expression) in &message.input {
        if definition.moves_after(at, expression).is_some() {
            return None;
        }
        let value = shown(expression.text()).cloned().or_else(|| literal(expression.text()).map(Value::from))?;
        given.insert(name.clone(), value);
    }
    let words = templates.words(message.given(given)).ok()?;
    let to = address.unwrap_or("(the address that is known then)").to_owned();
    // Only mail is held against what was shown.
    let digest = if message.target == EMAIL { words.digest() } else { String::new() };
    Some(Preview { channel: message.target.clone(), to, subject: words.subject, text: words.text, html: words.html, digest })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{Millis, Subject};
    use crate::workflow::{RunId, SHIPPED};

    fn approval(shows: Value) -> ApprovalFound {
        ApprovalFound {
            run: RunId(1),
            subject: Subject::user("ann"),
            workflow: "winback".to_owned(),
            node: "review".to_owned(),
            visit: 3,
            who: "marketing".to_owned(),
            shows,
            shown: String::new(),
            asked_at: Millis(0),
            until: Millis(1),
            decided: None,
            cancelled: None,
        }
    }

    #[test]
    fn an_approval_shows_the_message_that_will_go_or_none() {
        let text = SHIPPED.iter().find(|(name, _)| *name == "winback").expect("shipped").1;
        let approval = approval(json!({"subject": "We miss you", "body": "Come back, Ann"}));
        let shown = |text: &str| {
            let definition = Definition::parse("w.toml", text).unwrap_or_else(|problems| panic!("{problems}"));
            preview(&Templates::shipped(), &definition, &approval, Some("ann@example.com"))
        };
        let found = shown(text).expect("a preview");
        assert_eq!((found.channel.as_str(), found.to.as_str(), found.subject.as_str()), ("email", "ann@example.com", "We miss you"));
        assert!(found.text.contains("Come back, Ann"), "{}", found.text);
        let html = found.html.as_deref().expect("the template has HTML, and most people read that");
        assert!(html.contains("Come back, Ann"), "{html}");
        assert_eq!(found.digest.len(), 32);
        // What is not shown is not known: no preview that might be wrong.
        assert_eq!(shown(&text.replace(", body = \"results.write.body\" }\ndeadline", " }\ndeadline")), None);
    }

    #[test]
    fn what_is_not_known_reads_as_it_will_when_it_is_sent() {
        const TEMPLATE: &str = "subject = \"Hello {{ name | default('friend') }}\"\ntext = 't'\n[inputs]\nname = 'Ada'\n";
        const WORKFLOW: &str = r#"
[workflow]
name = "w"
[workflow.entry]
command = true
[[node]]
name = "review"
kind = "approval"
who = "marketing"
shows = { name = "traits.first" }
deadline = "1d"
silence = "rejects"
on_approve = "send"
on_reject = "over"
[[node]]
name = "send"
kind = "effect"
channel = "email"
input = { template = "'greeting'", name = "traits.first" }
timeout = "1m"
next = "over"
[[node]]
name = "over"
kind = "exit"
"#;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("greeting.toml"), TEMPLATE).unwrap();
        let templates = Templates::load(folder.path()).unwrap();
        let definition = Definition::parse("w.toml", WORKFLOW).unwrap_or_else(|problems| panic!("{problems}"));
        let shown = |first: Value| preview(&templates, &definition, &approval(json!({ "name": first })), None).expect("a preview");
        let unknown = shown(Value::Null);
        assert_eq!((unknown.subject.as_str(), shown(json!("Bo")).subject.as_str()), ("Hello friend", "Hello Bo"));
        let (_, send) = definition.find("send").unwrap();
        let Kind::Effect(send) = &send.kind else { panic!("an effect") };
        let values = json!({"template": "greeting", "name": null}).as_object().cloned().unwrap();
        let sent = templates.words(send.given(values)).unwrap();
        assert_eq!(unknown.digest, sent.digest(), "what was approved is what is sent");
        let moving = Definition::parse("w.toml", &WORKFLOW.replace("\"traits.first\"", "\"now\""));
        let moving = moving.unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(preview(&templates, &moving, &approval(json!({"name": "Bo"})), None), None, "what moves is not pinned");
    }
}
