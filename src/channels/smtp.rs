//! Mail over SMTP, step by step through lettre's connection, so that a failure says whether the message can have arrived: until its last
//! line is on the way it cannot.
//!
//! Connections are kept for the next message, a few and not for long. STARTTLS or TLS from the first byte; without TLS only where the
//! configuration says so.

use std::time::{Duration, Instant};

use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use parking_lot::Mutex;

use super::failure::{Failure, Refused, Sent, check};
use super::inbound::{Class, class_of_reply};
use super::mail::Mail;
use crate::permit::SendPermit;

/// For the server's address, its greeting, TLS and the login together. A permit is a minute as a rule: a server that hangs is found out
/// while there is time to hand it back.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// For each answer before the message. Servers that hold strangers up do so for seconds; RFC 5321 (4.5.3.2) would wait for minutes.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// RFC 5321 (4.5.3.2) wants ten minutes for the answer to the last line; a server that took it and is that slow is an unknown outcome.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
const IDLE_MAX: usize = 8;
/// Servers hang up after five minutes at the earliest (RFC 5321, 4.5.3.2.7); many do sooner.
const IDLE_FOR: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte, port 465 as a rule.
    Tls,
    /// STARTTLS, without which nothing is sent; port 587 as a rule.
    StartTls,
    /// In the clear: for a relay on this machine or in this network.
    Plain,
}

#[derive(Clone)]
pub struct Settings {
    pub host: String,
    pub port: u16,
    pub security: Security,
    /// User and password.
    pub login: Option<(String, String)>,
    /// How we introduce ourselves; the server's logs show it.
    pub hello: String,
    /// A certificate in PEM that is trusted besides the public ones: a relay of one's own.
    pub ca_pem: Option<String>,
}

/// One server.
pub struct Smtp {
    settings: Settings,
    tls: Option<TlsParameters>,
    hello: ClientId,
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
    patience: Patience,
}

/// How long the server is waited for, at most; the permit may be over before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) open: Duration,
    pub(super) command: Duration,
}

impl Smtp {
    pub fn new(settings: Settings) -> Result<Self, Failure> {
        let tls = if settings.security == Security::Plain { None } else { Some(tls(&settings).map_err(unsent)?) };
        let hello = ClientId::Domain(settings.hello.clone());
        let patience = Patience { open: OPEN_TIMEOUT, command: COMMAND_TIMEOUT };
        Ok(Self { settings, tls, hello, idle: Mutex::new(Vec::new()), patience })
    }

    #[cfg(test)]
    pub(super) fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Uses the permit's time from now on: what has not begun its last step when it runs out is not sent. That it ran out while the server
    /// was talked to is the server's failure.
    pub async fn send(&self, permit: SendPermit, mail: &Mail) -> Result<Sent, Failure> {
        check(&permit, "email", mail.key)?;
        let deadline = Instant::now() + permit.left();
        let mut connection = within(deadline, self.patience.open, "to open a connection", self.connection()).await?;
        let sent = self.hand_over(&mut connection, mail, deadline).await;
        // What was begun and refused is taken back, or the server would take the next message for a part of it.
        let is_clean = match &sent {
            Ok(_) => true,
            Err(Failure::Refused { .. }) => {
                let reset = async { connection.command(Rset).await.map_err(unsent) };
                within(deadline, self.patience.command, "RSET", reset).await.is_ok()
            }
            Err(_) => false,
        };
        let is_usable = is_clean && !connection.has_broken();
        if is_usable {
            self.keep(connection);
        } else {
            // Hanging up politely must not hold the answer up.
            tokio::spawn(async move { tokio::time::timeout(CONNECT_TIMEOUT, connection.abort()).await });
        }
        sent
    }

    async fn hand_over(&self, connection: &mut AsyncSmtpConnection, mail: &Mail, deadline: Instant) -> Result<Sent, Failure> {
        let is_ascii = [&mail.from, &mail.to].iter().all(|address| AsRef::<str>::as_ref(*address).is_ascii());
        let mut options = Vec::new();
        if !is_ascii {
            if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                return Err(Failure::Refused { text: "the server takes no addresses outside ASCII".to_owned(), of: Refused::Recipient });
            }
            options.push(MailParameter::SmtpUtfEight);
        }
        let step = Step { deadline, at_most: self.patience.command };
        step.of("MAIL", connection.command(MailFrom::new(Some(mail.from.clone()), options)), false).await?;
        step.of("RCPT", connection.command(Rcpt::new(mail.to.clone(), Vec::new())), true).await?;
        step.of("DATA", connection.command(Data), false).await?;
        // From here on the server may have it, whatever we hear.
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, connection.message(&mail.bytes)).await;
        match answer {
            Ok(Ok(response)) => Ok(Sent::Now(response.message().collect::<Vec<_>>().join(" "))),
            Ok(Err(error)) if error.status().is_some() => Err(refusal(&error, false)),
            Ok(Err(error)) => Err(Failure::Unknown(error.to_string())),
            Err(_) => Err(Failure::Unknown(format!("no answer to the message within {} s", ANSWER_TIMEOUT.as_secs()))),
        }
    }

    async fn connection(&self) -> Result<AsyncSmtpConnection, Failure> {
        while let Some(mut connection) = self.take_idle() {
            if connection.test_connected().await {
                return Ok(connection);
            }
        }
        let wrapped = self.tls.clone().filter(|_| self.settings.security == Security::Tls);
        let server = (self.settings.host.as_str(), self.settings.port);
        let connected = AsyncSmtpConnection::connect_tokio1(server, Some(CONNECT_TIMEOUT), &self.hello, wrapped, None).await;
        let mut connection = connected.map_err(unsent)?;
        if let (Security::StartTls, Some(tls)) = (self.settings.security, self.tls.clone()) {
            connection.starttls(tls, &self.hello).await.map_err(unsent)?;
        }
        if let Some((user, password)) = &self.settings.login {
            let credentials = Credentials::new(user.clone(), password.clone());
            connection.auth(DEFAULT_MECHANISMS, &credentials).await.map_err(unsent)?;
        }
        Ok(connection)
    }

    fn take_idle(&self) -> Option<AsyncSmtpConnection> {
        let mut idle = self.idle.lock();
        idle.retain(|(_, since)| since.elapsed() < IDLE_FOR);
        idle.pop().map(|(connection, _)| connection)
    }

    fn keep(&self, connection: AsyncSmtpConnection) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push((connection, Instant::now()));
        }
    }
}

fn tls(settings: &Settings) -> Result<TlsParameters, Error> {
    let mut builder = TlsParameters::builder(settings.host.clone());
    if let Some(pem) = &settings.ca_pem {
        builder = builder.add_root_certificate(Certificate::from_pem(pem.as_bytes())?);
    }
    builder.build_rustls()
}

/// What is asked of the server before the message itself, `at_most` so long and not beyond the permit: without an answer nothing was sent.
async fn within<T>(
    deadline: Instant,
    at_most: Duration,
    what: &str,
    asked: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let left = deadline.saturating_duration_since(Instant::now()).min(at_most);
    let silence = |_| Err(Failure::Passing(format!("the server did not answer ({what}) within {left:.1?}")));
    tokio::time::timeout(left, asked).await.unwrap_or_else(silence)
}

/// One command before the message itself: whatever goes wrong, nothing was sent.
#[derive(Clone, Copy)]
struct Step {
    deadline: Instant,
    at_most: Duration,
}

impl Step {
    async fn of<T>(self, what: &str, command: impl Future<Output = Result<T, Error>>, names_recipient: bool) -> Result<T, Failure> {
        within(self.deadline, self.at_most, what, async {
            command.await.map_err(|error| if error.is_permanent() { refusal(&error, names_recipient) } else { unsent(error) })
        })
        .await
    }
}

fn unsent(error: Error) -> Failure {
    Failure::Passing(error.to_string())
}

/// What the server's own word says of trying again.
fn refusal(error: &Error, names_recipient: bool) -> Failure {
    if !error.is_permanent() {
        return Failure::Passing(error.to_string());
    }
    let text = error.to_string();
    let code = error.status().map_or(0, u16::from);
    let of = match class_of_reply(code, &text) {
        _ if !names_recipient => Refused::Message,
        Class::Hard => Refused::Address,
        _ => Refused::Recipient,
    };
    Failure::Refused { text, of }
}
