//! The message that follows an approval, before it is sent: the template of the next mail, filled with what the approval shows.
//!
//! A value is known if the approval shows the very expression that the message takes, or if it is a text of its own. Where anything else
//! is needed there is no preview: a message that might read otherwise is not shown as the one that will go.

use serde_json::{Map, Value};

use crate::engine::effects::Templates;
use crate::gateway::{ApprovalFound, Preview};
use crate::workflow::{Definition, Effect, Kind, Performer};

/// Nodes between an approval and its message: a delay or two.
const HOPS_MAX: usize = 16;
/// What stands where a link of one's own will be.
const OWN_LINK: &str = "(a link of the recipient's own)";

pub fn preview(templates: &Templates, definition: &Definition, approval: &ApprovalFound, address: Option<&str>) -> Option<Preview> {
    let (_, node) = definition.find(&approval.node)?;
    let Kind::Approval(asks) = &node.kind else { return None };
    let message = next_message(definition, asks.on_approve)?;
    let shown = |text: &str| asks.shows.iter().find(|(_, shows)| shows.text() == text).and_then(|(name, _)| approval.shows.get(name));
    let mut given = Map::new();
    for (name, expression) in &message.input {
        let value = shown(expression.text()).cloned().or_else(|| literal(expression.text()).map(Value::from))?;
        given.insert(name.clone(), value);
    }
    let (subject, text) = match given.remove("template") {
        None => {
            let text = |name: &str| given.get(name).and_then(Value::as_str).map(str::to_owned);
            (text("subject")?, text("text").or_else(|| text("body"))?)
        }
        Some(name) => {
            for own in ["unsubscribe_url", "preferences_url"] {
                given.insert(own.to_owned(), OWN_LINK.into());
            }
            let rendered = templates.get(name.as_str()?)?.render(&given).ok()?;
            (rendered.subject, rendered.text)
        }
    };
    let to = address.unwrap_or("(the address that is known then)").to_owned();
    Some(Preview { channel: message.target.clone(), to, subject, text })
}

/// The first message on the way, if only waiting comes before it: what a branch decides is not known yet.
fn next_message(definition: &Definition, from: u16) -> Option<&Effect> {
    let mut at = from;
    for _ in 0..HOPS_MAX {
        match &definition.node(at)?.kind {
            Kind::Effect(effect) if effect.by == Performer::Channel => return Some(effect),
            Kind::Delay { next, .. } => at = *next,
            _ => return None,
        }
    }
    None
}

/// The text of an expression that is nothing but a text.
fn literal(expression: &str) -> Option<&str> {
    let text = expression.trim();
    let inside = ['\'', '"'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote));
    inside.filter(|inside| !inside.contains(['\'', '"', '\\']))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{Millis, Subject};
    use crate::workflow::{RunId, SHIPPED};

    #[test]
    fn an_approval_shows_the_message_that_will_go_or_none() {
        let text = SHIPPED.iter().find(|(name, _)| *name == "winback").expect("shipped").1;
        let approval = ApprovalFound {
            run: RunId(1),
            subject: Subject::user("ann"),
            workflow: "winback".to_owned(),
            node: "review".to_owned(),
            visit: 3,
            who: "marketing".to_owned(),
            shows: json!({"subject": "We miss you", "body": "Come back, Ann"}),
            shown: String::new(),
            asked_at: Millis(0),
            until: Millis(1),
            decided: None,
            cancelled: None,
        };
        let shown = |text: &str| {
            let definition = Definition::parse("w.toml", text).unwrap_or_else(|problems| panic!("{problems}"));
            preview(&Templates::shipped(), &definition, &approval, Some("ann@example.com"))
        };
        let found = shown(text).expect("a preview");
        assert_eq!((found.channel.as_str(), found.to.as_str(), found.subject.as_str()), ("email", "ann@example.com", "We miss you"));
        assert!(found.text.contains("Come back, Ann"), "{}", found.text);
        // What is not shown is not known: no preview that might be wrong.
        assert_eq!(shown(&text.replace(", body = \"results.write.body\" }\ndeadline", " }\ndeadline")), None);
    }
}
