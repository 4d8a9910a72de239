//! docs/configuration.md is what `flywheel config show` says: every key, its default, its variable and its meaning.

use std::fmt::Write;
use std::path::Path;

use flywheel::config;

const HEAD: &str = "\
# Configuration

Defaults, then `flywheel.toml` in the folder that a command runs in (or the file that `--config` or `FLYWHEEL_CONFIG` names), then variables, then
flags (`--data`, `up --listen`). A key that does not exist, in the file or in a `FLYWHEEL_` variable, is refused with the nearest one that does.
`flywheel config show` prints the values in force and where each came from; write keys and API keys are shown as `***`. A running server reads its
configuration when it starts.

A key `section.key` is `key` below `[section]` in the file and `FLYWHEEL_SECTION__KEY` in the environment. Lists are given to a variable as TOML:
`FLYWHEEL_SOURCES='[{name = \"web\", write_key = \"...\", tenant = \"acme\", namespace = \"main\"}]'`.

The table is generated: `FLYWHEEL_UPDATE_DOCS=1 cargo test configuration`.

| key | default | meaning |
|---|---|---|
";

const TAIL: &str = r#"
## Lists

```toml
# Who may send, and into which world. Write keys are no secret: browsers show them.
[[sources]]
name = "web"
write_key = "choose-a-long-random-one"
tenant = "acme"
namespace = "main"
disabled = false        # true refuses its events and says so

# Who may read profiles over HTTP and state the time of an event-time namespace. Secret.
[[api_keys]]
api_key = "another-long-random-one"
tenant = "acme"
namespace = "main"

# A world beside `main`. Its clock, once there is a folder, is fixed, and so is the number of its partitions.
[[namespaces]]
name = "history"
clock = "event"         # time is what --state-time says; "wall" for live traffic
topology = "shop.toml"  # a file, or a shipped one's name; topology.default if absent
policy = "policy.toml"  # a file; policy.default if absent
partitions = 4          # topology.partitions if absent

# Performs the agent `copywriter` in place of the scripted one: each attempt is a POST with its Idempotency-Key.
[effects.workers.copywriter]
url = "http://127.0.0.1:9000/perform"
token = "sent-as-a-bearer-token"
concurrency = 8         # effects.agents' if absent, as is per_second

# Mail through a server instead of the outbox folder.
[channels.email]
from = "Shop <news@shop.example>"
bounces = "bounces+{key}@shop.example"

[channels.email.smtp]
host = "smtp.shop.example"
port = 587
security = "starttls"   # or "tls" from the first byte, or "plain" for a relay on this machine
user = "shop"
password = "secret"

# What `webhook = "crm"` in a workflow calls. Private addresses are refused unless `private = true`.
[channels.webhooks.crm]
url = "https://crm.example/hooks/flywheel"
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
```
"#;

fn generated() -> String {
    let effective = config::load(Some(Path::new("/dev/null")), [], &[]).expect("defaults are valid");
    let mut text = HEAD.to_owned();
    for (key, value, _, doc) in effective.rows() {
        let doc = doc.replace('|', "\\|");
        writeln!(text, "| `{key}` | `{value}` | {doc} |").expect("a string takes all");
    }
    text + TAIL
}

/// `FLYWHEEL_UPDATE_DOCS=1` writes the document anew.
#[test]
fn the_table_in_docs_is_the_one_that_config_show_prints() {
    let path = "docs/configuration.md";
    let generated = generated();
    if std::env::var_os("FLYWHEEL_UPDATE_DOCS").is_some() {
        std::fs::write(path, &generated).expect("the tree is writable");
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == generated, "docs/configuration.md is not what src/config/keys.rs says; run this test with FLYWHEEL_UPDATE_DOCS=1");
}

#[test]
fn the_example_lists_are_a_configuration() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let example = TAIL.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).expect("the block");
    std::fs::write(file.path(), example).expect("the file is writable");
    let effective = config::load(Some(file.path()), [], &[]).expect("the example is valid");
    assert_eq!(effective.config.namespaces.len(), 1);
}

#[test]
fn what_a_setting_names_and_is_not_there_is_refused_at_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("flywheel.toml");
    let refused = |text: &str| {
        std::fs::write(&config, text).expect("the folder is writable");
        let output = crate::running::flywheel(&dir.path().join("data"), &config, &["up", "--listen", "127.0.0.1:0"]);
        assert_eq!(output.status.code(), Some(1), "{text}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let hook = "[channels.webhooks.ops]\nurl = \"https://ops.example/hook\"\nsecrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n";
    let said = refused(&format!("[effects]\nnotify = \"opps\"\n{hook}"));
    assert!(said.contains("effects.notify") && said.contains("\"opps\"") && said.contains("there are ops"), "{said}");
    let said = refused("[effects]\nnotify = \"log\"\n");
    assert!(said.contains("there are none"), "{said}");
    let said = refused("[channels]\nbots = \"missing.toml\"\n");
    assert!(said.contains("channels.bots: missing.toml"), "{said}");
}
