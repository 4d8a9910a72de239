//! `flywheel workflow funnel|results|timers`: what came of it, as one would look at it.

use serde_json::json;

use super::super::exit::Exit;
use super::super::output::{Rows, grouped, note, out, outln, print_json};
use super::super::people;
use super::{Funnel, Results, Whose, files, readable};
use crate::config::Config;
use crate::domain::{DAY_MS, Millis, TenantId};
use crate::projections::Reader;
use crate::projections::runs::{self, ArmResult, Interval, Publication};

const BAR_WIDTH: usize = 40;
/// Of a digest, for people.
const DIGEST_CHARS: usize = 12;
/// Ways out of a node that are told beside its bar; more are summed up.
const WAYS_MAX: usize = 4;

pub async fn funnel(config: &Config, asked: &Funnel, json: bool) -> anyhow::Result<()> {
    let (reader, tenant) = readable(config, &asked.whose).await?;
    let day = |text: &Option<String>, otherwise: &str| match text {
        Some(text) if Millis::parse(&format!("{text}T00:00:00Z")).is_some() => Ok(text.clone()),
        Some(text) => Err(Exit::usage(format!("{text:?} is no day such as 2024-03-01"))),
        None => Ok(otherwise.to_owned()),
    };
    let days = (day(&asked.from, "")?, day(&asked.to, "~")?);
    let digest = asked.digest.as_deref();
    let mut nodes = reader.funnel(&tenant, &asked.workflow, digest, Some((&days.0, &days.1))).await?;
    if nodes.is_empty() {
        if (asked.from.is_some() || asked.to.is_some() || digest.is_some())
            && !reader.funnel(&tenant, &asked.workflow, None, None).await?.is_empty()
        {
            return Err(Exit::not_found(format!("no run of {} began then, or on such a version", asked.workflow)));
        }
        return Err(nothing(config, &reader, asked.whose.at.namespace.as_str(), &tenant, &asked.workflow).await?);
    }
    // As drawn, where the definition is at hand; nodes of other versions follow.
    if let Ok(definition) = files::find(config, &asked.workflow, &asked.whose.at.namespace) {
        nodes.sort_by_key(|node| definition.find(&node.node).map_or(usize::MAX, |(at, _)| usize::from(at)));
    }
    if json {
        print_json(&serde_json::to_value(&nodes)?);
    } else {
        out!("{}", drawn(&nodes));
    }
    Ok(())
}

/// A bar per node as long as its arrivals, with who is there now and where the others went.
fn drawn(nodes: &[runs::Funnel]) -> String {
    let most = nodes.iter().map(|node| node.entered).max().unwrap_or(0).max(1);
    let width = nodes.iter().map(|node| node.node.chars().count()).max().unwrap_or(0);
    let count = |count: i64| grouped(count.max(0).unsigned_abs());
    let numbers = nodes.iter().map(|node| count(node.entered).len()).max().unwrap_or(0);
    let mut drawn = String::new();
    for node in nodes {
        let eighths = (node.entered.max(0) as f64 / most as f64 * BAR_WIDTH as f64 * 8.0).round() as usize;
        let partial = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
        let bar = format!("{}{partial}", "█".repeat(eighths / 8));
        let mut told: Vec<String> = Vec::new();
        if node.here > 0 {
            told.push(format!("{} here", count(node.here)));
        }
        told.extend(node.ways.iter().take(WAYS_MAX).map(|way| format!("{} {}", count(way.runs), way.way)));
        let rest: i64 = node.ways.iter().skip(WAYS_MAX).map(|way| way.runs).sum();
        if rest > 0 {
            told.push(format!("{} otherwise", count(rest)));
        }
        let line = format!("{:<width$} {bar:<BAR_WIDTH$} {:>numbers$}  {}", node.node, count(node.entered), told.join(", "));
        drawn.push_str(line.trim_end());
        drawn.push('\n');
    }
    drawn
}

pub async fn results(config: &Config, asked: &Results, json: bool) -> anyhow::Result<()> {
    let Results { workflow, whose, .. } = asked;
    let (reader, tenant) = readable(config, whose).await?;
    let versions = reader.arms(&tenant, workflow).await?;
    let arms = chosen(asked, &versions)?;
    if arms.is_empty() {
        if reader.funnel(&tenant, workflow, None, None).await?.is_empty() {
            return Err(nothing(config, &reader, &whose.at.namespace, &tenant, workflow).await?);
        }
        note!("no run of {workflow} came to a split yet: there is nothing to compare");
    }
    if json {
        print_json(&serde_json::to_value(arms.concat())?);
    } else {
        for arms in arms {
            let digest = arms.first().map(|arm| arm.digest.chars().take(DIGEST_CHARS).collect::<String>()).unwrap_or_default();
            out!("{workflow}, version {digest}\n{}", compared(arms));
        }
        if !arms.is_empty() {
            outln!("Ranges hold the true rate, or the true difference, in 95 of 100 campaigns.");
        }
        match versions.len() - arms.len() {
            0 => {}
            1 => note!("runs of 1 other version were left out: --all-versions, --digest"),
            others => note!("runs of {others} other versions were left out: --all-versions, --digest"),
        }
    }
    Ok(())
}

/// The versions that are asked for: the newest, if nothing else is said.
fn chosen<'v>(asked: &Results, versions: &'v [Vec<ArmResult>]) -> anyhow::Result<&'v [Vec<ArmResult>]> {
    let Some(start) = asked.digest.as_deref() else {
        return Ok(if asked.all_versions { versions } else { &versions[..versions.len().min(1)] });
    };
    let of = |arms: &Vec<ArmResult>| arms.first().map(|arm| arm.digest.clone()).unwrap_or_default();
    let found: Vec<usize> = (0..versions.len()).filter(|at| of(&versions[*at]).starts_with(start)).collect();
    match found.as_slice() {
        [at] => Ok(&versions[*at..=*at]),
        _ => {
            let known: Vec<String> = versions.iter().map(|arms| of(arms).chars().take(DIGEST_CHARS).collect()).collect();
            let known = if known.is_empty() {
                "there are none with runs that came to a split".to_owned()
            } else {
                format!("there are {}", known.join(", "))
            };
            Err(Exit::not_found(format!("{} versions of {} begin with {start:?}; {known}", found.len(), asked.workflow)))
        }
    }
}

/// Per split a line for each arm: its rate, its interval drawn to one scale, and how far it is from the baseline.
fn compared(arms: &[ArmResult]) -> String {
    let most = arms.iter().map(|arm| arm.interval.high).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let width = arms.iter().map(|arm| arm.arm.chars().count()).max().unwrap_or(0);
    let mut drawn = String::new();
    let mut node = "";
    for arm in arms {
        if arm.node != node {
            node = &arm.node;
            drawn.push_str(&format!("{node}\n"));
        }
        let against = match (&arm.difference, arm.is_baseline) {
            (Some(difference), _) => format!("  {} against the baseline{}", percent_range(difference, true), doubt(arms, arm, difference)),
            (None, true) => "  the baseline".to_owned(),
            (None, false) => String::new(),
        };
        drawn.push_str(&format!(
            "  {:<width$} {} {:>6} {} of {}, {}{against}\n",
            arm.arm,
            whisker(&arm.interval, arm.rate, most),
            percent(arm.rate, false),
            grouped(arm.converted),
            grouped(arm.runs),
            percent_range(&arm.interval, false),
        ));
    }
    drawn
}

/// An interval on a scale from 0 to `most`, with its rate marked: `  ├──●───┤   `.
fn whisker(interval: &Interval, rate: f64, most: f64) -> String {
    let place = |value: f64| ((value / most).clamp(0.0, 1.0) * (BAR_WIDTH - 1) as f64).round() as usize;
    let (low, at, high) = (place(interval.low), place(rate), place(interval.high));
    let mark = |column: usize| match column {
        column if column == at => '●',
        column if column == low => '├',
        column if column == high => '┤',
        column if column > low && column < high => '─',
        _ => ' ',
    };
    (0..BAR_WIDTH).map(mark).collect()
}

/// Below so many runs in an arm an interval says more than anyone knows.
const FEW: u64 = 20;

fn doubt(arms: &[ArmResult], arm: &ArmResult, difference: &Interval) -> &'static str {
    let baseline = arms.iter().find(|other| other.node == arm.node && other.is_baseline);
    match (difference.excludes_zero(), arm.runs.min(baseline.map_or(0, |baseline| baseline.runs))) {
        (_, ..FEW) => ": too few to say",
        (false, _) => ": may be chance",
        (true, _) => "",
    }
}

fn percent(share: f64, signed: bool) -> String {
    if signed { format!("{:+.1} %", share * 100.0) } else { format!("{:.1} %", share * 100.0) }
}

fn percent_range(interval: &Interval, signed: bool) -> String {
    let number = |share: f64| if signed { format!("{:+.1}", share * 100.0) } else { format!("{:.1}", share * 100.0) };
    format!("{} to {} %", number(interval.low), number(interval.high))
}

/// The versions of a workflow that there is, or was.
pub(super) async fn published(
    config: &Config,
    reader: &Reader,
    tenant: &TenantId,
    workflow: &str,
    whose: &Whose,
) -> anyhow::Result<Vec<Publication>> {
    let found = reader.publications(tenant, workflow).await?;
    if found.is_empty() {
        let (namespace, others) = (&whose.at.namespace, people::other_tenants(config, reader, &whose.at.namespace, tenant).await?);
        return Err(Exit::not_found(format!("no workflow {workflow} was published to tenant {tenant} in namespace {namespace}{others}")));
    }
    Ok(found)
}

pub async fn versions(config: &Config, workflow: &str, whose: &Whose, json: bool) -> anyhow::Result<()> {
    let (reader, tenant) = readable(config, whose).await?;
    let found = published(config, &reader, &tenant, workflow, whose).await?;
    if json {
        print_json(&serde_json::to_value(&found)?);
        return Ok(());
    }
    let mut rows = Rows::new(&["version", "for", "published", "by", "retired", "by", "about"]);
    for one in found {
        let digest: String = one.digest.chars().take(DIGEST_CHARS).collect();
        let time = |time: Option<Millis>| json!(time.map(|time| time.to_string()));
        let whose = one.tenant.unwrap_or_else(|| "everyone".to_owned());
        let retired = if one.is_active { json!("in force") } else { time(one.retired_at) };
        rows.push(vec![
            json!(digest),
            json!(whose),
            time(one.published_at),
            json!(one.published_by),
            retired,
            json!(one.retired_by),
            json!(one.about),
        ]);
    }
    rows.print(false);
    Ok(())
}

pub async fn timers(config: &Config, until: Option<&str>, limit: u32, whose: &Whose, json: bool) -> anyhow::Result<()> {
    let (reader, tenant) = readable(config, whose).await?;
    let now = reader.workflow_now().await?;
    let until = match until {
        None => None,
        Some(text) => {
            Some(instant(text, now).ok_or_else(|| Exit::usage(format!("{text:?} is neither a time nor a length such as 1h or 3d")))?)
        }
    };
    let mut rows = Rows::new(&["due", "in", "run", "workflow", "subject", "node", "doing"]);
    for timer in reader.timers(&tenant, until, limit).await? {
        let left = now.map(|now| length(timer.due.0.saturating_sub(now.0)));
        rows.push(vec![
            json!(timer.due.to_string()),
            json!(left),
            json!(timer.run),
            json!(timer.workflow),
            json!(timer.subject),
            json!(timer.node),
            json!(timer.doing),
        ]);
    }
    if rows.rows.is_empty() {
        note!(
            "nothing of tenant {tenant} in namespace {} fires by itself{}",
            whose.at.namespace,
            if until.is_some() { " until then" } else { "" }
        );
    }
    rows.print(json);
    Ok(())
}

fn instant(text: &str, now: Option<Millis>) -> Option<Millis> {
    let length = crate::segments::duration_ms(text).and_then(|ms| Some(now? + ms));
    length.or_else(|| Millis::parse(text))
}

/// `2d 3h`, `15m`, `8s`: the two largest units.
fn length(ms: i64) -> String {
    if ms <= 0 {
        return "due".to_owned();
    }
    let units = [(DAY_MS, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let (mut left, mut parts) = (ms, Vec::new());
    for (unit, name) in units {
        if left >= unit && parts.len() < 2 {
            parts.push(format!("{}{name}", left / unit));
            left %= unit;
        }
    }
    if parts.is_empty() { "1s".to_owned() } else { parts.join(" ") }
}

/// Why there is nothing to show of a workflow.
async fn nothing(
    config: &Config,
    reader: &crate::projections::Reader,
    namespace: &str,
    tenant: &crate::domain::TenantId,
    workflow: &str,
) -> anyhow::Result<anyhow::Error> {
    let counts = reader.run_counts(tenant).await?;
    let mut known: Vec<&str> = counts.iter().map(|count| count.workflow.as_str()).collect();
    known.dedup();
    let others = people::other_tenants(config, reader, namespace, tenant).await?;
    let known = if known.is_empty() { "there are none of any".to_owned() } else { format!("there are runs of {}", known.join(", ")) };
    Ok(Exit::not_found(format!("tenant {tenant} has no run of {workflow} in namespace {namespace}: {known}{others}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projections::runs::{Way, newcombe, wilson};

    #[test]
    fn a_funnel_tells_who_is_there_and_where_the_others_went() {
        let way = |way: &str, runs| Way { way: way.to_owned(), runs };
        let node = |node: &str, entered, here, ways| runs::Funnel { node: node.to_owned(), entered, left: entered - here, here, ways };
        let nodes =
            [node("arm", 2000, 0, vec![way("treatment", 1800), way("holdout", 200)]), node("watch", 200, 50, vec![way("goal", 150)])];
        let expected = format!(
            "arm   {} 2,000  1,800 treatment, 200 holdout\nwatch ████{}   200  50 here, 150 goal\n",
            "█".repeat(40),
            " ".repeat(36)
        );
        assert_eq!(drawn(&nodes), expected);
    }

    #[test]
    fn results_say_what_may_be_chance() {
        let arm = |arm: &str, runs, converted, difference| ArmResult {
            digest: "d".to_owned(),
            node: "arm".to_owned(),
            arm: arm.to_owned(),
            runs,
            converted,
            rate: converted as f64 / runs as f64,
            interval: wilson(converted, runs),
            is_baseline: arm == "holdout",
            difference,
        };
        let told = compared(&[arm("holdout", 200, 10, None), arm("treatment", 1800, 180, Some(newcombe((180, 1800), (10, 200))))]);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[0], "arm");
        assert!(lines[1].ends_with("  5.0 % 10 of 200, 2.7 to 9.0 %  the baseline"), "{told}");
        assert!(lines[2].contains("180 of 1,800, 8.7 to 11.5 %  +0.8 to +7.7 % against the baseline"), "{told}");
        let few = compared(&[arm("holdout", 1, 1, None), arm("treatment", 300, 0, Some(newcombe((0, 300), (1, 1))))]);
        assert!(few.contains("against the baseline: too few to say"), "{few}");
        assert_eq!(lines[1].find('├').map(|at| at < lines[2].find('├').unwrap()), Some(true), "{told}");
    }

    #[test]
    fn lengths_have_two_units_at_most() {
        for (ms, text) in [(-5, "due"), (500, "1s"), (90_000, "1m 30s"), (3 * DAY_MS + 7_200_000 + 5, "3d 2h"), (3_600_000, "1h")] {
            assert_eq!(length(ms), text);
        }
    }
}
