//! What mail servers send back: bounces (RFC 3464 delivery reports) and complaints (RFC 5965 feedback reports), as plain values.
//!
//! Mail is parsed by mail-parser; the fields of a report's machine part are read here. Whatever is neither is [`Inbound::Other`]: auto-replies
//! and people's answers are for someone else.

use mail_parser::{Message, MessageParser, MimeHeaders, PartType};

use super::mail::{key_of, key_of_address};
use crate::permit::EffectKey;

/// What of a mail is read. A report says what it says before the message that it returns, which may be long.
pub const BYTES_MAX: usize = 1024 * 1024;
const RECIPIENTS_MAX: usize = 100;
const TEXT_CHARS_MAX: usize = 500;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    Bounce(Bounce),
    Complaint(Complaint),
    Other,
}

/// A delivery report, of one message to one or more recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounce {
    /// The message's key, if the report quotes a Message-ID of ours or came to an address that holds it.
    pub key: Option<EffectKey>,
    pub recipients: Vec<Recipient>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// As we addressed it where the report says so, else as the server that failed called it.
    pub address: String,
    pub class: Class,
    /// RFC 3463: `5.1.1`.
    pub status: String,
    /// What the other server said.
    pub diagnostic: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The address takes nothing, ever.
    Hard,
    /// This message did not get through; another may.
    Soft,
    /// The sender or the content was refused, not the address.
    Blocked,
    /// Not yet; the server tries on.
    Delayed,
    /// It arrived.
    Delivered,
}

/// A recipient's "this is spam".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    pub key: Option<EffectKey>,
    /// `abuse`, `fraud`, `not-spam`...
    pub kind: String,
    /// Many providers leave them out, for privacy.
    pub addresses: Vec<String>,
    pub agent: String,
}

impl Complaint {
    /// `not-spam` takes a complaint back.
    pub fn is_complaint(&self) -> bool {
        self.kind != "not-spam"
    }
}

/// Reads one received mail.
pub fn read(bytes: &[u8]) -> Inbound {
    let bytes = &bytes[..bytes.len().min(BYTES_MAX)];
    let Some(message) = MessageParser::default().parse(bytes) else { return Inbound::Other };
    if let Some(report) = part(&message, "delivery-status") {
        let recipients = recipients(&report);
        if !recipients.is_empty() {
            return Inbound::Bounce(Bounce { key: quoted_key(&message), recipients });
        }
    }
    if let Some(report) = part(&message, "feedback-report") {
        return Inbound::Complaint(complaint(&message, &report));
    }
    Inbound::Other
}

/// The text of the first `message/...` part of this subtype.
fn part(message: &Message<'_>, subtype: &str) -> Option<String> {
    let is = |content: &mail_parser::ContentType<'_>| {
        content.ctype().eq_ignore_ascii_case("message") && content.subtype().is_some_and(|found| found.eq_ignore_ascii_case(subtype))
    };
    let part = message.parts.iter().find(|part| part.content_type().is_some_and(is))?;
    Some(String::from_utf8_lossy(part.contents()).into_owned())
}

/// Groups of header fields, unfolded: names in lower case.
fn groups(text: &str) -> Vec<Vec<(String, String)>> {
    let mut groups: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for line in text.lines() {
        let group = groups.last_mut().expect("there is always one");
        if line.trim().is_empty() {
            if !group.is_empty() && groups.len() <= RECIPIENTS_MAX {
                groups.push(Vec::new());
            }
        } else if let (true, Some((_, value))) = (line.starts_with([' ', '\t']), group.last_mut()) {
            value.push(' ');
            value.push_str(line.trim());
        } else if let Some((name, value)) = line.split_once(':') {
            group.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    groups
}

fn field<'a>(group: &'a [(String, String)], name: &str) -> Option<&'a str> {
    group.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

/// `rfc822; ada@example.com` without its type, `<...>` without its brackets.
fn typed(value: &str) -> &str {
    let value = value.split_once(';').map_or(value, |(_, value)| value).trim();
    value.strip_prefix('<').and_then(|value| value.strip_suffix('>')).unwrap_or(value)
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

fn recipients(report: &str) -> Vec<Recipient> {
    let groups = groups(report);
    let of = |group: &Vec<(String, String)>| {
        let named = field(group, "original-recipient").or_else(|| field(group, "final-recipient"))?;
        let action = field(group, "action").unwrap_or("failed").to_ascii_lowercase();
        let status = field(group, "status").unwrap_or("").split_whitespace().next().unwrap_or("").to_owned();
        let diagnostic = field(group, "diagnostic-code").map_or("", typed);
        let class = class(&action, &status);
        Some(Recipient { address: short(typed(named)), class, status: short(&status), diagnostic: short(diagnostic) })
    };
    groups.iter().filter_map(of).collect()
}

/// By RFC 3463: what the subject and detail of a permanent failure say of the address.
fn class(action: &str, status: &str) -> Class {
    match action {
        "delivered" | "relayed" | "expanded" => return Class::Delivered,
        "delayed" => return Class::Delayed,
        _ => {}
    }
    let mut numbers = status.split('.').map(|part| part.parse::<u16>().ok());
    match (numbers.next().flatten(), numbers.next().flatten(), numbers.next().flatten()) {
        // Moved away without a word of where to, or simply not there; a mailbox that was closed.
        (Some(5), Some(1), _) | (Some(5), Some(2), Some(1)) => Class::Hard,
        // Security or policy: about us.
        (Some(5), Some(7), _) => Class::Blocked,
        // A full mailbox, a message too large, a network that fails: the address is there.
        (Some(5), Some(2..=6), _) => Class::Soft,
        // `5.0.0` and what has no code at all: said to be permanent, and nothing else is known.
        (Some(5), ..) => Class::Hard,
        _ => Class::Soft,
    }
}

/// Of a server's permanent answer to the recipient's address: by the status code in its text (RFC 2034), else by RFC 5321's own numbers.
pub fn class_of_reply(code: u16, text: &str) -> Class {
    let is_status = |word: &&str| {
        let mut numbers = word.split('.');
        let is_number = |part: Option<&str>| part.is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        numbers.next() == Some("5") && is_number(numbers.next()) && is_number(numbers.next()) && numbers.next().is_none()
    };
    match text.split([' ', ':', '-', '\n', '\r', '(', ')']).find(is_status) {
        Some(status) => class("failed", status),
        None if matches!(code, 550 | 551 | 553) => Class::Hard,
        None => Class::Soft,
    }
}

fn complaint(message: &Message<'_>, report: &str) -> Complaint {
    let fields: Vec<(String, String)> = groups(report).into_iter().flatten().collect();
    let addresses = fields.iter().filter(|(name, _)| matches!(name.as_str(), "original-rcpt-to" | "removal-recipient"));
    let kind = field(&fields, "feedback-type").unwrap_or("abuse").to_ascii_lowercase();
    Complaint {
        key: quoted_key(message),
        kind: short(&kind),
        addresses: addresses.map(|(_, value)| short(typed(value))).take(RECIPIENTS_MAX).collect(),
        agent: short(field(&fields, "user-agent").unwrap_or("")),
    }
}

/// The key in the Message-ID of the quoted message (a whole one, or only its header), else in the address that the report came to.
fn quoted_key(message: &Message<'_>) -> Option<EffectKey> {
    let addresses = message.to().into_iter().flat_map(|to| to.iter()).filter_map(|to| to.address());
    quoted_id(message).or_else(|| addresses.filter_map(key_of_address).next())
}

fn quoted_id(message: &Message<'_>) -> Option<EffectKey> {
    message.parts.iter().find_map(|part| match &part.body {
        PartType::Message(quoted) => quoted.message_id().and_then(key_of),
        PartType::Multipart(_) => None,
        _ => {
            let content = part.content_type()?;
            let is_header = content.subtype().is_some_and(|subtype| subtype.to_ascii_lowercase().contains("rfc822"));
            let text = String::from_utf8_lossy(part.contents());
            let first = groups(&text).into_iter().next()?;
            is_header.then(|| field(&first, "message-id").and_then(key_of)).flatten()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff";

    fn report(kind: &str, machine: &str, quoted_type: &str) -> Vec<u8> {
        let subtype = if kind == "delivery-status" { "delivery-status" } else { "feedback-report" };
        format!(
            "From: Mail Delivery System <MAILER-DAEMON@mx.example.net>\r\nTo: bounces@shop.example\r\nSubject: Undelivered\r\n\
             MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type={kind}; boundary=\"b1\"\r\n\r\n\
             --b1\r\nContent-Type: text/plain\r\n\r\nSorry.\r\n\r\n\
             --b1\r\nContent-Type: message/{subtype}\r\n\r\n{machine}\r\n\
             --b1\r\nContent-Type: {quoted_type}\r\n\r\nMessage-ID: <{KEY}@shop.example>\r\nFrom: news@shop.example\r\nSubject: Hi\r\n\r\nHello.\r\n--b1--\r\n"
        )
        .into_bytes()
    }

    #[test]
    fn a_bounce_names_the_message_the_address_and_why() {
        let machine = "Reporting-MTA: dns; mx.example.net\r\nArrival-Date: Mon, 1 Jun 2026 10:00:00 +0000\r\n\r\n\
            Final-Recipient: rfc822; ada@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\n\
            Diagnostic-Code: smtp; 550 5.1.1 <ada@example.com>:\r\n    Recipient address rejected\r\n\r\n\
            Original-Recipient: rfc822;<bob@example.com>\r\nFinal-Recipient: RFC822; robert@example.org\r\nAction: DELAYED\r\nStatus: 4.4.1 (timeout)\r\n";
        for quoted in ["message/rfc822", "text/rfc822-headers"] {
            let Inbound::Bounce(bounce) = read(&report("delivery-status", machine, quoted)) else { panic!("no bounce") };
            assert_eq!(bounce.key, Some(KEY.parse().unwrap()), "{quoted}");
            let [ada, bob] = &bounce.recipients[..] else { panic!("{bounce:?}") };
            assert_eq!((ada.address.as_str(), ada.class, ada.status.as_str()), ("ada@example.com", Class::Hard, "5.1.1"));
            assert_eq!(ada.diagnostic, "550 5.1.1 <ada@example.com>: Recipient address rejected");
            assert_eq!((bob.address.as_str(), bob.class, bob.status.as_str()), ("bob@example.com", Class::Delayed, "4.4.1"));
        }
    }

    #[test]
    fn an_address_with_the_key_is_enough() {
        let machine = "Reporting-MTA: dns; x\r\n\r\nFinal-Recipient: rfc822; ada@example.com\r\nStatus: 5.1.1\r\n";
        let whole = String::from_utf8(report("delivery-status", machine, "text/plain")).unwrap();
        let found = |text: &str| match read(text.as_bytes()) {
            Inbound::Bounce(bounce) => bounce.key,
            other => panic!("{other:?}"),
        };
        assert_eq!(found(&whole), None);
        assert_eq!(found(&whole.replace("bounces@", &format!("bounces+{KEY}@"))), Some(KEY.parse().unwrap()));
    }

    #[test]
    fn what_a_status_says_of_the_address() {
        let cases = [
            ("failed", "5.1.1", Class::Hard),
            ("failed", "5.1.10", Class::Hard),
            ("failed", "5.2.1", Class::Hard),
            ("failed", "5.0.0", Class::Hard),
            ("failed", "5.2.2", Class::Soft),
            ("failed", "5.3.4", Class::Soft),
            ("failed", "4.2.2", Class::Soft),
            ("failed", "", Class::Soft),
            ("failed", "5.7.1", Class::Blocked),
            ("delayed", "4.4.1", Class::Delayed),
            ("delivered", "2.0.0", Class::Delivered),
        ];
        for (action, status, expected) in cases {
            assert_eq!(class(action, status), expected, "{action} {status}");
        }
    }

    #[test]
    fn what_an_answer_to_the_address_says_of_it() {
        let cases = [
            (550, "permanent error (550): 5.1.1 <ada@example.com>: Recipient address rejected", Class::Hard),
            (550, "permanent error (550): 5.7.1 Service unavailable; client [192.0.2.1] blocked", Class::Blocked),
            (552, "permanent error (552): 5.2.2 mailbox full", Class::Soft),
            (554, "permanent error (554): 5.1.1: no such user", Class::Hard),
            (550, "permanent error (550): no such user here", Class::Hard),
            (553, "permanent error (553): mailbox name not allowed, see 5.1.1.example", Class::Hard),
            (552, "permanent error (552): out of storage", Class::Soft),
            (554, "permanent error (554): transaction failed", Class::Soft),
        ];
        for (code, text, expected) in cases {
            assert_eq!(class_of_reply(code, text), expected, "{text}");
        }
    }

    #[test]
    fn a_complaint_names_the_message_and_who_complained_if_told() {
        let machine = "Feedback-Type: abuse\r\nUser-Agent: SomeGenerator/1.0\r\nVersion: 1\r\nOriginal-Mail-From: <bounces@shop.example>\r\n\
            Original-Rcpt-To: <ada@example.com>\r\nSource-IP: 192.0.2.1\r\n";
        let Inbound::Complaint(found) = read(&report("feedback-report", machine, "message/rfc822")) else { panic!("no complaint") };
        assert_eq!(found.key, Some(KEY.parse().unwrap()));
        assert_eq!((found.kind.as_str(), found.agent.as_str(), found.is_complaint()), ("abuse", "SomeGenerator/1.0", true));
        assert_eq!(found.addresses, ["ada@example.com"]);
        let taken_back = report("feedback-report", "Feedback-Type: not-spam\r\nVersion: 1\r\n", "message/rfc822");
        let Inbound::Complaint(found) = read(&taken_back) else { panic!("no complaint") };
        assert!(!found.is_complaint() && found.addresses.is_empty());
    }

    #[test]
    fn what_is_no_report_is_someone_elses() {
        let answer = b"From: ada@example.com\r\nSubject: Re: Hi\r\nContent-Type: text/plain\r\n\r\nThanks!\r\n";
        assert_eq!(read(answer), Inbound::Other);
        assert_eq!(read(b""), Inbound::Other);
        assert_eq!(read(&report("delivery-status", "Reporting-MTA: dns; mx.example.net\r\n", "message/rfc822")), Inbound::Other);
        assert_eq!(read(&vec![b'a'; BYTES_MAX + 1]), Inbound::Other);
    }

    #[test]
    fn a_report_that_returns_a_long_message_is_read() {
        let machine = "Reporting-MTA: dns; x\r\n\r\nFinal-Recipient: rfc822; ada@example.com\r\nStatus: 5.1.1\r\n";
        let mut whole = report("delivery-status", machine, "message/rfc822");
        whole.splice(whole.len() - 10.., std::iter::repeat_n(b"0123456789abcdef\r\n".as_slice(), 200_000).flatten().copied());
        let Inbound::Bounce(bounce) = read(&whole) else { panic!("no bounce") };
        assert_eq!((bounce.key, bounce.recipients[0].class), (Some(KEY.parse().unwrap()), Class::Hard));
    }

    #[test]
    fn a_damaged_report_is_read_as_far_as_it_goes() {
        let whole = report(
            "delivery-status",
            "Reporting-MTA: dns; x\r\n\r\nFinal-Recipient: rfc822; ada@example.com\r\nStatus: 5.1.1\r\n",
            "message/rfc822",
        );
        for cut in 0..whole.len() {
            let _ = read(&whole[..cut]);
        }
    }
}
