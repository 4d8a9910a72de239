//! Campaigns over HTTP: every route, who may, what is refused and how, and that one decision is one decision.

use flywheel::domain::{Millis, TenantId};
use flywheel::gateway::{Access, Options, Owner};
use flywheel::workflow::RunId;
use serde_json::{Value, json};

use crate::campaign_world::{self, Deciding};
use crate::http_support::*;

/// A question, then a wait for a signal.
pub const ASKS: &str = r#"
[workflow]
name = "asks"
[workflow.entry]
command = true
reenter = "always"

[[node]]
name = "review"
kind = "approval"
who = "marketing"
shows = { subject = "entry.subject", body = "entry.body" }
deadline = "2d"
silence = "rejects"
on_approve = "reply"
on_reject = "over"

[[node]]
name = "reply"
kind = "wait_for"
any = [{ signal = "go", next = "over" }]
timeout = "3d"
next = "over"

[[node]]
name = "over"
kind = "exit"

[[test]]
name = "silence ends it"
given = [{ at = "0s", start = true }]
expect = ["review asks marketing", "2d review rejected by silence", "run ended completed"]
"#;

async fn with_asks() -> (Running, Deciding) {
    let (running, world) = campaign_world::start().await;
    let answer = running.send(&post("/api/v1/workflows", json!({"file": "asks.toml", "text": ASKS}).to_string())).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    (running, world)
}

/// Starts a run for a user and returns its id once it is there.
async fn begin(running: &Running, user: &str) -> RunId {
    let body = json!({"workflow": "asks", "user_id": user, "id": user, "input": {"subject": "Hi", "body": "Come back"}});
    let answer = running.send(&post("/api/v1/campaigns/create?wait=20", body.to_string())).await;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("started")), "{}", answer.text());
    RunId::parse(answer.json()["run"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn the_same_key_starts_one_run_and_says_its_id_at_once() {
    let (running, world) = with_asks().await;
    world.holds.store(true, std::sync::atomic::Ordering::Relaxed);
    let body = json!({"workflow": "asks", "user_id": "ann", "input": {"subject": "Hi", "body": "x"}}).to_string();
    let start = post("/api/v1/campaigns/create", &body).header("Idempotency-Key", "order-7");
    let first = running.send(&start).await;
    assert_eq!((first.status, first.json()["status"].as_str()), (202, Some("accepted")), "{}", first.text());
    assert!(first.json()["position"].as_str().unwrap().starts_with("main.commands/"), "{}", first.text());
    let again = running.send(&start).await.json();
    assert_eq!(again["run"], first.json()["run"]);
    world.holds.store(false, std::sync::atomic::Ordering::Relaxed);
    let told = running.send(&post("/api/v1/campaigns/create?wait=20", &body).header("Idempotency-Key", "order-7")).await;
    assert_eq!(told.status, 200, "begun by one of the three, all of which are the same: {}", told.text());
    let told = running.send(&post("/api/v1/campaigns/create?wait=20", &body).header("Idempotency-Key", "order-7")).await;
    assert_eq!((told.status, told.json()["status"].as_str()), (200, Some("already_started")), "{}", told.text());
    let other = running.send(&post("/api/v1/campaigns/create?wait=20", &body).header("Idempotency-Key", "order-8")).await;
    assert_eq!((other.json()["status"].as_str(), other.json()["run"] == first.json()["run"]), (Some("started"), false));
    let campaign = running.send(&post("/api/v1/campaigns/create?wait=20", r#"{"workflow":"asks"}"#)).await;
    assert_eq!(campaign.json()["subject"], "u:campaign:asks", "{}", campaign.text());
    let runs = running.send(&get("/api/v1/campaigns?subject=ann")).await.json();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 2, "{runs}");
}

#[tokio::test]
async fn runs_are_listed_page_by_page_read_and_told() {
    let (running, _world) = with_asks().await;
    let mut begun = Vec::new();
    for user in ["ann", "bob", "cy"] {
        begun.push(begin(&running, user).await.to_string());
    }
    begun.sort();
    let mut seen = Vec::new();
    let mut path = "/api/v1/campaigns?workflow=asks&limit=2".to_owned();
    loop {
        let page = running.send(&get(&path)).await.json();
        seen.extend(page["runs"].as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/campaigns?workflow=asks&limit=2&after={next}");
    }
    assert_eq!(seen, begun);
    let one = running.send(&get(&format!("/api/v1/campaigns/{}", begun[0]))).await.json();
    assert_eq!((one["workflow"].as_str(), one["status"].as_str()), (Some("asks"), Some("running")));
    let story = running.send(&get(&format!("/api/v1/campaigns/{}/story", begun[0]))).await.json();
    assert_eq!(story["story"][0]["line"], "run of asks started");
    let refused = [
        ("/api/v1/campaigns?limit=0", 400),
        ("/api/v1/campaigns?limit=many", 400),
        ("/api/v1/campaigns?status=pausd", 400),
        ("/api/v1/campaigns?statuss=paused", 400),
        ("/api/v1/approvals?all=true", 400),
        ("/api/v1/workflows?name=asks", 400),
        ("/api/v1/policy?of=acme", 400),
        ("/api/v1/suppressions?adress=a@b.example", 400),
        ("/api/v1/users/ann/profile?fields=orders", 400),
        ("/api/v1/campaigns/xyz", 400),
        ("/api/v1/campaigns/00000000000000000000000000000007", 404),
        ("/api/v1/campaigns/00000000000000000000000000000007/story", 404),
        ("/api/v1/approvals?status=odd", 400),
    ];
    for (path, status) in refused {
        let answer = running.send(&get(path)).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    let said = |path: &'static str| {
        let running = &running;
        async move { running.send(&get(path)).await.json()["message"].as_str().unwrap().to_owned() }
    };
    let unknown = "there is no parameter \"statuss\" here; did you mean status? there are workflow, status, subject, error, limit, after, namespace, tenant";
    assert_eq!(said("/api/v1/campaigns?statuss=paused").await, unknown);
    let known = "there are open, running, waiting, paused, completed, goal, failed, cancelled, terminated, merged";
    assert_eq!(said("/api/v1/campaigns?status=pausd").await, format!("there is no status \"pausd\"; did you mean paused? {known}"));
}

#[tokio::test]
async fn one_decides_and_everyone_else_is_told_who() {
    let (running, world) = with_asks().await;
    let run = begin(&running, "ann").await;
    let open = running.send(&get("/api/v1/approvals")).await.json();
    assert_eq!(
        (open["approvals"][0]["node"].as_str(), open["approvals"][0]["shows"]["body"].as_str()),
        (Some("review"), Some("Come back"))
    );
    assert!(open["approvals"][0]["link"].as_str().unwrap().starts_with("https://go.example/m/approve/test."));
    let decide = |word: &str, by: &str| {
        let body = json!({"by": by, "comment": format!("{by} says so")}).to_string();
        let request = post(&format!("/api/v1/campaigns/{run}/{word}?wait=20"), body);
        let running = &running;
        async move { running.send(&request).await }
    };
    let people = ["al", "bo", "cy", "di", "ed", "flo"];
    let (a, b, c, d, e, f) = tokio::join!(
        decide("approve", people[0]),
        decide("reject", people[1]),
        decide("approve", people[2]),
        decide("approve", people[3]),
        decide("reject", people[4]),
        decide("approve", people[5])
    );
    let answers = [a, b, c, d, e, f];
    let done: Vec<usize> = (0..6).filter(|at| answers[*at].status == 200).collect();
    assert_eq!(done.len(), 1, "{:?}", answers.iter().map(Answer::text).collect::<Vec<_>>());
    for (at, answer) in answers.iter().enumerate().filter(|(at, _)| *at != done[0]) {
        assert_eq!((answer.status, answer.json()["code"].as_str()), (409, Some("already_decided")), "{at}: {}", answer.text());
        assert!(answer.json()["message"].as_str().unwrap().starts_with(people[done[0]]), "{}", answer.text());
    }
    let lines = world.lines(run);
    assert_eq!(lines.iter().filter(|line| line.contains("review approved") || line.contains("review rejected")).count(), 1, "{lines:?}");
    let later = running.send(&post(&format!("/api/v1/campaigns/{run}/approve?wait=20"), r#"{"by":"late","node":"review"}"#)).await;
    assert!([("already_decided"), ("run_ended")].contains(&later.json()["code"].as_str().unwrap()), "{}", later.text());
}

#[tokio::test]
async fn a_click_after_the_deadline_is_told_so() {
    let (running, world) = with_asks().await;
    let run = begin(&running, "ann").await;
    world.state.lock().now = Some(Millis(NOW.0 + 3 * 86_400_000));
    let late = running.send(&post(&format!("/api/v1/campaigns/{run}/approve?wait=20"), r#"{"by":"bo"}"#)).await;
    assert_eq!((late.status, late.json()["code"].as_str()), (409, Some("too_late")), "{}", late.text());
    assert!(world.lines(run).contains(&"review rejected by silence".to_owned()));
}

#[tokio::test]
async fn a_run_is_paused_resumed_signalled_and_cancelled_and_wrong_states_are_conflicts() {
    let (running, _world) = with_asks().await;
    let run = begin(&running, "ann").await;
    let steps = [
        ("resume", "{}", 409, "not_now"),
        ("pause", r#"{"by":"bo","reason":"a look"}"#, 200, "paused"),
        ("pause", "{}", 409, "not_now"),
        ("resume", "{}", 200, "resumed"),
        ("retry", "{}", 409, "not_now"),
        ("signal", r#"{"name":"go"}"#, 409, "not_now"),
        ("signal", "{}", 400, "invalid_request"),
        ("approve", r#"{"by":"bo"}"#, 200, "approved"),
        ("signal", r#"{"name":"other"}"#, 409, "not_now"),
        ("signal", r#"{"name":"go","with":{"n":1}}"#, 200, "matched"),
        ("signal", r#"{"name":"go"}"#, 409, "run_ended"),
        ("cancel", "", 409, "run_ended"),
        ("dance", "{}", 404, "not_found"),
        ("pause", "{\"by\":", 400, "invalid_request"),
        ("pause", r#"{"who":"bo"}"#, 400, "invalid_request"),
    ];
    for (action, body, status, word) in steps {
        let answer = running.send(&post(&format!("/api/v1/campaigns/{run}/{action}?wait=20"), body)).await;
        let said = answer.json();
        let found = said["code"].as_str().or(said["status"].as_str()).unwrap_or_default().to_owned();
        assert_eq!((answer.status, found.as_str()), (status, word), "{action} {body}: {}", answer.text());
    }
    let other = begin(&running, "bob").await;
    let named = post(&format!("/api/v1/campaigns/{other}/terminate?wait=20"), r#"{"subject":"u:bob","by":"bo","reason":"test"}"#);
    assert_eq!(running.send(&named).await.json()["status"], "terminated");
    let unknown = "/api/v1/campaigns/00000000000000000000000000000007/cancel";
    assert_eq!(running.send(&post(unknown, "{}")).await.status, 404);
    assert_eq!(
        running.send(&post(&format!("{unknown}?wait=20"), r#"{"subject":"ann"}"#)).await.status,
        404,
        "not even where it was said to be"
    );
}

#[tokio::test]
async fn everything_paused_is_resumed_by_one_request() {
    let (running, _world) = with_asks().await;
    for user in ["ann", "bob", "cy"] {
        let run = begin(&running, user).await;
        if user != "cy" {
            assert_eq!(running.send(&post(&format!("/api/v1/campaigns/{run}/pause?wait=20"), "{}")).await.status, 200);
        }
    }
    let bulk = |body: Value| {
        let request = post("/api/v1/campaigns/actions", body.to_string());
        let running = &running;
        async move { running.send(&request).await }
    };
    let dry = bulk(json!({"action": "resume", "workflow": "asks", "dry_run": true})).await;
    assert_eq!((dry.status, dry.json()["runs"].as_u64()), (200, Some(2)));
    let told = bulk(json!({"action": "resume", "workflow": "asks", "status": "paused"})).await;
    assert_eq!((told.status, told.json()), (202, json!({"action": "resume", "runs": 2, "more": false, "next": null})));
    let paused = || async { bulk(json!({"action": "resume", "workflow": "asks", "dry_run": true})).await.json()["runs"].as_u64() };
    while paused().await != Some(0) {
        tokio::task::yield_now().await;
    }
    for (body, status) in [
        (json!({"action": "terminate", "workflow": "asks"}), 400),
        (json!({"action": "dance", "workflow": "asks"}), 404),
        (json!({"action": "pause"}), 400),
        (json!({"action": "resume", "workflow": "asks", "status": "pausd"}), 400),
        (json!({"action": "resume", "workflow": "asks", "status": "completed"}), 400),
    ] {
        assert_eq!(bulk(body.clone()).await.status, status, "{body}");
    }
}

#[tokio::test]
async fn a_workflow_with_mistakes_or_failing_tests_is_not_published() {
    let (running, _world) = with_asks().await;
    let publish = |text: String| {
        let request = post("/api/v1/workflows", json!({"file": "w.toml", "text": text}).to_string());
        let running = &running;
        async move { running.send(&request).await }
    };
    let wrong = publish(ASKS.replace("on_reject = \"over\"", "on_reject = \"ovr\"")).await;
    assert_eq!((wrong.status, wrong.json()["code"].as_str()), (422, Some("invalid_workflow")));
    let mistake = &wrong.json()["problems"][0];
    assert_eq!((mistake["file"].as_str(), mistake["line"].as_u64()), (Some("w.toml"), Some(16)), "{mistake}");
    assert!(mistake["reason"].as_str().unwrap().contains("ovr") && mistake["hint"].is_string(), "{mistake}");
    let failing = publish(ASKS.replace("2d review rejected by silence", "2d review approved by silence")).await;
    assert_eq!((failing.status, failing.json()["code"].as_str()), (422, Some("tests_failed")), "{}", failing.text());
    assert_eq!(publish("a = ".to_owned()).await.status, 422);
    assert_eq!(running.send(&post("/api/v1/workflows", "{}")).await.status, 400);
    let again = publish(ASKS.to_owned()).await.json();
    assert_eq!((again["workflows"][0]["published"].as_bool(), again["workflows"][0]["tests"].as_u64()), (Some(false), Some(1)));
    let newer = publish(ASKS.replace("deadline = \"2d\"", "deadline = \"4d\"").replace("2d review", "4d review")).await.json();
    assert_eq!(newer["workflows"][0]["published"], true);
    let listed = running.send(&get("/api/v1/workflows")).await.json();
    let active = listed["workflows"].as_array().unwrap().iter().filter(|one| one["is_active"] == true).count();
    assert_eq!((listed["workflows"].as_array().unwrap().len(), active), (2, 1));
    assert_eq!(running.send(&post("/api/v1/workflows/asks/retire", "")).await.status, 200);
    assert_eq!(running.send(&post("/api/v1/workflows/asks/retire", "")).await.status, 404);
    let gone = running.send(&post("/api/v1/campaigns/create", r#"{"workflow":"asks"}"#)).await;
    assert_eq!((gone.status, gone.json()["code"].as_str()), (404, Some("not_found")));
}

#[tokio::test]
async fn a_bulk_action_goes_on_where_the_one_before_ended() {
    let (running, world) = with_asks().await;
    let mut runs = Vec::new();
    for user in ["ann", "bob", "cy"] {
        runs.push(begin(&running, user).await);
    }
    let act = |body: Value| {
        let request = post("/api/v1/campaigns/actions", body.to_string());
        let running = &running;
        async move { running.send(&request).await.json() }
    };
    // What the action does not change is still not told again and again, so that the last is reached too.
    let retry = json!({"action": "retry", "workflow": "asks", "limit": 2});
    let first = act(retry.clone()).await;
    assert_eq!((&first["runs"], &first["more"]), (&json!(2), &json!(true)), "{first}");
    let mut rest = retry.clone();
    rest["after"] = first["next"].clone();
    let second = act(rest).await;
    assert_eq!((&second["runs"], &second["next"]), (&json!(1), &Value::Null), "{second}");
    let pause = act(json!({"action": "pause", "workflow": "asks", "by": "kim"})).await;
    assert_eq!((&pause["runs"], &pause["more"]), (&json!(3), &json!(false)), "{pause}");
    while !runs.iter().all(|run| world.lines(*run).iter().any(|line| line.starts_with("run paused by kim"))) {
        tokio::task::yield_now().await;
    }
    let wrong = post("/api/v1/campaigns/actions", json!({"action": "retry", "workflow": "asks", "after": "x"}).to_string());
    assert_eq!(running.send(&wrong).await.status, 400);
    assert_eq!(running.send(&post("/api/v1/campaigns/actions", r#"{"action":"retry","workflow":"asks","limit":0}"#)).await.status, 400);
    // An emergency stop that stops nobody is no success.
    let misspelt = running.send(&post("/api/v1/campaigns/actions", r#"{"action":"pause","workflow":"ask"}"#)).await;
    assert_eq!(misspelt.status, 400);
    assert!(misspelt.json()["message"].as_str().is_some_and(|message| message.contains("did you mean asks?")), "{:?}", misspelt.json());
    assert_eq!(running.send(&get("/api/v1/campaigns?workflow=ask")).await.status, 400);
}

#[tokio::test]
async fn a_tenant_never_reaches_another_ones_run() {
    let mut sources = sources();
    for (key, tenant) in [("secret-a", "acme"), ("secret-b", "other")] {
        let access = Access { tenant: TenantId::new(tenant).expect("a slug"), namespace: namespace("main") };
        sources.api_keys.insert(key.to_owned(), access);
    }
    let (running, _world) = campaign_world::start_as(Options::default(), sources).await;
    let publish = post("/api/v1/workflows", json!({"text": ASKS}).to_string());
    assert_eq!(running.send(&publish).await.status, 401);
    assert_eq!(running.send(&publish.clone().key()).await.status, 401, "a write key is public");
    assert_eq!(running.send(&publish.basic("secret-a:")).await.status, 200);
    let start = post("/api/v1/campaigns/create?wait=20", r#"{"workflow":"asks","user_id":"ann"}"#);
    let run = running.send(&start.basic("secret-a:")).await.json()["run"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/campaigns/{run}");
    for request in [get(&path), get(&format!("{path}/story")), post(&format!("{path}/cancel"), "{}")] {
        assert_eq!(running.send(&request.clone().basic("secret-b:")).await.status, 404, "{request:?}");
    }
    let stolen = post(&format!("{path}/cancel?wait=20"), r#"{"subject":"u:ann"}"#).basic("secret-b:");
    assert_eq!(running.send(&stolen).await.status, 404, "another tenant's ann is someone else");
    assert_eq!(running.send(&get("/api/v1/approvals?tenant=acme").basic("secret-b:")).await.json(), json!({"approvals": []}));
    assert_eq!(running.send(&get(&path).basic("secret-a:")).await.json()["status"], "running");
    assert_eq!(running.send(&get(&path).header("Origin", "https://evil.example")).await.status, 401);
}

/// Two tenants with a key each, and the operator of the server.
async fn two_tenants() -> (Running, Deciding) {
    let mut sources = sources();
    for (key, tenant) in [("secret-a", "acme"), ("secret-b", "other")] {
        let access = Access { tenant: TenantId::new(tenant).expect("a slug"), namespace: namespace("main") };
        sources.api_keys.insert(key.to_owned(), access);
    }
    sources.owner = Some(Owner { token: "operator".to_owned(), listening: [127, 0, 0, 1].into() });
    campaign_world::start_as(Options::default(), sources).await
}

/// Names and whose they are, of those that take new entries.
async fn active(running: &Running, key: &str) -> Vec<String> {
    let listed = running.send(&get("/api/v1/workflows").basic(key)).await.json();
    let active = listed["workflows"].as_array().expect("a list").iter().filter(|one| one["is_active"] == true);
    let mut active: Vec<String> = active.map(|one| format!("{} {}", one["name"].as_str().unwrap(), one["tenant"])).collect();
    active.sort();
    active
}

#[tokio::test]
async fn a_tenant_publishes_retires_replaces_and_sees_no_workflow_of_another() {
    let (running, _world) = two_tenants().await;
    let text = |name: &str, deadline: &str| {
        let text = ASKS
            .replace("name = \"asks\"", &format!("name = \"{name}\""))
            .replace("deadline = \"2d\"", &format!("deadline = \"{deadline}\""));
        text.replace("2d review", &format!("{deadline} review"))
    };
    let publish = |key: &str, query: &str, name: &str, deadline: &str| {
        let request = post(&format!("/api/v1/workflows{query}"), json!({"text": text(name, deadline)}).to_string()).basic(key);
        let running = &running;
        async move { running.send(&request).await }
    };
    let retire = |key: &str, query: &str, name: &str| {
        let request = post(&format!("/api/v1/workflows/{name}/retire{query}"), "").basic(key);
        let running = &running;
        async move { running.send(&request).await }
    };
    let starts = |key: &str, name: &str, user: &str| {
        let request = post("/api/v1/campaigns/create?wait=20", json!({"workflow": name, "user_id": user}).to_string()).basic(key);
        let running = &running;
        async move { running.send(&request).await.status }
    };
    let of_acme = publish("secret-a:", "", "asks", "2d").await;
    assert_eq!((of_acme.status, of_acme.json()["workflows"][0]["tenant"].as_str()), (200, Some("acme")), "{}", of_acme.text());

    // The other neither sees nor enters nor retires it, and under its name has one of its own.
    assert_eq!(active(&running, "secret-b:").await, Vec::<String>::new());
    assert_eq!(starts("secret-b:", "asks", "ann").await, 404);
    assert_eq!(retire("secret-b:", "", "asks").await.status, 404);
    assert_eq!(retire("secret-b:", "?tenant=acme", "asks").await.status, 404, "a key's tenant is not for the caller to say");
    let of_other = publish("secret-b:", "?tenant=acme", "asks", "4d").await;
    assert_eq!((of_other.status, of_other.json()["workflows"][0]["tenant"].as_str()), (200, Some("other")), "{}", of_other.text());
    assert_eq!(active(&running, "secret-a:").await, ["asks \"acme\""]);
    let listed = running.send(&get("/api/v1/workflows").basic("secret-a:")).await.text();
    assert!(!listed.contains(of_other.json()["workflows"][0]["digest"].as_str().unwrap()), "{listed}");
    assert_eq!((starts("secret-a:", "asks", "ann").await, starts("secret-b:", "asks", "ann").await), (200, 200));
    assert_eq!(retire("secret-b:", "", "asks").await.status, 200);
    assert_eq!((starts("secret-a:", "asks", "bob").await, starts("secret-b:", "asks", "bob").await), (200, 404));

    // What is everyone's is seen and entered by everyone, and published and retired by who runs the server.
    let taken = publish("operator:", "", "asks", "2d").await;
    assert_eq!((taken.status, taken.json()["code"].as_str()), (409, Some("name_taken")), "{}", taken.text());
    assert!(taken.text().contains("tenant acme has a workflow asks"), "{}", taken.text());
    let everyones = publish("operator:", "", "news", "2d").await.json();
    assert_eq!((&everyones["workflows"][0]["tenant"], &everyones["workflows"][0]["published"]), (&Value::Null, &json!(true)));
    assert_eq!(active(&running, "secret-b:").await, ["news null"]);
    assert_eq!((starts("secret-a:", "news", "ann").await, starts("secret-b:", "news", "ann").await), (200, 200));
    let taken = publish("secret-b:", "", "news", "4d").await;
    assert_eq!((taken.status, taken.json()["code"].as_str()), (409, Some("name_taken")), "{}", taken.text());
    let refused = retire("secret-b:", "", "news").await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("not_yours")), "{}", refused.text());
    let refused = retire("operator:", "", "asks").await;
    assert!(refused.status == 409 && refused.text().contains("tenant acme"), "{}", refused.text());
    assert_eq!(active(&running, "operator:").await, ["asks \"acme\"", "news null"]);
    assert_eq!((retire("operator:", "?tenant=acme", "asks").await.status, retire("operator:", "", "news").await.status), (200, 200));
    assert_eq!(active(&running, "operator:").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_tenant_declares_a_policy_for_itself_and_the_operator_for_everyone() {
    let (running, _world) = two_tenants().await;
    let policy = |basis: &str| format!("# Of ours.\n[[purpose]]\nname = \"marketing\"\nbasis = \"{basis}\"\n");
    let declare = |key: &str, text: String| {
        let request = post("/api/v1/policy", json!({"file": "ours.toml", "text": text}).to_string()).basic(key);
        let running = &running;
        async move { running.send(&request).await }
    };
    let in_force = |key: &str| {
        let request = get("/api/v1/policy").basic(key);
        let running = &running;
        async move {
            let found = running.send(&request).await.json();
            let basis = found["text"]
                .as_str()
                .expect("text")
                .split("basis = ")
                .nth(1)
                .map(|rest| rest.lines().next().unwrap_or_default().to_owned());
            (found["is_shipped"] == true, found["tenant"].clone(), basis.unwrap_or_default())
        }
    };
    assert_eq!(running.send(&get("/api/v1/policy")).await.status, 401);
    assert!(in_force("secret-a:").await.0);
    let declared = declare("secret-a:", policy("opt_in")).await;
    assert_eq!((declared.status, declared.json()["published"].as_bool()), (200, Some(true)), "{}", declared.text());
    assert_eq!(
        declare("secret-a:", policy("opt_in").replace("# Of ours.\n", "")).await.json()["published"],
        false,
        "the same but for a comment"
    );
    assert_eq!(in_force("secret-a:").await, (false, json!("acme"), "\"opt_in\"".to_owned()));
    assert!(in_force("secret-b:").await.0 && in_force("operator:").await.0);
    assert_eq!(declare("operator:", policy("opt_out")).await.json()["tenant"], Value::Null);
    assert_eq!(in_force("secret-a:").await.2, "\"opt_in\"");
    assert_eq!(in_force("secret-b:").await, (false, Value::Null, "\"opt_out\"".to_owned()));
    let wrong = declare("secret-b:", policy("opt_inn")).await;
    assert_eq!((wrong.status, wrong.json()["code"].as_str()), (422, Some("invalid_policy")), "{}", wrong.text());
    let mistake = wrong.json()["problems"][0].clone();
    assert_eq!(
        (mistake["file"].as_str(), mistake["line"].as_u64(), mistake["hint"].is_string()),
        (Some("ours.toml"), Some(4), true),
        "{mistake}"
    );
    assert_eq!(declare("secret-b:", String::new()).await.status, 422, "a policy without a purpose could send nothing");
}

#[tokio::test]
async fn an_effect_is_resolved_by_a_person_once() {
    let (running, world) = with_asks().await;
    let unknown = "/api/v1/effects/00000000000000000000000000000007/resolve";
    for (body, status) in [(r#"{"not_done":true}"#, 404), ("{}", 400), (r#"{"done":{},"not_done":true}"#, 400)] {
        assert_eq!(running.send(&post(unknown, body)).await.status, status, "{body}");
    }
    assert_eq!(running.send(&post("/api/v1/effects/x/resolve", "{}")).await.status, 400);
    let text = r#"
[workflow]
name = "sends"
[workflow.entry]
command = true

[[node]]
name = "send"
kind = "effect"
webhook = "'https://x.example'"
unknown = "ask_a_person"
timeout = "1m"
input = {}
next = "over"

[[node]]
name = "over"
kind = "exit"
"#;
    let published = running.send(&post("/api/v1/workflows", json!({"text": text}).to_string())).await;
    assert_eq!(published.status, 200, "{}", published.text());
    let run = running.send(&post("/api/v1/campaigns/create?wait=20", r#"{"workflow":"sends","user_id":"ann"}"#)).await.json();
    let run = RunId::parse(run["run"].as_str().unwrap()).unwrap();
    let effect = flywheel::workflow::EffectId::of(run, 1);
    world.tell("ann", &flywheel::workflow::Input::EffectStarted { effect, attempt: 1, executor: "e".repeat(32), appended: NOW });
    let outcome = flywheel::workflow::Outcome::Unknown { error: "lost".to_owned() };
    world.tell("ann", &flywheel::workflow::Input::EffectFinished { effect, attempt: 1, outcome });
    let path = format!("/api/v1/effects/{effect}/resolve?wait=20");
    let done = running.send(&post(&path, r#"{"done":{"id":7},"by":"bo"}"#)).await;
    assert_eq!((done.status, done.json()["status"].as_str()), (200, Some("resolved")), "{}", done.text());
    assert_eq!(running.send(&post(&path, r#"{"not_done":true}"#)).await.status, 409);
}
