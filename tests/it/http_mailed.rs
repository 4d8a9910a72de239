//! What links in messages lead to: events and decisions of those who hold one, and friendly refusals for everybody else.

use flywheel::channels::link::{Kind, Link};
use flywheel::domain::{DAY_MS, Millis};
use flywheel::gateway::{Preference, Preview};
use flywheel::permit::EffectKey;
use flywheel::workflow::RunId;
use serde_json::{Value, json};

use crate::campaign_world::{self, Deciding};
use crate::http_campaigns::ASKS;
use crate::http_support::*;

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const FORM: &str = "application/x-www-form-urlencoded";

fn link(kind: Kind, detail: &str, expires: Millis) -> String {
    links().keys.url("", &of(kind, detail, expires))
}

fn of(kind: Kind, detail: &str, expires: Millis) -> Link {
    Link {
        kind,
        namespace: "main".to_owned(),
        tenant: "acme".to_owned(),
        subject: "u:ann".to_owned(),
        effect: EffectKey([9; 16]),
        expires,
        detail: detail.to_owned(),
        sent: None,
    }
}

fn good(kind: Kind, detail: &str) -> String {
    link(kind, detail, NOW + DAY_MS)
}

/// The events that arrived, without their ids and times.
fn events(running: &Running) -> Vec<(String, Value)> {
    let body = |arrived: &Arrived| serde_json::from_str::<Value>(&arrived.text("body")).unwrap();
    let mut found: Vec<_> = running.arrived("main").iter().map(|arrived| (arrived.key.clone(), body(arrived))).collect();
    found.sort_by_key(|(_, body)| body.to_string());
    found.into_iter().map(|(key, body)| (key, json!({"event": body["event"], "properties": body["properties"]}))).collect()
}

#[track_caller]
fn is_a_safe_page(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(answer.header("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'none'")), "{answer:?}");
    assert_eq!((answer.header("cache-control"), answer.header("x-content-type-options")), (Some("no-store"), Some("nosniff")));
    let text = answer.text();
    assert!(text.contains("<html lang=\"en\">") && text.contains("<main>") && text.contains("<h1>") && !text.contains("<script"), "{text}");
}

#[tokio::test]
async fn one_click_unsubscribes_and_looking_does_not() {
    let (running, _world) = campaign_world::start().await;
    let path = good(Kind::Unsubscribe, "marketing/email");
    let page = running.send(&get(&path)).await;
    is_a_safe_page(&page, 200);
    assert!(page.text().contains("marketing messages by email") && page.text().contains("<form method=\"post\">"));
    assert_eq!(events(&running), [], "a scanner that looks at it changes nothing");
    let click = post(&path, "List-Unsubscribe=One-Click").header("Content-Type", FORM);
    is_a_safe_page(&running.send(&click).await, 200);
    is_a_safe_page(&running.send(&click).await, 200);
    let all = events(&running);
    let expected = json!({"purpose": "marketing", "channel": "email", "granted": false, "effect": "09".repeat(16)});
    assert_eq!(all[0], ("u:ann".to_owned(), json!({"event": "Consent Updated", "properties": expected})));
    let ids: Vec<String> = running.arrived("main").iter().map(|arrived| arrived.text("message_id")).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "twice within a minute is one event: {ids:?}");
    assert_eq!(running.arrived("main")[0].text("source"), "mail");
}

#[tokio::test]
async fn a_click_goes_to_the_signed_address_and_to_no_other() {
    let (running, _world) = campaign_world::start().await;
    let click = |path: String, agent: &'static str| {
        let running = &running;
        async move { running.send(&get(&path).header("User-Agent", agent)).await }
    };
    let answer = click(good(Kind::Click, "https://shop.example/?a=1&b=2"), FIREFOX).await;
    assert_eq!((answer.status, answer.header("location")), (302, Some("https://shop.example/?a=1&b=2")));
    let answer = click(good(Kind::Click, "https://shop.example/bot"), "python-requests/2.32").await;
    assert_eq!(answer.status, 302, "a machine is led on, and makes no event");
    let all = events(&running);
    assert_eq!((all.len(), all[0].1["properties"]["url"].as_str()), (1, Some("https://shop.example/?a=1&b=2")));
    for (path, status) in [
        (good(Kind::Click, "javascript:alert(1)"), 400),
        (good(Kind::Click, "//evil.example"), 400),
        (good(Kind::Click, "https://a.example/\r\nSet-Cookie: a=b"), 400),
        (good(Kind::Open, "https://evil.example").replace("/m/open/", "/m/click/"), 400),
        (link(Kind::Click, "https://shop.example", NOW), 410),
        (good(Kind::Click, "https://shop.example").replace("test.", "other."), 400),
        (format!("{}x", good(Kind::Click, "https://shop.example")), 400),
        ("/m/click/https:%2f%2fevil.example".to_owned(), 400),
        (format!("/m/click/{}", "a".repeat(5_000)), 400),
    ] {
        let answer = click(path.clone(), FIREFOX).await;
        is_a_safe_page(&answer, status);
        assert!(answer.header("location").is_none(), "{path}");
    }
    assert_eq!(events(&running).len(), 1);
}

#[tokio::test]
async fn a_click_within_seconds_of_sending_is_a_scanners() {
    let (running, _world) = campaign_world::start().await;
    for (seconds_ago, people) in [(1, 0), (10, 1)] {
        let sent = Some(Millis(NOW.0 - seconds_ago * 1_000));
        let link = Link { sent, ..of(Kind::Click, "https://shop.example", NOW + DAY_MS) };
        let answer = running.send(&get(&links().keys.url("", &link)).header("User-Agent", FIREFOX)).await;
        assert_eq!((answer.status, events(&running).len()), (302, people), "{seconds_ago} s after sending");
    }
}

#[tokio::test]
async fn the_pixel_is_always_an_image_and_counts_people_only() {
    let (running, _world) = campaign_world::start().await;
    let open = good(Kind::Open, "");
    let requests = [
        get(&open).header("User-Agent", FIREFOX),
        get(&open).header("User-Agent", "Mozilla/5.0"),
        get(&open).header("User-Agent", FIREFOX).header("Sec-Purpose", "prefetch"),
        get("/m/open/forged.token.here").header("User-Agent", FIREFOX),
        get(&link(Kind::Open, "", NOW)).header("User-Agent", FIREFOX),
    ];
    for request in &requests {
        let answer = running.send(request).await;
        assert_eq!(
            (answer.status, answer.header("content-type"), answer.header("cache-control")),
            (200, Some("image/gif"), Some("no-store"))
        );
        assert!(answer.body.starts_with(b"GIF89a"));
    }
    assert_eq!(events(&running).len(), 1);
    assert_eq!(events(&running)[0].1["event"], "Email Opened");
}

#[tokio::test]
async fn preferences_are_shown_and_what_was_changed_is_said() {
    let (running, world) = campaign_world::start().await;
    let one = |purpose: &str, channel: &str, granted| Preference { purpose: purpose.to_owned(), channel: channel.to_owned(), granted };
    *world.preferences.lock() = vec![one("marketing", "email", true), one("news", "email", false), one("<i>&\"", "sms", false)];
    let path = good(Kind::Preferences, "");
    let page = running.send(&get(&path)).await;
    is_a_safe_page(&page, 200);
    assert!(page.text().contains("value=\"marketing/email\" checked>") && page.text().contains("value=\"news/email\">"), "{}", page.text());
    assert!(page.text().contains("&lt;i&gt;&amp;&quot; by sms") && !page.text().contains("<i>"), "{}", page.text());
    let body = "of=marketing%2Femail&of=news%2Femail&yes=news%2Femail&yes=never%2Fshown";
    let kept = running.send(&post(&path, body).header("Content-Type", FORM)).await;
    is_a_safe_page(&kept, 200);
    assert!(kept.text().contains("Your choice is kept") && kept.text().contains("value=\"news/email\" checked>"), "{}", kept.text());
    let said: Vec<String> = events(&running).iter().map(|(_, event)| event["properties"].to_string()).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("\"granted\":false") && said[0].contains("\"purpose\":\"marketing\""), "{said:?}");
    assert!(said[1].contains("\"granted\":true") && said[1].contains("\"purpose\":\"news\""), "{said:?}");
    is_a_safe_page(&running.send(&get("/m/preferences/x")).await, 400);
    is_a_safe_page(&running.send(&post(&link(Kind::Preferences, "", NOW), body)).await, 410);
}

const HOSTILE: &str = "</pre></dd><script>alert(document.domain)</script><img src=x onerror=alert(1)>";

/// A run that asks whether a hostile text may go out, and the page's path.
async fn asking(user: &str) -> (Running, Deciding, RunId, String) {
    let (running, world) = campaign_world::start().await;
    assert_eq!(running.send(&post("/api/v1/workflows", json!({"text": ASKS}).to_string())).await.status, 200);
    let body = json!({"workflow": "asks", "user_id": user, "input": {"subject": "Hi <Ann>", "body": HOSTILE}});
    let begun = running.send(&post("/api/v1/campaigns/create?wait=20", body.to_string())).await.json();
    let run = RunId::parse(begun["run"].as_str().unwrap()).unwrap();
    let open = running.send(&get("/api/v1/approvals")).await.json();
    let path = open["approvals"][0]["link"].as_str().unwrap().strip_prefix("https://go.example").unwrap().to_owned();
    (running, world, run, path)
}

/// What the page's form sends along unseen.
fn form_of(page: &Answer) -> String {
    hidden_in(&page.text())
}

pub fn hidden_in(text: &str) -> String {
    let hidden = text.split("<input type=\"hidden\" name=\"").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once("\" value=\"")?;
        Some(format!("{name}={}", rest.split('"').next()?))
    });
    hidden.collect::<Vec<_>>().join("&")
}

#[tokio::test]
async fn of_two_who_click_at_once_without_a_name_exactly_one_is_told_that_it_was_theirs() {
    let (running, world, run, path) = asking("ann").await;
    let shown = form_of(&running.send(&get(&path)).await);
    let click = || {
        let request = post(&path, format!("{shown}&decision=approve&by=")).header("Content-Type", FORM);
        let running = &running;
        async move { running.send(&request).await }
    };
    let (a, b) = tokio::join!(click(), click());
    let mut told = [(a.status, a.text().contains("You approved it")), (b.status, b.text().contains("You approved it"))];
    told.sort_unstable();
    assert_eq!(told, [(200, true), (409, false)], "{} {}", a.text(), b.text());
    assert!(world.lines(run).contains(&"review approved by marketing".to_owned()), "{:?}", world.lines(run));
}

#[tokio::test]
async fn a_decision_about_what_was_asked_before_is_not_taken() {
    let (running, world) = campaign_world::start().await;
    let text = ASKS
        .replace("silence = \"rejects\"", "silence = \"pauses\"")
        .replace("2d review rejected by silence\", \"run ended completed", "2d run paused by deadline");
    let published = running.send(&post("/api/v1/workflows", json!({"text": text}).to_string())).await;
    assert_eq!(published.status, 200, "{}", published.text());
    let begun = running.send(&post("/api/v1/campaigns/create?wait=20", r#"{"workflow":"asks","user_id":"ann"}"#)).await.json();
    let run = RunId::parse(begun["run"].as_str().unwrap()).unwrap();
    let open = running.send(&get("/api/v1/approvals")).await.json();
    let path = open["approvals"][0]["link"].as_str().unwrap().strip_prefix("https://go.example").unwrap().to_owned();
    let first = running.send(&get(&path)).await;
    // Nobody decides, the run pauses, and somebody resumes it: the same link shows another question.
    world.state.lock().now = Some(NOW + 3 * DAY_MS);
    let act = |action: &str, body: Value| {
        let request = post(&format!("/api/v1/campaigns/{run}/{action}?wait=20"), body.to_string());
        let running = &running;
        async move { running.send(&request).await }
    };
    world.tell("ann", &flywheel::workflow::Input::Due);
    assert_eq!(act("resume", json!({"by": "kim"})).await.status, 200);
    let click = |page: &Answer| {
        let request = post(&path, format!("{}&decision=approve&by=Bo", form_of(page))).header("Content-Type", FORM);
        let running = &running;
        async move { running.send(&request).await }
    };
    let refused = click(&first).await;
    is_a_safe_page(&refused, 409);
    assert!(refused.text().contains("This has been asked anew") && refused.text().contains("Nothing was decided"), "{}", refused.text());
    let old = open["approvals"][0]["question"].as_str().unwrap();
    let by_key = act("approve", json!({"question": old, "by": "al"})).await;
    assert_eq!((by_key.status, by_key.json()["code"].as_str()), (409, Some("asked_anew")), "{}", by_key.text());
    assert_eq!(act("approve", json!({"question": "x"})).await.status, 400);
    assert!(!world.lines(run).iter().any(|line| line.starts_with("review approved")), "{:?}", world.lines(run));
    let second = running.send(&get(&path)).await;
    is_a_safe_page(&click(&second).await, 200);
    assert!(world.lines(run).contains(&"review approved by Bo (by the link of marketing)".to_owned()), "{:?}", world.lines(run));
}

#[tokio::test]
async fn an_approval_shows_exactly_what_is_asked_and_takes_one_decision() {
    let (running, world, run, path) = asking("<b>ann</b>").await;
    let preview = Preview {
        channel: "email".into(),
        to: "ann@example.com".into(),
        subject: HOSTILE.into(),
        text: "Dear <Ann>".into(),
        html: Some(format!("<b>Dear</b> Ann \"{HOSTILE}\"")),
        digest: "d1".repeat(16),
    };
    *world.preview.lock() = Some(preview.clone());
    let page = running.send(&get(&path)).await;
    is_a_safe_page(&page, 200);
    let text = page.text();
    for shown in [
        "asks, step review",
        "u:&lt;b&gt;ann&lt;/b&gt;",
        "marketing",
        "Hi &lt;Ann&gt;",
        "&lt;script&gt;alert(document.domain)",
        "2026-01-03 00:00:00 UTC",
        "ann@example.com",
        "Dear &lt;Ann&gt;",
        "<iframe sandbox=\"\" title=\"The message as HTML\" srcdoc=\"&lt;b&gt;Dear&lt;/b&gt; Ann &quot;",
        "not stated by the campaign",
    ] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
    assert!(!text.contains("<script") && !text.contains("<img") && !text.contains("<b>ann"), "{text}");
    assert!(!world.lines(run).iter().any(|line| line.contains("approved")), "looking decides nothing");
    is_a_safe_page(&running.send(&post(&path, "decision=maybe")).await, 400);
    let blind = running.send(&post(&path, "decision=approve&by=Bo").header("Content-Type", FORM)).await;
    is_a_safe_page(&blind, 400);
    assert!(blind.text().contains("did not say which question"), "{}", blind.text());
    let shown = form_of(&page);
    let decide = |body: &'static str| {
        let request = post(&path, format!("{shown}&{body}")).header("Content-Type", FORM);
        let running = &running;
        async move { running.send(&request).await }
    };
    *world.preview.lock() = Some(Preview { digest: "d2".repeat(16), ..preview.clone() });
    let other = decide("decision=approve&by=Bo").await;
    is_a_safe_page(&other, 409);
    assert!(other.text().contains("The message has changed"), "{}", other.text());
    *world.preview.lock() = Some(preview);
    let (a, b) = tokio::join!(decide("decision=approve&by=Bo&comment=fine+%3Cb%3E"), decide("decision=reject&by=Al"));
    let mut statuses = [a.status, b.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{} {}", a.text(), b.text());
    let (first, second) = if a.status == 200 { ("Bo", &b) } else { ("Al", &a) };
    assert!(second.text().contains(first), "{}", second.text());
    let later = decide("decision=approve&by=Cy").await;
    is_a_safe_page(&later, 409);
    assert!(later.text().contains(&format!("{first} ")), "{}", later.text());
    let after = running.send(&get(&path)).await;
    is_a_safe_page(&after, 200);
    assert!(
        after.text().contains("This has been decided") && !after.text().contains("<form") && after.text().contains(first),
        "{}",
        after.text()
    );
    assert!(!after.text().contains("<b>"), "a comment is text");
    let decisions =
        world.lines(run).iter().filter(|line| line.starts_with("review approved") || line.starts_with("review rejected")).count();
    assert_eq!(decisions, 1);
}

#[tokio::test]
async fn what_is_no_longer_asked_is_said_and_takes_no_decision() {
    let (running, world, run, path) = asking("ann").await;
    let shown = form_of(&running.send(&get(&path)).await);
    let cancelled = running.send(&post(&format!("/api/v1/campaigns/{run}/cancel?wait=20"), r#"{"by":"kim"}"#)).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    let page = running.send(&get(&path)).await;
    is_a_safe_page(&page, 200);
    assert!(page.text().contains("This is no longer asked") && !page.text().contains("<form"), "{}", page.text());
    let click = running.send(&post(&path, format!("{shown}&decision=approve")).header("Content-Type", FORM)).await;
    is_a_safe_page(&click, 409);
    assert!(click.text().contains("no longer asked"), "{}", click.text());
    let all = running.send(&get("/api/v1/approvals?status=all")).await.json();
    assert_eq!((&all["approvals"][0]["status"], &all["approvals"][0]["decided"]), (&json!("cancelled"), &Value::Null));
    assert!(!world.lines(run).iter().any(|line| line.starts_with("review approved")));
}

#[tokio::test]
async fn an_approval_link_says_that_it_is_late_forged_or_of_nothing() {
    let (running, world, run, path) = asking("ann").await;
    let shown = form_of(&running.send(&get(&path)).await);
    world.state.lock().now = Some(NOW + 3 * DAY_MS);
    let late = running.send(&post(&path, format!("{shown}&decision=approve&by=Bo")).header("Content-Type", FORM)).await;
    is_a_safe_page(&late, 409);
    assert!(late.text().contains("deadline"), "{}", late.text());
    assert!(world.lines(run).contains(&"review rejected by silence".to_owned()));
    let told = running.send(&get(&path)).await;
    assert!(told.text().contains("silence rejected it"), "{}", told.text());
    let other = path.replace("/m/approve/", "/m/unsubscribe/");
    is_a_safe_page(&running.send(&get(&other)).await, 400);
    is_a_safe_page(&running.send(&get(&format!("{path}A"))).await, 400);
    is_a_safe_page(&running.send(&get(&link(Kind::Approve, "1/review/bo", NOW))).await, 410);
    is_a_safe_page(&running.send(&get(&good(Kind::Approve, "1/review/bo"))).await, 404);
    is_a_safe_page(&running.send(&post(&good(Kind::Approve, "nonsense"), "decision=approve")).await, 400);
}

/// A bounce of the message with this key, as postfix writes it.
fn bounce(key: &str) -> String {
    format!(
        "From: MAILER-DAEMON@mx.example\r\nTo: bounces@shop.example\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"b\"\r\n\r\n\
         --b\r\nContent-Type: text/plain\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n\
         Reporting-MTA: dns; mx.example\r\n\r\nFinal-Recipient: rfc822; ann@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n\
         --b\r\nContent-Type: message/rfc822\r\n\r\nMessage-ID: <{key}@shop.example>\r\nSubject: Hi\r\n\r\nHi\r\n--b--\r\n"
    )
}

#[tokio::test]
async fn a_bounce_is_an_event_of_whom_the_message_was_for() {
    let (running, _world) = campaign_world::start().await;
    let text = "[workflow]\nname = \"sends\"\n[workflow.entry]\ncommand = true\n\n[[node]]\nname = \"send\"\nkind = \"effect\"\nchannel = \"email\"\ninput = { template = \"'t'\" }\ntimeout = \"1m\"\nunknown = \"assume_done\"\nnext = \"over\"\n\n[[node]]\nname = \"over\"\nkind = \"exit\"\n";
    let published = running.send(&post("/api/v1/workflows", json!({"text": text}).to_string())).await;
    assert_eq!(published.status, 200, "{}", published.text());
    let begun = running.send(&post("/api/v1/campaigns/create?wait=20", r#"{"workflow":"sends","user_id":"ann"}"#)).await.json();
    let run = RunId::parse(begun["run"].as_str().unwrap()).unwrap();
    let effect = flywheel::workflow::EffectId::of(run, 1).to_string();
    let hand_in = |mail: String| {
        let request = post("/m/inbound", mail).key().header("Content-Type", "message/rfc822");
        let running = &running;
        async move { running.send(&request).await.json() }
    };
    assert_eq!(hand_in(bounce(&effect)).await, json!({"kind": "bounce", "events": 1, "address": "hard_bounce"}));
    assert_eq!(hand_in(bounce(&"7".repeat(32))).await["events"], 0, "of a message that nobody knows");
    assert_eq!(hand_in("Subject: Re: Hi\r\n\r\nThanks!".to_owned()).await["kind"], "other");
    let all = events(&running);
    assert_eq!((all.len(), all[0].0.as_str(), all[0].1["event"].as_str()), (1, "u:ann", Some("Email Bounced")));
    assert_eq!((all[0].1["properties"]["class"].as_str(), all[0].1["properties"]["status"].as_str()), (Some("hard"), Some("5.1.1")));
    let long = bounce(&effect).replace("Hi\r\n--b--", &"A long line of the message that came back.\r\n".repeat(50_000));
    assert!(long.len() > 2 << 20);
    assert_eq!(hand_in(long).await["events"], 1, "with all of a large message that it returns");
    assert_eq!(running.send(&post("/m/inbound", "x")).await.status, 401);
    assert_eq!(running.send(&post("/m/inbound", "x").basic("wrong:")).await.status, 401);
    assert_eq!(running.send(&post("/m/inbound?writeKey=wk_off", "x")).await.status, 404);
}
