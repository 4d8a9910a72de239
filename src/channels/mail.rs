//! A mail's bytes, by RFC 5322: text and HTML as alternatives, one-click unsubscribe by RFC 8058, and a Message-ID that is the idempotency
//! key. The same draft gives the same bytes, so that trying again is the same message.

use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::{Address, Message};

use super::template::Rendered;
use crate::domain::Millis;
use crate::permit::EffectKey;

/// In the bounce address of a sender: stands for the message's key, which then comes back even from a server that quotes nothing.
pub const KEY_MARK: &str = "{key}";
/// A line of RFC 5322 ends before its 998th character.
const URL_BYTES_MAX: usize = 900;

/// Who writes, as the tenant declared it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    from: Mailbox,
    reply_to: Option<Mailbox>,
    /// Where the other side reports that it could not deliver; may hold [`KEY_MARK`].
    bounces: String,
}

/// One message to one person.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    pub key: EffectKey,
    pub sender: &'a Sender,
    /// Address only, or `Name <address>`.
    pub to: &'a str,
    /// When the effect was asked for, not when it is tried.
    pub date: Millis,
    pub words: &'a Rendered,
    /// Where one POST unsubscribes; none for transactional messages.
    pub unsubscribe_url: Option<&'a str>,
}

/// Ready to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    pub key: EffectKey,
    pub from: Address,
    pub to: Address,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{what} {text:?} is not a mail address: {reason}")]
    Address { what: &'static str, text: String, reason: String },
    #[error("the unsubscribe link is not one line of printable ASCII of at most {URL_BYTES_MAX} bytes")]
    Url,
    #[error("the message cannot be written: {0}")]
    Build(String),
}

impl Sender {
    /// Of `Shop <news@shop.example>`; bounces go to the same address if none is named.
    pub fn new(from: &str, reply_to: Option<&str>, bounces: Option<&str>) -> Result<Self, Error> {
        let from = mailbox("from", from)?;
        let reply_to = reply_to.map(|text| mailbox("reply_to", text)).transpose()?;
        let bounces = bounces.map_or_else(|| from.email.to_string(), str::to_owned);
        let sender = Self { from, reply_to, bounces };
        sender.bounces_of(EffectKey([0; 16]))?;
        Ok(sender)
    }

    fn bounces_of(&self, key: EffectKey) -> Result<Address, Error> {
        Ok(mailbox("bounces", &self.bounces.replace(KEY_MARK, &key.to_string()))?.email)
    }
}

fn mailbox(what: &'static str, text: &str) -> Result<Mailbox, Error> {
    text.parse::<Mailbox>().map_err(|error| Error::Address { what, text: text.to_owned(), reason: error.to_string() })
}

/// `<KEY@DOMAIN>`, from which [`key_of`] reads the key when a bounce quotes it.
pub fn message_id(key: EffectKey, domain: &str) -> String {
    format!("<{key}@{domain}>")
}

/// The key of a Message-ID that we made.
pub fn key_of(message_id: &str) -> Option<EffectKey> {
    let id = message_id.trim().trim_start_matches('<').trim_end_matches('>');
    id.split_once('@').and_then(|(key, _)| key.parse().ok())
}

/// The key in a bounce address such as `bounces+KEY@shop.example`.
pub fn key_of_address(address: &str) -> Option<EffectKey> {
    let local = address.rsplit_once('@').map_or(address, |(local, _)| local);
    local.rsplit(['+', '-', '=']).next()?.parse().ok()
}

impl Draft<'_> {
    pub fn write(&self) -> Result<Mail, Error> {
        let to = mailbox("to", self.to)?;
        let date = UNIX_EPOCH + Duration::from_millis(self.date.0.max(0) as u64);
        let mut message = Message::builder()
            .message_id(Some(message_id(self.key, self.sender.from.email.domain())))
            .date(date)
            .from(self.sender.from.clone())
            .to(to.clone())
            .subject(self.words.subject.clone());
        if let Some(reply_to) = &self.sender.reply_to {
            message = message.reply_to(reply_to.clone());
        }
        if let Some(url) = self.unsubscribe_url {
            let is_whole = url.len() <= URL_BYTES_MAX && url.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>'));
            if !is_whole {
                return Err(Error::Url);
            }
            message = message.raw_header(header("List-Unsubscribe", format!("<{url}>")));
            // One click is for HTTPS only (RFC 8058, 3.1); elsewhere the link alone is still worth having.
            if url.starts_with("https://") {
                message = message.raw_header(header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click".to_owned()));
            }
        }
        let text = SinglePart::builder().header(ContentType::TEXT_PLAIN).body(self.words.text.clone());
        let message = match &self.words.html {
            None => message.singlepart(text),
            Some(html) => {
                let html = SinglePart::builder().header(ContentType::TEXT_HTML).body(html.clone());
                let boundary = format!("=_{}", self.key);
                message.multipart(MultiPart::alternative().boundary(boundary).singlepart(text).singlepart(html))
            }
        };
        let message = message.map_err(|error| Error::Build(error.to_string()))?;
        Ok(Mail { key: self.key, from: self.sender.bounces_of(self.key)?, to: to.email, bytes: message.formatted() })
    }
}

fn header(name: &'static str, value: String) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(words: &Rendered) -> Draft<'_> {
        static SENDER: std::sync::OnceLock<Sender> = std::sync::OnceLock::new();
        let sender = SENDER.get_or_init(|| Sender::new("Ünser Shop <news@shop.example>", None, Some("bounces@shop.example")).unwrap());
        Draft {
            key: EffectKey([0xab; 16]),
            sender,
            to: "Ada Lovelace <ada@example.com>",
            date: Millis(1_780_000_000_000),
            words,
            unsubscribe_url: Some("https://shop.example/m/u/token"),
        }
    }

    fn words() -> Rendered {
        Rendered { subject: "Grüße, Ada".into(), text: "Hello.\n.\nBye.".into(), html: Some("<p>Hällo</p>".into()) }
    }

    #[test]
    fn a_mail_has_both_alternatives_one_click_and_the_key() {
        let words = words();
        let mail = draft(&words).write().unwrap();
        assert_eq!((mail.from.to_string(), mail.to.to_string()), ("bounces@shop.example".into(), "ada@example.com".into()));
        let parsed = mail_parser::MessageParser::default().parse(&mail.bytes).unwrap();
        assert_eq!(parsed.message_id().and_then(key_of), Some(mail.key));
        assert_eq!(parsed.subject(), Some("Grüße, Ada"));
        assert_eq!(parsed.body_text(0).unwrap(), "Hello.\r\n.\r\nBye.");
        assert_eq!(parsed.body_html(0).unwrap(), "<p>Hällo</p>");
        let text = String::from_utf8(mail.bytes).unwrap();
        assert!(text.is_ascii() && text.lines().all(|line| line.len() <= 998));
        for header in [
            "List-Unsubscribe: <https://shop.example/m/u/token>\r\n",
            "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
            "Date: Thu, 28 May 2026 20:26:40 +0000\r\n",
            "MIME-Version: 1.0\r\n",
        ] {
            assert!(text.contains(header), "{header} in {text}");
        }
    }

    #[test]
    fn a_bounce_address_may_carry_the_key() {
        let sender = Sender::new("news@shop.example", None, Some("bounces+{key}@shop.example")).unwrap();
        let words = words();
        let mail = Draft { sender: &sender, ..draft(&words) }.write().unwrap();
        assert_eq!(key_of_address(mail.from.as_ref()), Some(mail.key));
        assert_eq!(key_of_address("bounces@shop.example"), None);
        assert!(Sender::new("news@shop.example", None, Some("{key} @shop.example")).is_err());
    }

    #[test]
    fn the_same_draft_is_the_same_bytes() {
        let words = words();
        assert_eq!(draft(&words).write().unwrap(), draft(&words).write().unwrap());
    }

    #[test]
    fn without_https_there_is_a_link_and_no_one_click() {
        let words = words();
        let mail = Draft { unsubscribe_url: Some("http://127.0.0.1:8080/m/u/token"), ..draft(&words) }.write().unwrap();
        let text = String::from_utf8(mail.bytes).unwrap();
        assert!(text.contains("List-Unsubscribe: <http") && !text.contains("List-Unsubscribe-Post"));
    }

    #[test]
    fn nothing_a_person_typed_makes_a_header() {
        let mut words = words();
        words.subject = "a\r\nBcc: all@example.com".into();
        let text = String::from_utf8(draft(&words).write().unwrap().bytes).unwrap();
        assert!(!text.contains("\nBcc"), "{text}");
        let words = self::words();
        for to in ["", "ada", "ada@example.com\r\nBcc: all@example.com", "a@b, c@d"] {
            assert!(Draft { to, ..draft(&words) }.write().is_err(), "{to:?}");
        }
        let long = format!("https://x/{}", "a".repeat(900));
        for url in ["https://x/>\r\nBcc: y", "https://x/ y", long.as_str()] {
            assert_eq!(Draft { unsubscribe_url: Some(url), ..draft(&words) }.write(), Err(Error::Url), "{url:?}");
        }
    }
}
