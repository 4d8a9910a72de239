//! What came of the history: counts against the file, segments through time, people with reasons, speed, what to type next.

use anyhow::Context;
use serde_json::{Value, json};

use super::dataset::{History, Truth};
use super::load::Loaded;
use super::{Dataset, Scene, campaigns};
use crate::cli::exit::Exit;
use crate::cli::output::{Rows, bars, grouped, outln, print_json, spark};
use crate::cli::people::{described, readable, telling};
use crate::cli::query;
use crate::config::Config;
use crate::domain::{Money, Subject};
use crate::projections::{Reader, Reconciliation};

const PLOT_WIDTH: usize = 40;

pub async fn run(
    config: &Config,
    scene: &Scene,
    history: &History,
    reader: &Reader,
    loaded: Option<&Loaded>,
    json: bool,
) -> anyhow::Result<()> {
    let found = reader.reconciliation(&scene.tenant).await?;
    let checks = checks(config, scene, &history.truth, &found).await?;
    let people = people(config, scene).await?;
    let months = months(scene, history, reader).await?;
    if json {
        let speed = loaded.map(|loaded| {
            json!({"seconds": loaded.seconds, "events_per_second": loaded.events_per_second, "visible_p50_ms": loaded.visible_p50_ms,
                   "visible_p99_ms": loaded.visible_p99_ms, "samples": loaded.samples})
        });
        let checks =
            checks.iter().map(|check| json!({"what": check.what, "file": check.file, "flywheel": check.ours, "equal": check.equal()}));
        let segments = months.iter().map(|(name, sizes)| json!({"segment": name, "sizes": sizes}));
        print_json(&json!({
            "checks": checks.collect::<Vec<_>>(), "outcomes": found.outcomes, "segments": segments.collect::<Vec<_>>(), "speed": speed,
        }));
    } else {
        print_checks(&checks);
        print_outcomes(&found);
        print_segments(scene, &months);
        for user in &people {
            let profile = reader.profile(&scene.tenant, &Subject::user(user)).await?.context("a listed person has a profile")?;
            outln!("\ncustomer {user}\n{}", described(&readable(&telling(&profile)), 1));
        }
        if let Some(loaded) = loaded {
            print_speed(loaded);
        }
    }
    let messages_once = campaigns::show(config, scene, json).await?;
    if !json {
        print_next(config, scene, people.first().map_or("00001", String::as_str));
    }
    match (checks.iter().all(Check::equal), messages_once) {
        (true, true) => Ok(()),
        (false, _) => Err(Exit::check_failed("the counts do not reconcile with the file")),
        (true, false) => Err(Exit::check_failed("the messages in the outbox are not those of the journal")),
    }
}

/// Every segment through the months on one line each, and one of them drawn large.
fn print_segments(scene: &Scene, months: &[(String, Vec<(String, f64)>)]) {
    let (Some(first), Some(last)) = (
        months.iter().filter_map(|(_, sizes)| sizes.first()).map(|(month, _)| month).min(),
        months.iter().filter_map(|(_, sizes)| sizes.last()).map(|(month, _)| month).max(),
    ) else {
        return;
    };
    let length = months.iter().map(|(_, sizes)| sizes.len()).max().unwrap_or(0);
    let mut rows = Rows::new(&["segment", &format!("{first} to {last}"), "most", "now"]);
    for (name, sizes) in months {
        let values: Vec<f64> = sizes.iter().map(|(_, members)| *members).collect();
        // A segment that nobody was in at first begins further to the right.
        let line = format!("{}{}", " ".repeat(length - values.len()), spark(&values));
        let most = values.iter().copied().fold(0.0, f64::max) as u64;
        rows.push(vec![json!(name), json!(line), json!(most), json!(values.last().map_or(0, |now| *now as u64))]);
    }
    outln!("segments, members at the end of each month\n{}", rows.to_table());
    let drawn = match scene.dataset {
        Dataset::Cdnow => "lapsing",
        Dataset::Clickstream => "active",
    };
    if let Some((name, sizes)) = months.iter().find(|(name, _)| name == drawn) {
        outln!("\n{name}\n{}", bars(sizes, PLOT_WIDTH));
    }
}

/// One count as the file has it and as the read model has it.
struct Check {
    what: &'static str,
    file: String,
    ours: String,
}

impl Check {
    fn equal(&self) -> bool {
        self.file == self.ours
    }
}

async fn checks(config: &Config, scene: &Scene, truth: &Truth, found: &Reconciliation) -> anyhow::Result<Vec<Check>> {
    let count = |what, file: u64, ours: u64| Check { what, file: grouped(file), ours: grouped(ours) };
    let applied: i64 =
        found.outcomes.iter().filter(|total| total.stage == "intake" && total.kind == "applied").map(|total| total.records).sum();
    // What workflows emit, such as that a mail was sent, is an event like any other. Campaigns themselves are nobody.
    let emitted = one(config, scene, "SELECT count(*) FROM events WHERE source = 'workflow'").await?.as_u64().unwrap_or(0);
    let campaigns =
        one(config, scene, "SELECT count(DISTINCT user_id) FROM events WHERE user_id LIKE 'campaign:%'").await?.as_u64().unwrap_or(0);
    let mut checks = vec![
        count("events, without those of campaigns", truth.events, (found.events as u64).saturating_sub(emitted)),
        count("of them applied, once each", truth.events, (applied as u64).saturating_sub(emitted)),
        count("customers", truth.users, (found.subjects as u64).saturating_sub(campaigns)),
    ];
    let orders = one(config, scene, "SELECT sum(orders) FROM profiles").await?;
    checks.push(count("purchases", truth.orders, orders.as_u64().unwrap_or(0)));
    if scene.dataset == Dataset::Cdnow {
        let revenue = one(config, scene, "SELECT sum(revenue_micros) FROM daily_revenue").await?;
        let revenue = Money(revenue.as_i64().unwrap_or(0));
        checks.push(Check { what: "revenue, USD", file: truth.revenue.to_string(), ours: revenue.to_string() });
    }
    if truth.sessions > 0 {
        let sessions = one(config, scene, "SELECT sum(sessions) FROM profiles").await?;
        checks.push(count("sessions (the file's own ids)", truth.sessions, sessions.as_u64().unwrap_or(0)));
    }
    Ok(checks)
}

async fn one(config: &Config, scene: &Scene, sql: &str) -> anyhow::Result<Value> {
    let rows = query::rows(config, &scene.namespace, sql).await?;
    Ok(rows.rows.into_iter().next().and_then(|row| row.into_iter().next()).unwrap_or(Value::Null))
}

/// Three people worth a look: the best customer, one who came back, one who may be lost.
async fn people(config: &Config, scene: &Scene) -> anyhow::Result<Vec<String>> {
    let sql = "SELECT user_id FROM (SELECT user_id FROM profiles ORDER BY revenue DESC, user_id LIMIT 1) \
               UNION ALL SELECT user_id FROM (SELECT user_id FROM profiles ORDER BY churn DESC, orders DESC, user_id LIMIT 1) \
               UNION ALL SELECT user_id FROM (SELECT user_id FROM profiles ORDER BY last_seen DESC, orders, user_id LIMIT 1)";
    let rows = query::rows(config, &scene.namespace, sql).await?;
    Ok(rows.rows.iter().filter_map(|row| row[0].as_str().map(str::to_owned)).collect())
}

/// Each segment's size at the end of every month.
async fn months(scene: &Scene, history: &History, reader: &Reader) -> anyhow::Result<Vec<(String, Vec<(String, f64)>)>> {
    // The last moment of the history, not the midnight after it.
    let last: String = (history.end - 1).to_string().chars().take(7).collect();
    let mut all = Vec::new();
    for summary in reader.segments(&scene.tenant).await? {
        let mut months: Vec<(String, f64)> = Vec::new();
        for size in reader.segment_sizes(&scene.tenant, &summary.segment).await? {
            let month = size.day.chars().take(7).collect::<String>().min(last.clone());
            match months.last_mut() {
                Some((last, members)) if *last == month => *members = size.members as f64,
                _ => months.push((month, size.members as f64)),
            }
        }
        // A segment that nobody entered or left any more keeps its size.
        while let Some((month, members)) = months.last().cloned().filter(|(month, _)| *month < last) {
            months.push((next_month(&month), members));
        }
        all.push((summary.segment, months));
    }
    Ok(all)
}

/// `1997-12` to `1998-01`.
fn next_month(month: &str) -> String {
    let (year, number) =
        month.split_once('-').and_then(|(year, month)| Some((year.parse::<i32>().ok()?, month.parse::<i32>().ok()?))).unwrap_or((9999, 12));
    if number == 12 { format!("{:04}-01", year + 1) } else { format!("{year:04}-{:02}", number + 1) }
}

fn print_checks(checks: &[Check]) {
    let mut rows = Rows::new(&["", "in the file", "in Flywheel", ""]);
    for check in checks {
        rows.push(vec![json!(check.what), json!(check.file), json!(check.ours), json!(if check.equal() { "equal" } else { "DIFFERENT" })]);
    }
    outln!("{}", rows.to_table());
}

fn print_outcomes(found: &Reconciliation) {
    let mut rows = Rows::new(&["stage", "outcome", "reason", "records"]);
    for total in &found.outcomes {
        rows.push(vec![json!(total.stage), json!(total.kind), json!(total.reason), json!(total.records)]);
    }
    outln!("every record's outcome\n{}", rows.to_table());
}

fn print_speed(loaded: &Loaded) {
    outln!(
        "\n{} events a second from HTTP to committed read model, over {:.1} s, fsync on\n\
         acknowledged to visible in SQL: p50 {:.0} ms, p99 {:.0} ms ({} batches followed)",
        grouped(loaded.events_per_second as u64),
        loaded.seconds,
        loaded.visible_p50_ms,
        loaded.visible_p99_ms,
        loaded.samples,
    );
}

fn print_next(config: &Config, scene: &Scene, user: &str) {
    let namespace = &scene.namespace;
    let data = &config.data.dir;
    let flags = if *data == Config::default().data.dir { String::new() } else { format!(" --data {}", data.display()) };
    let program = std::env::current_exe().map_or_else(|_| "flywheel".to_owned(), |path| path.display().to_string());
    outln!(
        "\nwhat to type next\n  \
         {program}{flags} profile {user} -n {namespace}\n  \
         {program}{flags} trace {user} -n {namespace}\n  \
         {program}{flags} segment plot -n {namespace}\n  \
         {program}{flags} workflow list -n {namespace}\n  \
         {program}{flags} workflow show winback\n  \
         {program}{flags} query \"SELECT * FROM v_daily ORDER BY day DESC LIMIT 10\" -n {namespace}\n  \
         {program}{flags} up"
    );
}
