//! Request rates counted in Redis for all gateways: shared, bounded, and never a reason to stand still while Redis does.

use std::time::{Duration, Instant};

use flywheel::domain::TenantId;
use flywheel::limits::{Limits, Redis, RedisOptions, check};

use crate::services::{self, fresh_name};

fn options(redis: &services::Redis) -> RedisOptions {
    let url = redis.url();
    let (login, place) = url.trim_start_matches("redis://").split_once('@').expect("a login");
    let (_, password) = login.split_once(':').expect("a password");
    RedisOptions {
        url: format!("redis://{place}"),
        password: password.into(),
        prefix: fresh_name("rate"),
        timeout_ms: 2_000,
        ..RedisOptions::default()
    }
}

fn gateway(options: &RedisOptions, rate: u32, burst: u32) -> Limits {
    Limits::Redis(Redis::new(options, rate, burst).expect("an address"))
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("a slug")
}

/// Asks until it is so, as requests that keep coming do.
async fn ask_until(limits: &Limits, tenant: &TenantId, is_so: impl Fn(&Limits, Result<(), Duration>) -> bool) {
    let begun = Instant::now();
    while !is_so(limits, limits.admit(tenant)) {
        assert!(begun.elapsed() < Duration::from_secs(30), "not within half a minute");
        tokio::task::yield_now().await;
    }
}

/// How many requests are admitted until the bucket is known to be empty.
async fn admitted(limits: &Limits, tenant: &TenantId) -> usize {
    let mut admitted = 0;
    for _ in 0..1_000_000 {
        match limits.admit(tenant) {
            Ok(()) => admitted += 1,
            // A purse that waits for its drawing asks for a moment; an empty bucket for its next token.
            Err(wait) if wait.as_millis() > 500 => return admitted,
            Err(_) => tokio::task::yield_now().await,
        }
    }
    panic!("it is never empty; {admitted} were admitted");
}

#[tokio::test]
async fn two_gateways_share_one_limit_and_tenants_do_not() {
    let Some(redis) = services::redis() else { return };
    let options = options(redis);
    let (one, other) = (gateway(&options, 1, 40), gateway(&options, 1, 40));
    let (acme, umbrella) = (tenant("acme"), tenant("umbrella"));
    let begun = Instant::now();
    let total = admitted(&one, &acme).await + admitted(&other, &acme).await;
    let filled = begun.elapsed().as_secs() as usize + 1;
    assert!((40..=44 + filled).contains(&total), "{total}, where 40 may pass, with a purse and a debt of each gateway");
    assert!(admitted(&one, &umbrella).await >= 40, "another tenant has its own");
    assert_eq!(one.degraded(), None);
}

#[tokio::test]
async fn a_flushed_redis_begins_full_again() {
    let Some(redis) = services::Redis::start() else { return };
    let limits = gateway(&options(&redis), 1, 10);
    let acme = tenant("acme");
    ask_until(&limits, &acme, |_, answer| answer.is_err()).await;
    let client = redis::Client::open(redis.url()).expect("a url");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a session");
    redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.expect("flushed");
    let mut passed = 0;
    let begun = Instant::now();
    while passed < 8 {
        passed += u32::from(limits.admit(&acme).is_ok());
        assert!(begun.elapsed() < Duration::from_secs(30), "{passed} passed");
        tokio::task::yield_now().await;
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "not at one a second");
}

#[tokio::test]
async fn while_redis_stands_still_this_process_share_decides_and_it_heals_by_itself() {
    let Some(redis) = services::Redis::start() else { return };
    let options = RedisOptions { timeout_ms: 100, pause_ms: 50, gateways: 2, ..options(&redis) };
    let limits = gateway(&options, 1, 20);
    let acme = tenant("acme");
    limits.admit(&acme).expect("a quiet tenant");
    redis.pause();
    ask_until(&limits, &acme, |limits, _| limits.degraded().is_some()).await;
    // Half of the burst is its share, and no request waits.
    let begun = Instant::now();
    let passed = (0..1_000).filter(|_| limits.admit(&acme).is_ok()).count();
    assert!(passed <= 11, "{passed}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    redis.resume();
    ask_until(&limits, &acme, |limits, _| limits.degraded().is_none()).await;
    redis.kill();
    ask_until(&limits, &acme, |limits, _| limits.degraded().is_some()).await;
    redis.restart();
    ask_until(&limits, &acme, |limits, _| limits.degraded().is_none()).await;
}

#[tokio::test]
async fn a_wrong_address_or_password_is_named_and_no_secret_shown() {
    let Some(redis) = services::redis() else { return };
    let right = options(redis);
    check(&right).await.expect("the right one");
    let refusal = async |options: RedisOptions| check(&options).await.expect_err("refused").to_string();
    let wrong = refusal(RedisOptions { password: "gue55ed".into(), ..right.clone() }).await;
    assert!(wrong.starts_with("redis.password") && !wrong.contains("gue55ed"), "{wrong}");
    let none = refusal(RedisOptions { password: String::new(), ..right.clone() }).await;
    assert!(none.starts_with("redis.password"), "{none}");
    let closed = refusal(RedisOptions { url: "redis://127.0.0.1:9/".into(), ..right.clone() }).await;
    assert!(closed.starts_with("redis.url"), "{closed}");
    for url in ["redis://:gue55ed@127.0.0.1/", "nonsense gue55ed"] {
        let refused = Redis::new(&RedisOptions { url: url.into(), ..right.clone() }, 1, 1).err().expect("refused").to_string();
        assert!(refused.starts_with("redis.url") && !refused.contains("gue55ed"), "{refused}");
    }
}
