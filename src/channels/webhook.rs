//! Messages to other systems as Standard Webhooks: signed, with the idempotency key as `webhook-id`, so that the receiver can tell a
//! repetition. The same code checks what others sign.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::failure::{Failure, Refused, Sent, check};
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
        Self::reaching(url, secrets, true)
    }

    /// The same that, unless `private`, reaches only public addresses: whoever may name a receiver could otherwise have this machine ask
    /// its neighbours. What a name stands for is looked at with each connection.
    pub fn reaching(url: &str, secrets: Vec<Secret>, private: bool) -> Result<Self, Failure> {
        let refused = |text: String| Failure::Refused { text, of: Refused::Message };
        let url = reqwest::Url::parse(url).map_err(|error| refused(format!("{url}: {error}")))?;
        let mut builder = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
        if !private {
            // An address in the URL itself is never looked up.
            let literal = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse().ok());
            if literal.is_some_and(|address| !is_public(address)) {
                return Err(refused(format!("{url} is an address in a private network, which is not allowed for this webhook")));
            }
            builder = builder.no_proxy().dns_resolver(Arc::new(PublicOnly));
        }
        let client = builder.build().map_err(|error| refused(error.to_string()))?;
        Ok(Self { client, url, secrets })
    }

    /// `at` is the sender's wall time, part of what is signed.
    pub async fn send(&self, permit: SendPermit, key: EffectKey, at: Millis, body: Vec<u8>) -> Result<Sent, Failure> {
        check(&permit, "webhook", key)?;
        self.post(key, at, body, permit.left()).await
    }

    /// To another system instead of a person, which takes no permit.
    pub async fn post(&self, key: EffectKey, at: Millis, body: Vec<u8>, within: Duration) -> Result<Sent, Failure> {
        let id = format!("msg_{key}");
        let request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header(TIMESTAMP, at.0.div_euclid(1_000).to_string())
            .header(SIGNATURE, signature(&self.secrets, &id, at, &body))
            .header(ID, id)
            .timeout(TIMEOUT.min(within))
            .body(body);
        match request.send().await {
            Ok(response) => answer(response).await,
            Err(error) if error.is_connect() || error.is_builder() => Err(Failure::Passing(error.to_string())),
            Err(error) => Err(Failure::Unknown(error.to_string())),
        }
    }
}

/// Looks names up and leaves out what is not public.
struct PublicOnly;

impl reqwest::dns::Resolve for PublicOnly {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(format!("{} has no public address", name.as_str()).into());
            }
            Ok(Box::new(public.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            let is_reserved = a == 0 || a >= 240 || (a, b, c) == (192, 0, 0) || (a == 198 && (b == 18 || b == 19));
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_documentation()
                || is_shared
                || is_reserved)
        }
        IpAddr::V6(v6) => match v6.to_ipv4() {
            // As `::1` and `::`, mapped ones are judged by what they stand for.
            Some(v4) => is_public(IpAddr::V4(v4)),
            None => {
                let first = v6.segments()[0];
                // 2000::/3 is what is given out; of it, 2002::/16 and 64:ff9b::/96 lead elsewhere.
                first & 0xe000 == 0x2000 && first != 0x2002 && !(first == 0x2001 && v6.segments()[1] == 0)
            }
        },
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
        300..500 => Err(Failure::Refused { text, of: if status.as_u16() == 410 { Refused::Recipient } else { Refused::Message } }),
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
    fn addresses_of_this_machine_and_its_network_are_not_public() {
        let private = [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "::ffff:10.0.0.1",
            "2002:7f00:1::",
            "ff02::1",
            "64:ff9b::a00:1",
        ];
        for address in private {
            assert!(!is_public(address.parse().unwrap()), "{address}");
            let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            let url = format!("https://{host}/hook");
            assert!(Webhook::reaching(&url, vec![], false).is_err() && Webhook::reaching(&url, vec![], true).is_ok(), "{address}");
        }
        for address in ["1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_short_secret_is_refused() {
        for wrong in ["", "whsec_", "whsec_c2hvcnQ=", "whsec_not base64"] {
            assert!(Secret::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
