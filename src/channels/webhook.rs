//! Messages to other systems as Standard Webhooks: signed, with the idempotency key as `webhook-id`, so that the receiver can tell a
//! repetition. The same code checks what others sign.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::failure::{Failure, Sent, check};
use super::hmac::{is_signed, sign};
use crate::domain::Millis;
use crate::permit::{EffectKey, SendPermit};

pub const ID: &str = "webhook-id";
pub const TIMESTAMP: &str = "webhook-timestamp";
pub const SIGNATURE: &str = "webhook-signature";

/// Older or newer than this is a replay, or a wrong clock.
const TOLERANCE_MS: i64 = 5 * 60 * 1_000;
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const SIGNATURES_MAX: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(20);
const ANSWER_BYTES_MAX: usize = 4 * 1024;

/// A shared secret, written `whsec_` and base64.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a webhook secret is `whsec_` and 24 to 64 bytes in base64")]
    Secret,
    #[error("the webhook's timestamp is no number, or more than five minutes off")]
    Timestamp,
    #[error("no signature of the webhook is of a known secret")]
    Signature,
}

impl Secret {
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bytes = STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).map_err(|_| Error::Secret)?;
        if SECRET_BYTES.contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(Error::Secret) }
    }
}

/// The value of `webhook-signature`, one signature for each secret: while one is replaced, the old and the new.
pub fn signature(secrets: &[Secret], id: &str, at: Millis, body: &[u8]) -> String {
    let seconds = at.0.div_euclid(1_000).to_string();
    let signed = secrets.iter().map(|secret| format!("v1,{}", STANDARD.encode(sign(&secret.0, &parts(id, &seconds, body)))));
    signed.collect::<Vec<_>>().join(" ")
}

/// Whether one of the secrets signed this, about now.
pub fn verify(secrets: &[Secret], id: &str, timestamp: &str, signature: &str, body: &[u8], now: Millis) -> Result<(), Error> {
    let seconds: i64 = timestamp.parse().map_err(|_| Error::Timestamp)?;
    let off_ms = seconds.checked_mul(1_000).map_or(i64::MAX, |ms| now.since_ms(Millis(ms)).saturating_abs());
    if off_ms > TOLERANCE_MS {
        return Err(Error::Timestamp);
    }
    let signatures = signature.split(' ').take(SIGNATURES_MAX).filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok());
    let parts = parts(id, timestamp, body);
    let is_known = |code: Vec<u8>| secrets.iter().any(|secret| is_signed(&secret.0, &parts, &code));
    if signatures.into_iter().any(is_known) { Ok(()) } else { Err(Error::Signature) }
}

fn parts<'a>(id: &'a str, seconds: &'a str, body: &'a [u8]) -> [&'a [u8]; 5] {
    [id.as_bytes(), b".", seconds.as_bytes(), b".", body]
}

/// One receiver.
pub struct Webhook {
    client: reqwest::Client,
    url: reqwest::Url,
    secrets: Vec<Secret>,
}

impl Webhook {
    /// A redirect is not followed: it would carry the body to whom nobody named.
    pub fn new(url: &str, secrets: Vec<Secret>) -> Result<Self, Failure> {
        let refused = |text: String| Failure::Refused { text, is_address: false };
        let url = reqwest::Url::parse(url).map_err(|error| refused(format!("{url}: {error}")))?;
        let builder = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
        let client = builder.build().map_err(|error| refused(error.to_string()))?;
        Ok(Self { client, url, secrets })
    }

    /// `at` is the sender's wall time, part of what is signed.
    pub async fn send(&self, permit: SendPermit, key: EffectKey, at: Millis, body: Vec<u8>) -> Result<Sent, Failure> {
        check(&permit, "webhook", key)?;
        let id = format!("msg_{key}");
        let request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header(TIMESTAMP, at.0.div_euclid(1_000).to_string())
            .header(SIGNATURE, signature(&self.secrets, &id, at, &body))
            .header(ID, id)
            .timeout(TIMEOUT.min(permit.left()))
            .body(body);
        match request.send().await {
            Ok(response) => answer(response).await,
            Err(error) if error.is_connect() || error.is_builder() => Err(Failure::Passing(error.to_string())),
            Err(error) => Err(Failure::Unknown(error.to_string())),
        }
    }
}

/// By status: what a receiver must answer is in the standard; what else it answers says whether to come again.
async fn answer(mut response: reqwest::Response) -> Result<Sent, Failure> {
    let status = response.status();
    let mut text = format!("{status}");
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk[..chunk.len().min(ANSWER_BYTES_MAX - body.len())]);
        if body.len() == ANSWER_BYTES_MAX {
            break;
        }
    }
    if !body.is_empty() {
        text = format!("{text}: {}", String::from_utf8_lossy(&body));
    }
    match status.as_u16() {
        200..300 => Ok(Sent::Now(text)),
        // Not before its time, or not taken: it says that it did nothing with it.
        408 | 425 | 429 | 503 => Err(Failure::Passing(text)),
        300..500 => Err(Failure::Refused { text, is_address: status.as_u16() == 410 }),
        _ => Err(Failure::Unknown(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: Millis = Millis(1_614_265_330_000);
    const BODY: &[u8] = br#"{"test": 2432232314}"#;

    /// The published vector of the standard's reference libraries.
    #[test]
    fn the_signature_is_that_of_the_standard() {
        let secret = Secret::parse(SECRET).unwrap();
        assert_eq!(signature(&[secret], ID, AT, BODY), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn one_right_signature_about_now_is_enough_and_nothing_else_is() {
        let secret = Secret::parse(SECRET).unwrap();
        let other = Secret::parse("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX").unwrap();
        let both = signature(&[other.clone(), secret.clone()], ID, AT, BODY);
        let check = |id, timestamp, signature: &str, body, now| verify(std::slice::from_ref(&secret), id, timestamp, signature, body, now);
        let time = "1614265330";
        assert_eq!(check(ID, time, &both, BODY, AT), Ok(()));
        assert_eq!(check(ID, time, &both, BODY, AT + 300_999), Err(Error::Timestamp));
        assert_eq!(check(ID, time, &both, BODY, AT - 300_001), Err(Error::Timestamp));
        assert_eq!(check(ID, "9223372036854775807", &both, BODY, AT), Err(Error::Timestamp));
        assert_eq!(check(ID, "soon", &both, BODY, AT), Err(Error::Timestamp));
        assert_eq!(check("msg_other", time, &both, BODY, AT), Err(Error::Signature));
        assert_eq!(check(ID, "1614265331", &both, BODY, AT), Err(Error::Signature));
        assert_eq!(check(ID, time, &both, b"{}", AT), Err(Error::Signature));
        assert_eq!(check(ID, time, &signature(&[other], ID, AT, BODY), BODY, AT), Err(Error::Signature));
        for wrong in ["", "v1,", "v1,AAAA", "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="] {
            assert_eq!(check(ID, time, wrong, BODY, AT), Err(Error::Signature), "{wrong:?}");
        }
    }

    #[test]
    fn a_short_secret_is_refused() {
        for wrong in ["", "whsec_", "whsec_c2hvcnQ=", "whsec_not base64"] {
            assert!(Secret::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
