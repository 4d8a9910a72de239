//! Token buckets in Redis, shared by all gateways, drawn on in advance: no request waits for Redis.
//!
//! Each process holds a small purse per tenant, a tenth of a second's worth, and fills it by one script that fills the bucket, takes from it
//! and answers what it gave. A purse may go into debt by as much, which the next drawing pays, so that the first request of a quiet tenant
//! is not kept waiting; more than the purse and the debt of each gateway is never admitted beyond the shared limit.
//!
//! The time is Redis's own (`TIME` within the script): buckets are everybody's, and the clock of a gateway that is a minute ahead would
//! fill them for all. A bucket lives until it would be full, so that tenants who are gone cost nothing, and one that was flushed or expired
//! begins full.
//!
//! A drawing that got no answer by its deadline leaves Redis alone for a while: this process's share decides, and says so. Then a single
//! drawing tries again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::{Client, ConnectionInfo, IntoConnectionInfo, RedisError, Script};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::{Error, Local, RedisOptions};
use crate::domain::TenantId;

/// Takes as many tokens as are wanted or there are: how many, and the milliseconds until there is one more. Tokens are kept in millionths,
/// whole numbers, so that nothing is rounded away at high rates.
const DRAW: &str = r"
local rate, burst, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local kept = redis.call('HMGET', KEYS[1], 't', 'at')
local tokens, at = tonumber(kept[1]) or burst * 1000000, tonumber(kept[2]) or now
tokens = math.min(tokens + math.max(now - at, 0) * rate, burst * 1000000)
local given = math.min(want, math.floor(tokens / 1000000))
tokens = tokens - given * 1000000
local wait = 0
if tokens < 1000000 then
  wait = math.ceil((1000000 - tokens) / rate / 1000)
end
redis.call('HSET', KEYS[1], 't', string.format('%.0f', tokens), 'at', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil((burst * 1000000 - tokens) / rate / 1000) + 1000)
return {given, wait}
";

/// A purse holds the tokens of this part of a second, and may owe as many.
const PURSES_PER_S: u32 = 10;
const CONNECTING: Duration = Duration::from_secs(2);
const REFUSED: &str = "redis.url";

/// The buckets of all tenants, in Redis while it answers.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    client: Client,
    manager: ConnectionManagerConfig,
    connection: OnceCell<ConnectionManager>,
    script: Script,
    rate: u32,
    burst: u32,
    purse: i64,
    prefix: String,
    timeout: Duration,
    pause: Duration,
    share: Local,
    start: Instant,
    /// Of each tenant that asked, which only configured ones do.
    purses: Mutex<HashMap<TenantId, Purse>>,
    /// Milliseconds since `start` until which it is left alone; 0 while it answers.
    away_until_ms: AtomicU64,
}

/// What this process has drawn for a tenant.
#[derive(Default)]
struct Purse {
    /// Below zero it is owed.
    tokens: i64,
    is_drawing: bool,
    /// The bucket was empty: nothing is drawn before this.
    empty_until: Option<Instant>,
}

fn info(options: &RedisOptions) -> Result<ConnectionInfo, Error> {
    // The parser's error may quote what it was given, and a login may be in it.
    let refuse = |detail: &str| Error { key: REFUSED, detail: detail.to_owned() };
    if options.url.contains('@') {
        return Err(refuse("holds a login; give it as redis.user and redis.password, which are never shown"));
    }
    let info = options.url.as_str().into_connection_info().map_err(|_| refuse("is no address such as redis://127.0.0.1:6379/0"))?;
    let mut settings = info.redis_settings().clone();
    if !options.user.is_empty() {
        settings = settings.set_username(&options.user);
    }
    if !options.password.is_empty() {
        settings = settings.set_password(&options.password);
    }
    Ok(info.set_redis_settings(settings))
}

/// Whether a server answers there under this login, for a start that should say so at once.
///
/// # Errors
/// The key to change: `redis.url` where nobody answers within two seconds, `redis.password` where the login is refused.
pub async fn check(options: &RedisOptions) -> Result<(), Error> {
    let client = Client::open(info(options)?).map_err(|error| Error { key: REFUSED, detail: error.to_string() })?;
    let answer = tokio::time::timeout(CONNECTING, async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        ::redis::cmd("PING").query_async::<String>(&mut connection).await
    });
    match answer.await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(refused(&error)),
        Err(_) => Err(Error { key: REFUSED, detail: format!("no answer within {} s", CONNECTING.as_secs()) }),
    }
}

fn refused(error: &RedisError) -> Error {
    let text = error.to_string();
    let is_login = ["NOAUTH", "WRONGPASS", "AuthenticationFailed", "uthentication"].iter().any(|word| text.contains(word));
    Error { key: if is_login { "redis.password" } else { REFUSED }, detail: text }
}

impl Redis {
    /// Nothing is asked of Redis yet.
    ///
    /// # Errors
    /// `redis.url` is no address.
    pub fn new(options: &RedisOptions, rate: u32, burst: u32) -> Result<Self, Error> {
        let client = Client::open(info(options)?).map_err(|error| Error { key: REFUSED, detail: error.to_string() })?;
        let timeout = Duration::from_millis(options.timeout_ms.max(1));
        let manager = ConnectionManagerConfig::new().set_connection_timeout(Some(CONNECTING)).set_response_timeout(Some(timeout));
        Ok(Self(Arc::new(Inner {
            client,
            manager: manager.set_number_of_retries(0),
            connection: OnceCell::new(),
            script: Script::new(DRAW),
            rate,
            burst: burst.max(1),
            purse: i64::from((rate / PURSES_PER_S).min(burst / 2).max(1)),
            prefix: options.prefix.clone(),
            timeout,
            pause: Duration::from_millis(options.pause_ms.max(1)),
            share: Local::share(rate, burst, options.gateways),
            start: Instant::now(),
            purses: Mutex::default(),
            away_until_ms: AtomicU64::new(0),
        })))
    }

    /// Must be called within a runtime, which draws on Redis beside the request.
    pub(super) fn admit(&self, tenant: &TenantId) -> Result<(), Duration> {
        let inner = &self.0;
        if inner.rate == 0 {
            return Ok(());
        }
        if inner.is_away() {
            if inner.may_try() {
                self.draw(tenant, inner.purse);
            }
            return inner.share.admit(tenant);
        }
        let mut purses = inner.purses.lock();
        let purse = purses.entry(tenant.clone()).or_default();
        let empty_for = purse.empty_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        let wanted =
            if empty_for.is_zero() && !purse.is_drawing && purse.tokens <= inner.purse / 2 { inner.purse - purse.tokens } else { 0 };
        let can_owe = empty_for.is_zero() && purse.tokens > -inner.purse;
        let admitted = if purse.tokens > 0 || can_owe {
            purse.tokens -= 1;
            Ok(())
        } else {
            // A drawing is under way, or the bucket is empty for this long.
            Err(empty_for.max(Duration::from_millis(1)))
        };
        purse.is_drawing |= wanted > 0;
        drop(purses);
        if wanted > 0 {
            self.draw(tenant, wanted);
        }
        admitted
    }

    /// Fills the tenant's purse, in its own time.
    fn draw(&self, tenant: &TenantId, wanted: i64) {
        let (inner, tenant) = (Arc::clone(&self.0), tenant.clone());
        tokio::spawn(async move {
            let answer = match tokio::time::timeout(inner.timeout, inner.take(&tenant, wanted)).await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err("no answer within its deadline".to_owned()),
            };
            let mut purses = inner.purses.lock();
            let purse = purses.entry(tenant).or_default();
            purse.is_drawing = false;
            match answer {
                Ok((given, wait_ms)) => {
                    purse.tokens += given;
                    purse.empty_until = (given < wanted).then(|| Instant::now() + Duration::from_millis(wait_ms));
                    drop(purses);
                    inner.answered();
                }
                Err(why) => {
                    // What was drawn and owed ends with it: the share counts from here.
                    purses.clear();
                    drop(purses);
                    inner.went_away(&why);
                }
            }
        });
    }

    pub(super) fn degraded(&self) -> Option<String> {
        self.0.is_away().then(|| "redis does not answer: request rates are counted by this process's share".to_owned())
    }
}

impl Inner {
    async fn take(&self, tenant: &TenantId, wanted: i64) -> Result<(i64, u64), RedisError> {
        let make = || async { ConnectionManager::new_lazy_with_config(self.client.clone(), self.manager.clone()) };
        let mut connection = self.connection.get_or_try_init(make).await?.clone();
        let key = format!("{}:rate:{tenant}", self.prefix);
        self.script.key(key).arg(self.rate).arg(self.burst).arg(wanted).invoke_async(&mut connection).await
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn is_away(&self) -> bool {
        self.away_until_ms.load(Ordering::Relaxed) != 0
    }

    /// Yes to one request each time the pause is over.
    fn may_try(&self) -> bool {
        let until = self.away_until_ms.load(Ordering::Relaxed);
        let now = self.now_ms();
        let next = now + self.pause.as_millis() as u64;
        now >= until && self.away_until_ms.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn answered(&self) {
        if self.away_until_ms.swap(0, Ordering::Relaxed) != 0 {
            tracing::info!("redis answers again: request rates are counted for all gateways together");
            metrics::gauge!("flywheel_limits_degraded").set(0.0);
        }
    }

    fn went_away(&self, why: &str) {
        let until = (self.now_ms() + self.pause.as_millis() as u64).max(1);
        if self.away_until_ms.swap(until, Ordering::Relaxed) == 0 {
            tracing::warn!(why, "redis does not answer: request rates are counted by this process's share until it does");
            metrics::gauge!("flywheel_limits_degraded").set(1.0);
        }
        metrics::counter!("flywheel_limits_unanswered_total").increment(1);
    }
}
