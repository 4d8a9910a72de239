//! `flywheel template`: the templates that messages are written from, looked at and tried out before anyone gets one.

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::{Map, Value as Json, json};

use std::sync::Arc;

use super::exit::Exit;
use super::output::{outln, print_json};
use crate::app::{self, Folder};
use crate::channels::template::GIVEN;
use crate::config::Config;
use crate::domain::{Duration, Namespace, Subject, TenantId};
use crate::engine::effects::performers::Links;
use crate::engine::effects::{Call, Leave, Remote, Request, Surroundings, Templates};
use crate::env::fs::{Fs, RealFs};
use crate::env::{Clock, SystemClock};
use crate::permit::{self, AddressKey, Decision, EffectKey, Executor, Ledger, Standing, Suppressions};
use crate::segments::{Problem, Problems};
use crate::workflow::{EffectId, Outcome, Performer, Policy, RunId, Unknown};

#[derive(Debug, Subcommand)]
pub enum Template {
    /// The shipped templates and those of the folder channels.templates, with what each must be given.
    List,
    /// A message as it would read, with the template's examples or with values of your own.
    Preview {
        name: String,
        /// JSON object of inputs, in place of the examples of the same names.
        #[arg(long, value_name = "JSON")]
        with: Option<String>,
        /// Print the HTML instead of the text.
        #[arg(long)]
        html: bool,
    },
    /// Send it to yourself, the way campaigns send.
    Send {
        name: String,
        #[arg(long, value_name = "ADDRESS")]
        to: String,
        /// JSON object of inputs, in place of the examples of the same names.
        #[arg(long, value_name = "JSON")]
        with: Option<String>,
    },
}

pub async fn run(config: &Config, asked: &Template, json: bool) -> anyhow::Result<()> {
    let templates = Templates::load(&config.channels.templates.0).map_err(|error| Exit::check_failed(error.to_string()))?;
    match asked {
        Template::List => list(&templates, json),
        Template::Preview { name, with, html } => preview(&templates, name, with.as_deref(), *html, json),
        Template::Send { name, to, with } => send(config, &templates, name, to, with.as_deref(), json).await,
    }
}

/// Those that can be used, and those that cannot, marked; exit code 4 if there are any.
fn list(templates: &Templates, json: bool) -> anyhow::Result<()> {
    let inputs = |name: &str| templates.get(name).map(|template| template.inputs().clone()).unwrap_or_default();
    let mut problems = Vec::new();
    if json {
        let mut found: Vec<Json> =
            templates.names().map(|name| json!({ "name": name, "inputs": inputs(name), "broken": false, "problems": [] })).collect();
        let problem =
            |one: &Problem| json!({"file": one.file, "line": one.line, "column": one.column, "reason": one.message, "hint": one.hint});
        for (name, broken) in templates.all_broken() {
            found.push(json!({ "name": name, "inputs": {}, "broken": true, "problems": broken.0.iter().map(problem).collect::<Vec<_>>() }));
        }
        print_json(&json!(found));
    } else {
        for name in templates.names() {
            outln!("{name:<24} {}", inputs(name).keys().cloned().collect::<Vec<_>>().join(", "));
        }
    }
    for (name, broken) in templates.all_broken() {
        if !json {
            outln!("{name:<24} broken");
        }
        problems.extend(broken.0.iter().cloned());
    }
    if problems.is_empty() { Ok(()) } else { Err(Exit::check_failed(Problems(problems).to_string())) }
}

/// The template's examples, with what was given in their place.
fn inputs(templates: &Templates, name: &str, with: Option<&str>) -> anyhow::Result<Map<String, Json>> {
    if let Some(problems) = templates.broken(name) {
        return Err(Exit::check_failed(problems.to_string()));
    }
    let Some(template) = templates.get(name) else {
        let known = templates.names().collect::<Vec<_>>().join(", ");
        return Err(Exit::not_found(format!("there is no template {name:?}: there are {known}")));
    };
    let mut inputs = template.inputs().clone();
    if let Some(with) = with {
        let given: Map<String, Json> = serde_json::from_str(with).context("--with is a JSON object, such as '{\"name\": \"Ada\"}'")?;
        inputs.extend(given);
    }
    Ok(inputs)
}

fn preview(templates: &Templates, name: &str, with: Option<&str>, html: bool, json: bool) -> anyhow::Result<()> {
    let mut inputs = inputs(templates, name, with)?;
    for given in GIVEN {
        inputs.insert((*given).to_owned(), Json::from(format!("https://example.com/{given}")));
    }
    let template = templates.get(name).context("looked up just now")?;
    let words = template.render(&inputs).map_err(|problem| Exit::check_failed(format!("template {name}: {problem}")))?;
    if json {
        print_json(&json!({ "subject": words.subject, "text": words.text, "html": words.html }));
        return Ok(());
    }
    if html {
        let Some(html) = &words.html else { bail!("template {name} has no HTML") };
        outln!("{html}");
        return Ok(());
    }
    outln!("Subject: {}\n\n{}", words.subject, words.text);
    Ok(())
}

async fn send(config: &Config, templates: &Templates, name: &str, to: &str, with: Option<&str>, json: bool) -> anyhow::Result<()> {
    let mut input = inputs(templates, name, with)?;
    input.insert("template".to_owned(), name.into());
    let folder = Folder::new(&config.data.dir);
    std::fs::create_dir_all(folder.root()).with_context(|| format!("cannot make {}", folder.root().display()))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    let links = app::links(config, &folder, &folder.served(&config.server.listen))?;
    // A folder of their own: whoever counts what campaigns sent does not count trials.
    let namespace = Namespace::new("tests")?;
    let outbox = folder.outbox(&namespace);
    let links = Links { base: links.base, keys: links.keys };
    let around = Surroundings { namespace: &namespace, clock: &clock, fs: &fs, outbox: &outbox, links };
    let email = config.channels.email(around)?;
    let request = request(&input, &clock)?;
    let leave = Leave { permit: permit(&request, to, &clock)?, to: to.to_owned() };
    let key = request.key();
    let call = Call { request: Arc::new(request), attempt: 1, look_up: false, deadline: Duration::from_secs(60) };
    match email.perform(call, Some(leave)).await {
        Outcome::Done { .. } => {}
        Outcome::Failed { error, .. } | Outcome::Unknown { error } | Outcome::AddressRefused { error, .. } => bail!("{error}"),
        Outcome::NotBegun { why } => bail!("it was not sent: {why}"),
        Outcome::NotDone => bail!("it was not sent"),
    }
    let file = config.channels.email.smtp.is_none().then(|| outbox.join(format!("{key}.eml")).display().to_string());
    if json {
        print_json(&json!({ "sent": true, "to": to, "key": key.to_string(), "file": file }));
    } else {
        outln!("sent to {to}{}", file.map_or(String::new(), |file| format!(": {file}")));
    }
    Ok(())
}

fn request(input: &Map<String, Json>, clock: &Arc<dyn Clock>) -> anyhow::Result<Request> {
    let id = uuid::Uuid::new_v4().as_u128();
    Ok(Request {
        subject: Subject::user("template-test").key(&TenantId::new("default")?),
        run: RunId(id),
        effect: EffectId(id),
        workflow: "template".to_owned(),
        node: "test".to_owned(),
        by: Performer::Channel,
        target: "email".to_owned(),
        input: serde_json::value::to_raw_value(input)?,
        timeout_ms: 60_000,
        unknown: Unknown::Retry,
        purpose: "marketing".to_owned(),
        approved: String::new(),
        priority: permit::Priority::Normal,
        requested_at: clock.now(),
    })
}

/// Leave to send it, as the shipped policy gives it to a message that nobody was asked about.
fn permit(request: &Request, to: &str, clock: &Arc<dyn Clock>) -> anyhow::Result<permit::SendPermit> {
    let (policy, me) = (Policy::shipped().permits, Executor(*uuid::Uuid::new_v4().as_bytes()));
    let (consent, suppressions) = (crate::consent::Consent::default(), Suppressions::default());
    let address = Some(AddressKey::of("email", to));
    let standing = Standing { consent: &consent, suppressions: &suppressions, address, zone: None, block: None };
    let key: EffectKey = request.key();
    let asked =
        permit::Request { key, executor: me, channel: "email", purpose: "transactional", priority: request.priority, not_after: None };
    match permit::decide(&policy, &Ledger::default(), &standing, &asked, clock.now()) {
        Decision::Granted(grant) => Ok(grant.redeem(me, Duration::ZERO)?),
        Decision::Refused(refusal) => bail!("{}", refusal.reason),
    }
}
