//! The command line on a real process: what changes the log works with a server and without, and every way to fail has its exit code.

use std::path::Path;

use crate::place::Place;
use crate::running::{Server, flywheel, output_of, query_one, unread};

const GOOD: &str = r#"{"type":"track","messageId":"good","userId":"ada","event":"Order Completed","properties":{"total":5}}"#;
const BAD: &str = r#"{"type":"track","messageId":"bad","userId":"ada"}"#;

#[test]
fn the_log_is_changed_through_a_server_and_without_one() {
    let place = Place::new();
    let server = place.start();
    place.send(&format!("{GOOD}\n{GOOD}\n{BAD}\n"));
    for (message, said) in [("good", "duplicate"), ("good", "applied"), ("bad", "missing_field")] {
        let (code, trace) = place.run(&["trace", message]);
        assert!(code == 0 && trace.contains(said), "{trace}");
    }
    // Through the server: sent once, and not again.
    let redriven = place.done(&["dead-letter", "redrive", "--json"]);
    assert!(redriven.contains("\"sent\": 1"), "{redriven}");
    place.done(&["wait"]);
    let letters = place.query_one("SELECT count(*) FROM dead_letters WHERE message_id = 'bad'");
    assert_eq!(letters, 2, "refused for the same reason a second time");
    let export = place.path("intake.ndjson");
    let export = export.to_str().expect("a path of text");
    place.done(&["topic", "export", "main.intake", "-o", export]);
    place.done(&["topic", "import", "main.intake", export]);
    place.done(&["wait"]);
    assert_eq!(place.query_one("SELECT count(*) FROM events"), 1, "intake recognises what it had");
    server.stop();
    // And directly, when none runs.
    let place_of = |column: &str| {
        let listed = place.done(&["dead-letter", "list", "--json", "--limit", "1"]);
        let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
        listed[0][column].as_str().expect("a place").to_owned()
    };
    let (letter, position) = (place_of("letter"), place_of("position"));
    assert!(letter.starts_with("dead_letters/") && position.starts_with("intake/"), "{letter} {position}");
    for (chosen, sent) in [
        (["--message-id", "other"], 0),
        // Refused again when it was sent again, and once for each time that it was imported.
        (["--message-id", "bad"], 3),
        (["--at", letter.as_str()], 1),
        (["--at", position.as_str()], 1),
        (["--at", "intake/0/999999"], 0),
    ] {
        let said = place.done(&[&["dead-letter", "redrive", "--dry-run", "--json"], &chosen[..]].concat());
        assert!(said.contains(&format!("\"sent\": {sent}")), "{chosen:?}: {said}");
    }
    assert!(place.run(&["dead-letter", "redrive", "--at", "somewhere"]).1.contains("is no place"));
    let (code, said) = place.run(&["dead-letter", "redrive"]);
    assert!(code == 0, "{said}");
    let (code, said) = place.run(&["topic", "import", "main.intake", export]);
    assert!(code == 0 && said.contains("records appended"), "{said}");
    let (code, said) = place.run(&["trace", "good"]);
    assert!(code == 0 && said.contains("waiting to be folded") && said.contains("in the profile of u:ada"), "{said}");
}

#[test]
fn what_is_acknowledged_and_not_folded_yet_is_waiting_and_not_missing() {
    let place = Place::new();
    let other = place.path("other");
    let server = place.start();
    place.send(&format!("{GOOD}\n"));
    let export = place.path("intake.ndjson");
    let export = export.to_str().expect("a path of text");
    place.done(&["topic", "export", "main.intake", "-o", export]);
    server.stop();
    Server::start(&other, &place.config()).stop();
    output_of(&other, &place.config(), &["topic", "import", "main.intake", export]);
    for what in ["good", "ada", "u:ada"] {
        let (code, said) = place.run_on(&other, &["trace", what]);
        assert!(code == 0 && said.contains("waiting to be folded") && said.contains("intake/"), "{what}: {said}");
    }
    assert_eq!(place.run_on(&other, &["trace", "good", "--tenant", "other"]).0, 3);
    let server = Server::start(&other, &place.config());
    output_of(&other, &place.config(), &["wait"]);
    let said = output_of(&other, &place.config(), &["trace", "good"]);
    assert!(said.contains("profiles/") && !said.contains("waiting"), "{said}");
    server.stop();
}

#[test]
fn the_admin_api_asks_for_the_token_before_it_reads() {
    use std::io::{Read, Write};
    let place = Place::new();
    let server = place.start();
    let address = server.url.trim_start_matches("http://").to_owned();
    for token in ["", "Authorization: Bearer wrong\r\n"] {
        let mut stream = std::net::TcpStream::connect(&address).expect("listens");
        let head = format!("POST /admin/v1/append HTTP/1.1\r\nHost: {address}\r\n{token}Content-Length: 60000000\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("takes it");
        // Who waits for the body lets go of the connection without an answer.
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("is answered");
        assert_eq!(&answer, b"HTTP/1.1 401");
    }
    server.stop();
}

#[test]
fn event_time_is_not_overridden_by_a_slip() {
    let place = Place::new();
    let namespace = "[[namespaces]]\nname = \"past\"\nclock = \"event\"\n";
    let source = "[[sources]]\nname = \"s\"\nwrite_key = \"wk\"\ntenant = \"default\"\nnamespace = \"past\"\n";
    place.configure(&format!("{namespace}{source}"));
    let server = place.start();
    let state =
        |to: &str, more: &[&str]| place.run(&[&["time", "override", "--namespace", "past", "--partition", "0", "--to", to], more].concat());
    assert!(state("2024-05-01T00:00:00Z", &[]).1.contains("there is no event"));
    let file = place.path("events.ndjson");
    let event = GOOD.replacen('{', r#"{"timestamp":"2024-04-20T00:00:00Z","#, 1);
    std::fs::write(&file, event + "\n").expect("the folder is writable");
    place.done(&["send", file.to_str().expect("a path of text"), "--write-key", "wk"]);
    place.done(&["wait", "--namespace", "past"]);
    assert_eq!(state("2024-05-01T00:00:00Z", &[]).0, 0);
    let (code, said) = state("9999-01-01T00:00:00Z", &[]);
    assert!(code == 1 && said.contains("2024-04-20"), "{said}");
    assert_eq!(state("9999-01-01T00:00:00Z", &["--force"]).0, 0);
    server.stop();
}

#[test]
fn a_restored_folder_is_waited_for_and_says_the_same() {
    let place = Place::new();
    let data = place.data();
    let server = place.start();
    place.send(&format!("{GOOD}\n"));
    let copy = place.path("copy");
    place.done(&["backup", copy.to_str().expect("a path of text")]);
    let digest = |data: &Path| output_of(data, &place.config(), &["replay", "--digest", "--json"]);
    let before = digest(&data);
    server.stop();
    let restored = place.path("restored");
    output_of(&restored, &place.config(), &["restore", copy.to_str().expect("a path of text")]);
    let server = Server::start(&restored, &place.config());
    // The read models of a restored folder are built anew; waiting includes that.
    output_of(&restored, &place.config(), &["wait"]);
    assert_eq!(query_one(&restored, &place.config(), "main", "SELECT orders FROM profiles WHERE user_id = 'ada'"), 1);
    assert_eq!(digest(&restored), before);
    let key = |folder: &Path| std::fs::read(folder.join("link.key")).expect("a folder that was served has a key");
    assert_eq!(key(&restored), key(&data), "links that were sent before lead somewhere");
    let release = || output_of(&restored, &place.config(), &["time", "release", "--json"]);
    assert!(release().contains(r#""main""#), "a copy's time is held");
    assert!(!release().contains(r#""main""#), "but once");
    server.stop();
    assert!(!place.done(&["time", "release", "--json"]).contains(r#""main""#), "the original's never was");
}

#[test]
fn an_operator_can_state_the_time_of_an_intake_partition_that_has_stopped() {
    let place = Place::new();
    let server = place.start();
    place.send(&format!("{GOOD}\n"));
    let state = |partition: &str, to: &str| place.run(&["time", "override", "--partition", partition, "--to", to]);
    assert_eq!(state("0", "2024-05-01T00:00:00Z").0, 0);
    assert_eq!(state("99", "2024-05-01T00:00:00Z").0, 3);
    assert!(state("0", "2999-05-01T00:00:00Z").1.contains("has not come yet"));
    assert!(state("0", "yesterday").1.contains("RFC 3339"));
    let told = place.done(&["topic", "export", "main.events"]);
    assert_eq!(told.matches("\"by_operator\":true").count(), 4, "one to every partition of events: {told}");
    server.stop();
}

/// Flips a bit wherever `what` stands in the folder's write-ahead files; how often that was.
fn damage(data: &Path, what: &[u8]) -> usize {
    let mut times = 0;
    for entry in std::fs::read_dir(data.join("log")).expect("the log's folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "wal") {
            continue;
        }
        let mut bytes = std::fs::read(&path).expect("reads");
        let found: Vec<usize> = (0..bytes.len().saturating_sub(what.len())).filter(|at| bytes[*at..].starts_with(what)).collect();
        found.iter().for_each(|at| bytes[*at] ^= 1);
        times += found.len();
        if !found.is_empty() {
            std::fs::write(&path, bytes).expect("writes");
        }
    }
    times
}

#[test]
fn a_person_whose_profile_lay_in_a_declared_hole_is_in_sql_again_without_doing_anything() {
    let place = Place::new();
    let data = place.data();
    let server = place.start();
    place.send(&format!("{GOOD}\n"));
    server.stop();
    // Only profiles name a score's model.
    assert!(damage(&data, b"churn-own-pauses") > 0);
    assert_eq!(place.run(&["doctor"]).0, 4);
    let (code, said) = place.run(&["doctor", "--declare-holes"]);
    assert!(code == 0 && said.contains("incarnation 2"), "{said}");
    let server = place.start();
    let people = || {
        place.done(&["wait"]);
        place.query_one("SELECT count(*) FROM profiles WHERE user_id = 'ada' AND orders = 1")
    };
    // Waiting ends when the folds are done; the profile is written just after.
    assert!((0..100).any(|_| people() == 1), "{}", place.said());
    server.stop();
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new();
    let data = place.data();
    let server = place.start();
    place.send(&format!("{GOOD}\n"));
    let cases: &[&[&str]] = &[
        &["profile", "ada"],
        &["profile", "ada", "--json"],
        &["segment", "plot"],
        &["query", "SELECT * FROM profiles", "--format", "csv"],
        &["topic", "export", "main.events"],
        &["topic", "tail", "main.events"],
        &["completions", "bash"],
        &["topology", "show"],
        &["topology", "test"],
        &["config", "show"],
        &["doctor"],
        &["bench", "--list"],
    ];
    for args in cases {
        let output = unread(&data, &place.config(), args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{args:?}: {}: {said}", output.status);
    }
    server.stop();
}

#[test]
fn the_only_tenant_is_meant_and_several_are_named() {
    let place = Place::new();
    let source =
        |tenant: &str| format!("[[sources]]\nname = \"{tenant}\"\nwrite_key = \"{tenant}\"\ntenant = \"{tenant}\"\nnamespace = \"main\"\n");
    place.configure(&source("acme"));
    let data = place.data();
    let server = place.start();
    let file = place.path("events.ndjson");
    let tied = r#"{"type":"identify","messageId":"tie","userId":"ada","anonymousId":"dev-1"}"#;
    let device = r#"{"type":"page","messageId":"lone","anonymousId":"dev-2"}"#;
    std::fs::write(&file, format!("{GOOD}\n{tied}\n{device}\n")).expect("the folder is writable");
    place.done(&["send", file.to_str().expect("a path of text"), "--write-key", "acme"]);
    place.done(&["wait"]);
    let check = |cases: &[(&[&str], i32, &str)]| {
        for (args, code, said) in cases {
            let (got, text) = place.run(args);
            assert!(got == *code && text.contains(said), "{args:?}: {got}: {text}");
        }
    };
    check(&[
        (&["profile", "ada"], 0, "Order Completed"),
        (&["trace", "good"], 0, "in the profile of u:ada"),
        (&["segment", "members", "new"], 0, "u:ada"),
        (&["profile", "a:dev-1"], 0, "u:ada"),
        (&["trace", "dev-1"], 0, "u:ada"),
        (&["profile", "dev-2"], 3, "there is a:dev-2"),
        (&["query", "SELECT * FROM profils"], 1, "did you mean profiles?"),
        (&["query", "SELECT ordrs FROM profiles"], 1, "did you mean orders?"),
        (&["query", ".tables"], 1, "sqlite_schema"),
    ]);
    let said = flywheel(&data, &place.config(), &["query", "SELECT 1"]).stderr;
    assert!(said.is_empty(), "a server at work is not behind: {}", String::from_utf8_lossy(&said));
    server.stop();
    place.configure(&(source("acme") + &source("other")));
    check(&[
        (&["profile", "ada"], 2, "acme, other"),
        (&["profile", "ada", "--tenant", "acme"], 0, "Order Completed"),
        (&["profile", "ada", "--tenant", "other"], 3, "other tenants here: acme"),
        (&["query", "SELECT 1", "-n", "nosuch"], 3, "there are: main"),
    ]);
}

#[test]
fn equal_rows_are_kept_and_a_file_sent_again_is_recognised() {
    let place = Place::new();
    let server = place.start();
    let file = place.path("orders.csv");
    let send = || {
        let args = ["send", file.to_str().expect("a path of text"), "--map", "userId=who", "--map", "event='Order Completed'"];
        let done = place.run(&args);
        place.done(&["wait"]);
        (done, place.query_one("SELECT count(*) FROM events"))
    };
    // The third row is of nobody: what came before it is sent all the same, and the message says so.
    std::fs::write(&file, "who,total\nada,5\nada,5\n,7\n").expect("the folder is writable");
    let ((code, said), events) = send();
    assert!(code == 1 && said.contains("2 rows were sent") && said.contains("line 4") && said.contains("run it again"), "{said}");
    assert_eq!(events, 2);
    std::fs::write(&file, "who,total\nada,5\nada,5\ngrace,7\n").expect("the folder is writable");
    for _ in 0..2 {
        let ((code, said), events) = send();
        assert!(code == 0 && said.contains("3 events acknowledged"), "{said}");
        assert_eq!(events, 3);
    }
    server.stop();
}

#[test]
fn exit_codes_say_what_kind_of_failure_it_was() {
    let place = Place::new();
    assert_eq!(place.run(&["topic", "list"]).0, 3, "no folder yet");
    let server = place.start();
    place.send(&format!("{GOOD}\n"));
    let (broken, copy, taken) = (place.path("broken.toml"), place.path("copy"), server.url.trim_start_matches("http://"));
    std::fs::write(&broken, "[topology]\nname = 1\n").expect("the folder is writable");
    let (broken, copy) = (broken.to_str().expect("a path of text"), copy.to_str().expect("a path of text"));
    place.done(&["backup", copy]);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["topology", "test"], 0, "spine"),
        (&["ready"], 0, "ready"),
        (&["ready", "--url", "http://127.0.0.1:1"], 1, "nobody answers"),
        (&["nosuch"], 2, "unrecognized"),
        (&["completions", "nosuch"], 2, "possible values"),
        (&["up", "--listen", "127.0.0.1:0"], 1, "in use by process"),
        (&["query", "DELETE FROM events"], 1, "SELECT"),
        (&["query", "SELECT * FROM nosuch"], 1, "no such table"),
        (&["query", "SELECT 1", "-n", "nosuch"], 3, "no read model"),
        (&["wait", "-n", "nosuch"], 3, "no namespace"),
        (&["projections", "rebuild", "-n", "nosuch"], 3, "no namespace"),
        (&["replay", "-n", "nosuch"], 3, "no namespace"),
        (&["topic", "tail", "main.nosuch"], 3, "main.events"),
        (&["trace", "nosuch"], 3, "no message or person"),
        (&["profile", "nosuch"], 3, "there is no u:nosuch"),
        (&["segment", "members", "nosuch"], 3, "segment list"),
        (&["workflow", "list", "--tenant", "nosuch"], 3, "there is no tenant nosuch in namespace main"),
        (&["workflow", "approvals", "--tenant", "nosuch"], 3, "there is no tenant nosuch in namespace main"),
        (&["workflow", "list", "--workflow", "nosuch"], 3, "no workflow nosuch was published"),
        (&["workflow", "status", "--tenant", "nosuch"], 3, "there is no tenant nosuch"),
        (&["workflow", "list", "--status", "pausd"], 2, "'paused'"),
        (&["workflow", "pause", "--workflow", "w", "--status", "goal"], 2, "possible values: open, running, waiting, paused"),
        (&["segment", "plot", "nosuch"], 3, "segment list"),
        (&["replay", "--expect", "nosuch"], 4, "expected nosuch"),
        (&["send", "nosuch.csv"], 1, "nosuch.csv"),
        (&["topology", "check", "nosuch.toml"], 3, "no topology"),
        (&["topology", "test", "nosuch.toml"], 3, "no topology"),
        (&["topology", "check", broken], 4, "broken.toml"),
        (&["topology", "test", broken], 4, "broken.toml"),
        (&["restore", "nosuch"], 3, "flywheel backup"),
        (&["restore", broken], 3, "is a file"),
        (&["restore", copy], 1, "--data"),
        (&["backup", copy], 1, "does not exist yet"),
    ];
    for (args, code, said) in cases {
        let (got, text) = place.run(args);
        assert!(got == *code && text.contains(said), "{args:?}: {got}: {text}");
    }
    let elsewhere = place.path("elsewhere");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["doctor"], 3, "--data"),
        (&["backup", broken], 3, "--data"),
        (&["time", "release"], 3, "--data"),
        (&["ready"], 1, "flywheel up"),
        (&["up", "--listen", taken], 1, "--listen"),
    ];
    for (args, code, said) in cases {
        let (got, text) = place.run_on(&elsewhere, args);
        assert!(got == *code && text.contains(said), "{args:?}: {got}: {text}");
    }
    server.stop();
}
