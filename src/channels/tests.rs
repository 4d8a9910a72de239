//! Sending for real: a folder that loses power, an SMTP server that misbehaves step by step, a receiver of webhooks.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::mail::{Draft, Mail, Sender, key_of};
use super::outbox::Outbox;
use super::smtp::{Patience, Security, Settings, Smtp};
use super::template::Rendered;
use super::webhook::{self, Secret, Webhook};
use super::{Failure, Refused, Sent};
use crate::consent::Consent;
use crate::domain::{Duration, Millis};
use crate::env::fs::sim::Crash;
use crate::env::fs::{Fs, SimFs};
use crate::permit::{
    AddressKey, Basis, Decision, EffectKey, Executor, Ledger, Policy, Priority, Purpose, Request, SendPermit, Standing, Suppressions,
    decide,
};

fn permit(key: EffectKey, channel: &str) -> SendPermit {
    permit_after(key, channel, Duration::ZERO)
}

/// One of ten seconds, of which so much is over.
fn permit_after(key: EffectKey, channel: &str, elapsed: Duration) -> SendPermit {
    let purposes = vec![Purpose { name: "receipts".into(), basis: Basis::Transactional }];
    let policy = Policy { purposes, caps: Vec::new(), quiet: Vec::new(), zone: "UTC".into(), valid_ms: 10_000 };
    let address = Some(AddressKey::of(channel, "ada@example.com"));
    let (consent, suppressions) = (Consent::default(), Suppressions::default());
    let standing = Standing { consent: &consent, suppressions: &suppressions, address, zone: None, block: None };
    let executor = Executor([1; 16]);
    let request = Request { key, executor, channel, purpose: "receipts", priority: Priority::Normal, not_after: None };
    match decide(&policy, &Ledger::default(), &standing, &request, Millis(0)) {
        Decision::Granted(grant) => grant.redeem(executor, elapsed).unwrap(),
        Decision::Refused(refusal) => panic!("{refusal}"),
    }
}

fn mail(n: u8) -> Mail {
    mail_to(n, "ada@example.com")
}

fn mail_to(n: u8, to: &str) -> Mail {
    let sender = Sender::new("Shop <news@shop.example>", None, Some("bounces@shop.example")).unwrap();
    let html = Some("<p>Hällo</p>".to_owned());
    let words = Rendered { subject: "Grüße".into(), text: "Hello.\n.\nA line that begins with a dot is doubled.".into(), html };
    let unsubscribe_url = Some("https://shop.example/m/unsubscribe/token");
    let date = Millis(1_780_000_000_000);
    Draft { key: EffectKey([n; 16]), sender: &sender, to, date, words: &words, unsubscribe_url }.write().unwrap()
}

#[test]
fn a_message_is_one_file_however_often_it_is_sent() {
    let fs = SimFs::new(1);
    let outbox = Outbox::open(Arc::new(fs.clone()), Path::new("/outbox")).unwrap();
    let mail = mail(1);
    assert!(matches!(outbox.send(permit(mail.key, "email"), &mail), Ok(Sent::Now(_))));
    assert_eq!(outbox.send(permit(mail.key, "email"), &mail), Ok(Sent::Before));
    assert_eq!(fs.list(Path::new("/outbox")).unwrap(), [outbox.path(mail.key)]);
}

#[test]
fn a_permit_sends_only_its_own_message_on_its_own_channel() {
    let outbox = Outbox::open(Arc::new(SimFs::new(1)), Path::new("/outbox")).unwrap();
    let mail = mail(1);
    for wrong in [permit(EffectKey([2; 16]), "email"), permit(mail.key, "sms")] {
        assert!(matches!(outbox.send(wrong, &mail), Err(Failure::Permit(_))));
    }
    assert!(!outbox.path(mail.key).exists());
}

#[test]
fn what_a_crash_left_half_written_is_cleared_away() {
    let fs = SimFs::new(1);
    let outbox = Outbox::open(Arc::new(fs.clone()), Path::new("/outbox")).unwrap();
    let mail = mail(1);
    outbox.send(permit(mail.key, "email"), &mail).unwrap();
    fs.create(Path::new("/outbox/02.0a.part")).unwrap();
    Outbox::open(Arc::new(fs.clone()), Path::new("/outbox")).unwrap();
    assert_eq!(fs.list(Path::new("/outbox")).unwrap(), [outbox.path(mail.key)]);
}

#[test]
fn power_may_fail_at_any_moment_of_a_send_and_the_next_one_finishes_it() {
    let mail = mail(1);
    for (moment, seed) in (0..12).flat_map(|moment| (0..20).map(move |seed| (moment, seed))) {
        let fs = SimFs::new(seed);
        let outbox = Outbox::open(Arc::new(fs.clone()), Path::new("/outbox")).unwrap();
        fs.power_off_after(moment);
        let first = outbox.send(permit(mail.key, "email"), &mail);
        let fs = fs.crash(Crash::Power, seed);
        let outbox = Outbox::open(Arc::new(fs.clone()), Path::new("/outbox")).unwrap();
        let path = outbox.path(mail.key);
        assert!(first.is_err() || fs.exists(&path), "what was said to be sent is there, moment {moment}, seed {seed}");
        outbox.send(permit(mail.key, "email"), &mail).unwrap();
        let file = fs.open(&path, false).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, mail.bytes, "moment {moment}, seed {seed}");
        let messages = fs.list(Path::new("/outbox")).unwrap();
        assert_eq!(messages.iter().filter(|path| path.extension().is_some_and(|extension| extension == "eml")).count(), 1);
    }
}

/// What the server answers at one step instead of yes, the first time that it comes there.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Answer(&'static str, &'static str),
    HangUp(&'static str),
    /// The connection stands, and nothing more is said; `` is the greeting.
    Hang(&'static str),
    /// The message arrived, its answer does not.
    HangUpAfterMessage,
}

/// One server for all connections of a test; gives the messages that it took.
async fn server(fault: Fault) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (took, taken) = tokio::sync::mpsc::unbounded_channel();
    let fault = Arc::new(Mutex::new(fault));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (took, fault) = (took.clone(), Arc::clone(&fault));
            tokio::spawn(async move { serve(stream, fault, took).await });
        }
    });
    (port, taken)
}

/// The fault, if it is one of this step: once.
fn at(fault: &Mutex<Fault>, step: &str) -> Fault {
    let mut fault = fault.lock();
    let is_here = match *fault {
        Fault::Answer(at, _) | Fault::HangUp(at) | Fault::Hang(at) => at == step,
        Fault::HangUpAfterMessage => step == ".",
        Fault::None => false,
    };
    if is_here { std::mem::replace(&mut *fault, Fault::None) } else { Fault::None }
}

/// As strict about the order of commands as RFC 5321 lets a server be: a mail transaction that is open takes no other.
async fn serve(stream: tokio::net::TcpStream, fault: Arc<Mutex<Fault>>, took: tokio::sync::mpsc::UnboundedSender<String>) -> Option<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let (mut has_sender, mut has_recipient) = (false, false);
    if let Fault::Hang(_) = at(&fault, "") {
        std::future::pending::<()>().await;
    }
    write.write_all(b"220 test ESMTP\r\n").await.ok()?;
    while let Some(line) = lines.next_line().await.ok()? {
        let verb = line.split([' ', ':']).next().unwrap_or("").to_ascii_uppercase();
        let answer = match (verb.as_str(), at(&fault, &verb)) {
            (_, Fault::Answer(_, answer)) => answer,
            (_, Fault::HangUp(_)) => return None,
            (_, Fault::Hang(_)) => std::future::pending().await,
            ("EHLO", _) => "250-test\r\n250-8BITMIME\r\n250 SMTPUTF8",
            ("MAIL", _) if has_sender => "503 5.5.1 nested MAIL command",
            ("MAIL", _) => {
                has_sender = true;
                "250 ok"
            }
            ("RCPT", _) if line.contains("<gone@") => "550 5.1.1 nobody here",
            ("RCPT", _) => {
                has_recipient = true;
                "250 ok"
            }
            ("RSET", _) => {
                (has_sender, has_recipient) = (false, false);
                "250 ok"
            }
            ("DATA", _) if !(has_sender && has_recipient) => "503 5.5.1 no valid recipients",
            ("DATA", _) => {
                write.write_all(b"354 go on\r\n").await.ok()?;
                let mut message = String::new();
                loop {
                    match lines.next_line().await.ok()?? {
                        end if end == "." => break,
                        line => message.extend([line.strip_prefix('.').unwrap_or(&line), "\r\n"]),
                    }
                }
                took.send(message).ok()?;
                (has_sender, has_recipient) = (false, false);
                match at(&fault, ".") {
                    Fault::HangUpAfterMessage => return None,
                    Fault::Hang(_) => std::future::pending().await,
                    Fault::Answer(".", answer) => answer,
                    _ => "250 2.0.0 queued as 42",
                }
            }
            _ => "250 ok",
        };
        write.write_all(format!("{answer}\r\n").as_bytes()).await.ok()?;
    }
    None
}

fn smtp(port: u16, security: Security) -> Smtp {
    let (host, hello) = ("127.0.0.1".to_owned(), "flywheel.test".to_owned());
    Smtp::new(Settings { host, port, security, login: None, hello, ca_pem: None }).unwrap()
}

#[tokio::test]
async fn a_mail_arrives_byte_for_byte_and_the_next_one_on_the_same_connection() {
    let (port, mut taken) = server(Fault::None).await;
    let smtp = smtp(port, Security::Plain);
    for n in 1..=3 {
        let mail = mail(n);
        let sent = smtp.send(permit(mail.key, "email"), &mail).await;
        assert_eq!(sent, Ok(Sent::Now("2.0.0 queued as 42".into())));
        let message = taken.recv().await.unwrap();
        assert_eq!(message.trim_end(), String::from_utf8(mail.bytes).unwrap().trim_end());
    }
}

#[tokio::test]
async fn a_failure_says_whether_the_message_may_have_arrived() {
    let kind = |failure: &Failure| match failure {
        Failure::Permit(_) => "permit",
        Failure::Passing(_) => "passing",
        Failure::Refused { of: Refused::Address, .. } => "address refused",
        Failure::Refused { of: Refused::Recipient, .. } => "recipient refused",
        Failure::Refused { .. } => "refused",
        Failure::Unknown(_) => "unknown",
    };
    let cases = [
        (Fault::Answer("EHLO", "421 busy"), "passing"),
        (Fault::Answer("MAIL", "550 5.7.1 not you"), "refused"),
        (Fault::Answer("RCPT", "550 5.1.1 nobody here"), "address refused"),
        (Fault::Answer("RCPT", "550 5.7.1 not from there"), "recipient refused"),
        (Fault::Answer("RCPT", "451 4.2.1 greylisted"), "passing"),
        (Fault::Answer("DATA", "554 5.5.1 no"), "refused"),
        (Fault::Answer(".", "554 5.7.1 spam"), "refused"),
        (Fault::Answer(".", "452 4.3.1 disk full"), "passing"),
        (Fault::HangUp("RCPT"), "passing"),
        (Fault::HangUp("DATA"), "passing"),
        (Fault::HangUpAfterMessage, "unknown"),
    ];
    for (fault, expected) in cases {
        let (port, _taken) = server(fault).await;
        let smtp = smtp(port, Security::Plain);
        let mail = mail(1);
        let failure = smtp.send(permit(mail.key, "email"), &mail).await.unwrap_err();
        assert_eq!(kind(&failure), expected, "{fault:?}: {failure}");
        assert_eq!(failure.is_unused(), expected != "unknown");
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_a_failure_of_its_own_and_what_it_was_not_given_is_not_sent() {
    let (short, long) = (std::time::Duration::from_millis(50), std::time::Duration::from_secs(600));
    for hangs_at in ["", "EHLO", "MAIL", "RCPT", "DATA"] {
        let (port, mut taken) = server(Fault::Hang(hangs_at)).await;
        let smtp = smtp(port, Security::Plain).with_patience(Patience { open: short, command: short });
        let mail = mail(1);
        let failure = smtp.send(permit(mail.key, "email"), &mail).await.unwrap_err();
        assert!(matches!(&failure, Failure::Passing(why) if why.contains("did not answer")), "{hangs_at:?}: {failure}");
        assert!(failure.is_unused() && taken.try_recv().is_err());
        // The next one is none the worse for it.
        let smtp = smtp.with_patience(Patience { open: long, command: long });
        assert!(smtp.send(permit(mail.key, "email"), &mail).await.is_ok(), "{hangs_at:?}");
        // A permit that is shorter than the server is waited for ends the waiting, and is as little said to have done nothing.
        let (port, _taken) = server(Fault::Hang(hangs_at)).await;
        let impatient = self::smtp(port, Security::Plain).with_patience(Patience { open: long, command: long });
        let failure = impatient.send(permit_after(mail.key, "email", Duration::from_millis(9_950)), &mail).await.unwrap_err();
        assert!(matches!(failure, Failure::Passing(_)), "{hangs_at:?}: {failure}");
    }
}

#[tokio::test]
async fn a_failure_leaves_nothing_behind_that_the_next_message_stumbles_over() {
    let faults = [
        Fault::Answer("MAIL", "550 5.7.1 not you"),
        Fault::Answer("RCPT", "550 5.1.1 nobody here"),
        Fault::Answer("RCPT", "451 4.2.1 greylisted"),
        Fault::Answer("DATA", "554 5.5.1 no"),
        Fault::Answer("DATA", "451 4.3.0 not now"),
        Fault::Answer(".", "554 5.7.1 spam"),
        Fault::Answer("RSET", "421 4.3.2 going down"),
        Fault::HangUp("RCPT"),
        Fault::HangUpAfterMessage,
    ];
    for fault in faults {
        let (port, mut taken) = server(fault).await;
        let smtp = smtp(port, Security::Plain);
        // Reset is asked for after a refusal only.
        let first = if matches!(fault, Fault::Answer("RSET", _)) { mail_to(1, "gone@example.com") } else { mail(1) };
        let failed = smtp.send(permit(first.key, "email"), &first).await;
        assert!(failed.is_err(), "{fault:?}: {failed:?}");
        while taken.try_recv().is_ok() {}
        let good = mail(2);
        let sent = smtp.send(permit(good.key, "email"), &good).await;
        assert_eq!(sent, Ok(Sent::Now("2.0.0 queued as 42".into())), "{fault:?}");
        assert!(taken.recv().await.unwrap().contains("Subject:"), "{fault:?}");
    }
}

#[tokio::test]
async fn without_a_server_or_its_tls_nothing_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mail = mail(1);
    assert!(matches!(smtp(port, Security::Plain).send(permit(mail.key, "email"), &mail).await, Err(Failure::Passing(_))));
    let (port, mut taken) = server(Fault::None).await;
    let failure = smtp(port, Security::StartTls).send(permit(mail.key, "email"), &mail).await.unwrap_err();
    assert!(matches!(failure, Failure::Passing(_)), "a server without STARTTLS gets nothing: {failure}");
    assert!(taken.try_recv().is_err());
}

/// `tests/smtp/run.sh` names a real server here, and reads what it stored.
#[tokio::test]
async fn a_real_server_takes_it_if_one_is_named() {
    let Ok(port) = std::env::var("FLYWHEEL_TEST_SMTP_PORT") else { return };
    let ca_pem = std::env::var("FLYWHEEL_TEST_SMTP_CA").ok().map(|path| std::fs::read_to_string(path).unwrap());
    let security = if ca_pem.is_some() { Security::StartTls } else { Security::Plain };
    let (host, hello) = ("localhost".to_owned(), "flywheel.test".to_owned());
    let port = port.parse().unwrap();
    let smtp = Smtp::new(Settings { host, port, security, login: None, hello, ca_pem }).unwrap();
    for n in 1..=3 {
        let mail = mail(n);
        let sent = smtp.send(permit(mail.key, "email"), &mail).await;
        assert!(matches!(sent, Ok(Sent::Now(_))), "{sent:?}");
    }
}

type Received = (axum::http::HeaderMap, axum::body::Bytes);

async fn receiver(status: u16) -> (String, tokio::sync::mpsc::UnboundedReceiver<Received>) {
    let (took, taken) = tokio::sync::mpsc::unbounded_channel();
    let take = move |headers: axum::http::HeaderMap, body: axum::body::Bytes| async move {
        took.send((headers, body)).unwrap();
        (axum::http::StatusCode::from_u16(status).unwrap(), "noted")
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let routes = axum::Router::new().route("/hook", axum::routing::post(take));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper_util::service::TowerToHyperService::new(routes.clone());
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(async move { hyper::server::conn::http1::Builder::new().serve_connection(io, service).await });
        }
    });
    (url, taken)
}

#[tokio::test]
async fn a_webhook_arrives_signed_and_its_key_is_its_id() {
    let (url, mut taken) = receiver(200).await;
    let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let hook = Webhook::new(&url, vec![secret.clone()]).unwrap();
    let (key, at) = (EffectKey([3; 16]), Millis(1_780_000_000_000));
    let sent = hook.send(permit(key, "webhook"), key, at, b"{\"a\":1}".to_vec()).await;
    assert_eq!(sent, Ok(Sent::Now("200 OK: noted".into())));
    let (headers, body) = taken.recv().await.unwrap();
    let header = |name: &str| headers[name].to_str().unwrap();
    assert_eq!(header(webhook::ID), format!("msg_{key}"));
    let checked = webhook::verify(&[secret], header(webhook::ID), header(webhook::TIMESTAMP), header(webhook::SIGNATURE), &body, at);
    assert_eq!(checked, Ok(()));
}

#[tokio::test]
async fn a_receivers_status_says_whether_to_come_again() {
    let cases = [(204, "sent"), (301, "refused"), (404, "refused"), (410, "gone"), (429, "passing"), (503, "passing"), (500, "unknown")];
    for (status, expected) in cases {
        let (url, _taken) = receiver(status).await;
        let hook = Webhook::new(&url, Vec::new()).unwrap();
        let key = EffectKey([4; 16]);
        let found = match hook.send(permit(key, "webhook"), key, Millis(0), Vec::new()).await {
            Ok(_) => "sent",
            Err(Failure::Refused { of: Refused::Recipient, .. }) => "gone",
            Err(Failure::Refused { .. }) => "refused",
            Err(Failure::Passing(_)) => "passing",
            Err(Failure::Unknown(_)) => "unknown",
            Err(Failure::Permit(_)) => "permit",
        };
        assert_eq!(found, expected, "{status}");
    }
}

#[test]
fn the_key_comes_back_from_the_message_id() {
    let mail = mail(7);
    let parsed = mail_parser::MessageParser::default().parse(&mail.bytes).unwrap();
    assert_eq!(key_of(parsed.message_id().unwrap()), Some(mail.key));
    assert_eq!(key_of("<someone@else.example>"), None);
}
