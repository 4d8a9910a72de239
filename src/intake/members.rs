//! The members of an event's JSON that intake knows, as slices of it. One validating pass, no tree.
//!
//! `serde_json` rather than a faster parser: it checks what it steps over without recursing, so that no input exhausts the stack. Of a member
//! given twice the last counts, as in JavaScript; `null` counts as absent.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Declares a struct of raw members and how to read it from a JSON object.
macro_rules! members {
    ($(#[$doc:meta])* $type:ident { $($field:ident: $name:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub(super) struct $type<'a> {
            $(pub(super) $field: Option<&'a str>,)+
        }

        impl<'a> $type<'a> {
            /// Reads an object; the error is serde_json's, with line and column.
            pub(super) fn read(json: &'a str) -> Result<Self, serde_json::Error> {
                struct Object;
                impl<'de> Visitor<'de> for Object {
                    type Value = $type<'de>;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a JSON object")
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$type<'de>, A::Error> {
                        let mut found = $type::default();
                        while let Some(name) = map.next_key::<Name<'de>>()? {
                            match &*name.0 {
                                $($name => found.$field = raw(map.next_value::<&'de RawValue>()?),)+
                                _ => { map.next_value::<IgnoredAny>()?; }
                            }
                        }
                        Ok(found)
                    }
                }
                let mut reader = serde_json::Deserializer::from_str(json);
                let found = reader.deserialize_map(Object)?;
                reader.end()?;
                Ok(found)
            }
        }
    };
}

members!(
    /// An event.
    Members {
        kind: "type",
        event: "event",
        name: "name",
        category: "category",
        message_id: "messageId",
        anonymous_id: "anonymousId",
        user_id: "userId",
        previous_id: "previousId",
        group_id: "groupId",
        timestamp: "timestamp",
        original_timestamp: "originalTimestamp",
        sent_at: "sentAt",
        properties: "properties",
        traits: "traits",
        context: "context",
        integrations: "integrations",
        channel: "channel",
    }
);
members!(
    /// What a batch shares among its events.
    Shared { context: "context", integrations: "integrations" }
);
members!(
    /// A context.
    Context { user_agent: "userAgent", ip: "ip", traits: "traits", group_id: "groupId", channel: "channel", integrations: "integrations" }
);
members!(
    /// Traits.
    Person { email: "email" }
);
members!(
    /// The properties of a page or screen, as far as its top level may add to them.
    Page { name: "name", category: "category" }
);

fn raw(value: &RawValue) -> Option<&str> {
    Some(value.get()).filter(|text| *text != "null")
}

/// A member's name, borrowed unless it holds escapes.
struct Name<'a>(std::borrow::Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(text.into()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(text.to_owned().into()))
            }
        }
        deserializer.deserialize_str(Text)
    }
}
