//! `flywheel profile` and `segment`: what one would ask about people, from the read models.

use serde_json::{Value, json};

use std::collections::BTreeSet;

use super::args;
use super::exit::Exit;
use super::output::{Rows, bars, note, out, outln, print_json};
use crate::app::read_models;
use crate::config::Config;
use crate::domain::{Money, Namespace, Subject, TenantId};
use crate::projections::{self, Reader};

/// Whose data it is where nobody said.
const DEFAULT_TENANT: &str = "default";

/// The exit code of a command line that does not say what is meant.
const USAGE: u8 = 2;

/// Points of a plot; a longer history is thinned to this many.
const PLOT_POINTS_MAX: usize = 40;
const PLOT_WIDTH: usize = 50;

pub fn reader(config: &Config, namespace: &str) -> anyhow::Result<Reader> {
    Ok(Reader::new(read_models(config)?, &Namespace::new(namespace)?))
}

/// `u:ID`, `a:ID`, or a plain user id.
pub fn subject(text: &str) -> Subject {
    Subject::person(text)
}

/// The tenants that a namespace has sources or data of.
async fn tenants(config: &Config, reader: &Reader, namespace: &str) -> anyhow::Result<BTreeSet<String>> {
    let here = config.sources.iter().filter(|source| source.namespace.as_str() == namespace);
    let mut tenants: BTreeSet<String> = here.map(|source| source.tenant.as_str().to_owned()).collect();
    match reader.tenants().await {
        Ok(found) => tenants.extend(found),
        // Whoever reads more than this says that there is none.
        Err(projections::Error::Missing(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(tenants)
}

/// The tenant that is meant, for whoever reads: one that is named and that nobody has heard of is not there.
pub async fn tenant(config: &Config, reader: &Reader, namespace: &str, named: Option<&str>) -> anyhow::Result<TenantId> {
    let tenant = tenant_to_be(config, reader, namespace, named).await?;
    if named.is_none() || is_configured(config, namespace, &tenant) {
        return Ok(tenant);
    }
    match reader.knows(&tenant).await {
        Ok(true) | Err(projections::Error::Missing(_)) => Ok(tenant),
        Ok(false) => {
            let others = other_tenants(config, reader, namespace, &tenant).await?;
            Err(Exit::not_found(format!("there is no tenant {tenant} in namespace {namespace}{others}")))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether something may be sent or asked in the tenant's name.
fn is_configured(config: &Config, namespace: &str, tenant: &TenantId) -> bool {
    let sources = config.sources_or_development();
    let sending = sources.iter().map(|source| (&source.tenant, &source.namespace));
    let reading = config.api_keys.iter().map(|key| (&key.tenant, &key.namespace));
    // Without keys the development one speaks for `default`, wherever.
    let is_default = config.sources.is_empty() && tenant.as_str() == DEFAULT_TENANT;
    is_default || sending.chain(reading).any(|(of, at)| of == tenant && at.as_str() == namespace)
}

/// The tenant that is meant, for whoever says something: the one that was named, which may come into being by it, else the only one there is,
/// else `default`.
pub async fn tenant_to_be(config: &Config, reader: &Reader, namespace: &str, named: Option<&str>) -> anyhow::Result<TenantId> {
    if let Some(named) = named {
        return Ok(TenantId::new(named)?);
    }
    let tenants = tenants(config, reader, namespace).await?;
    match tenants.first() {
        Some(only) if tenants.len() == 1 => Ok(TenantId::new(only)?),
        None => Ok(TenantId::new(DEFAULT_TENANT)?),
        Some(_) if tenants.contains(DEFAULT_TENANT) => Ok(TenantId::new(DEFAULT_TENANT)?),
        Some(_) => {
            let all = tenants.into_iter().collect::<Vec<_>>().join(", ");
            Err(Exit { code: USAGE, message: format!("whose? namespace {namespace} has the tenants {all}: name one with --tenant") }.into())
        }
    }
}

/// `; tenants here: acme, default (--tenant)` where there are others, for whoever found nothing.
pub async fn other_tenants(config: &Config, reader: &Reader, namespace: &str, tenant: &TenantId) -> anyhow::Result<String> {
    let mut others = tenants(config, reader, namespace).await?;
    others.remove(tenant.as_str());
    let others = others.into_iter().collect::<Vec<_>>().join(", ");
    Ok(if others.is_empty() { String::new() } else { format!("; other tenants here: {others} (--tenant)") })
}

/// Whose the device `text` (`a:ID`, or a plain id) has become.
pub async fn user_of_device(reader: &Reader, tenant: &TenantId, text: &str) -> anyhow::Result<Option<String>> {
    let device = match text.split_once(':') {
        Some(("u", _)) => return Ok(None),
        Some(("a", id)) => id,
        _ => text,
    };
    match reader.user_of(tenant, device).await {
        Err(projections::Error::Missing(_)) => Ok(None),
        user => Ok(user?),
    }
}

/// The profile, or that of the user whom the device has become.
async fn profile_of(reader: &Reader, tenant: &TenantId, text: &str) -> anyhow::Result<Option<Value>> {
    if let Some(profile) = reader.profile(tenant, &subject(text)).await? {
        return Ok(Some(profile));
    }
    let Some(user) = user_of_device(reader, tenant, text).await? else { return Ok(None) };
    note!("the device {} has become u:{user}, whose profile this is", text.trim_start_matches("a:"));
    Ok(reader.profile(tenant, &Subject::user(&user)).await?)
}

pub async fn profile(config: &Config, asked: &args::Profile, json: bool) -> anyhow::Result<()> {
    let namespace = &asked.at.namespace;
    let reader = reader(config, namespace)?;
    let tenant = tenant(config, &reader, namespace, asked.tenant.as_deref()).await?;
    let Some(profile) = profile_of(&reader, &tenant, &asked.user).await? else {
        let who = subject(&asked.user);
        let device = Subject::anonymous(who.id());
        let device = match who.is_user() && reader.profile(&tenant, &device).await?.is_some() {
            true => format!("; there is {device}, a device that nobody has signed in on"),
            false => String::new(),
        };
        let others = other_tenants(config, &reader, namespace, &tenant).await?;
        return Err(Exit::not_found(format!("there is no {who} of tenant {tenant} in namespace {namespace}{device}{others}")));
    };
    if json {
        print_json(&profile);
    } else {
        out!("{}", described(&readable(&profile), 0));
    }
    Ok(())
}

/// JSON as indented `name  value` lines, empty members left out.
pub fn described(value: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let mut out = String::new();
    match value {
        Value::Object(members) => {
            let width = members.keys().map(String::len).max().unwrap_or(0);
            for (name, member) in members.iter().filter(|(_, member)| !is_empty(member)) {
                match member {
                    Value::Object(_) | Value::Array(_) => out.push_str(&format!("{indent}{name}\n{}", described(member, depth + 1))),
                    plain => out.push_str(&format!("{indent}{name:<width$}  {}\n", plain_text(plain))),
                }
            }
        }
        Value::Array(items) if items.iter().all(|item| !item.is_object()) => {
            let items: Vec<_> = items.iter().map(plain_text).collect();
            out.push_str(&format!("{indent}{}\n", items.join(", ")));
        }
        Value::Array(items) => {
            for item in items {
                let Value::Object(members) = item else { continue };
                let parts: Vec<_> =
                    members.iter().filter(|(_, v)| !is_empty(v)).map(|(name, v)| format!("{name} {}", plain_text(v))).collect();
                out.push_str(&format!("{indent}{}\n", parts.join(", ")));
            }
        }
        plain => out.push_str(&format!("{indent}{}\n", plain_text(plain))),
    }
    out
}

/// The same profile as a person reads it: money in units, what belongs together on one line, no more digits than mean something.
pub fn readable(profile: &Value) -> Value {
    let mut profile = profile.clone();
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let money = |value: &Value| Money((value.as_f64().unwrap_or_default() * Money::UNIT as f64).round() as i64);
    let named = |list: &Value, name: &str, text: &dyn Fn(&Value) -> String| {
        let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
        Value::Object(items.iter().map(|item| (plain_text(&item[name]), json!(text(item)))).collect())
    };
    profile["currencies"] = named(&profile["currencies"], "currency", &|one| {
        format!("{} in {} orders, {} refunded", money(&one["revenue"]), number(&one["orders"]), money(&one["refunds"]))
    });
    profile["event_counts"] = named(&profile["event_counts"], "event", &|one| {
        let [total, d7, d30, d90] = ["total", "d7", "d30", "d90"].map(|window| number(&one[window]));
        format!("{total} ({d7} in 7 days, {d30} in 30, {d90} in 90)")
    });
    profile["funnels"] = named(&profile["funnels"], "funnel", &|one| format!("step {} of {}", number(&one["step"]), number(&one["steps"])));
    profile["scores"] = named(&profile["scores"], "score", &|one| {
        let reasons = one["reasons"].as_array().map(Vec::as_slice).unwrap_or_default();
        let reasons = reasons
            .iter()
            .map(|reason| format!("{} {:+.3}", plain_text(&reason["feature"]), reason["effect"].as_f64().unwrap_or_default()));
        let model = format!("{} v{}", plain_text(&one["model"]), number(&one["version"]));
        let because = reasons.collect::<Vec<_>>().join(", ");
        let value = one["value"].as_f64().unwrap_or_default();
        if because.is_empty() { format!("{value:.3} by {model}") } else { format!("{value:.3} by {model}: {because}") }
    });
    round(&mut profile);
    profile
}

/// Four decimals; what is smaller is noise to a reader, and `--json` has it all.
fn round(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let rounded = number.as_f64().map(|number| (number * 1e4).round() / 1e4);
            *value = json!(rounded);
        }
        Value::Array(items) => items.iter_mut().for_each(round),
        Value::Object(members) => members.values_mut().for_each(round),
        _ => {}
    }
}

/// The same profile without the features that are zero, false or never: what there is to see at a glance.
pub fn telling(profile: &Value) -> Value {
    let mut profile = profile.clone();
    if let Some(features) = profile.get_mut("features").and_then(Value::as_object_mut) {
        features.retain(|_, value| *value != json!(false) && value.as_f64() != Some(0.0));
    }
    profile
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain_text).collect::<Vec<_>>().join("; "),
        Value::Object(members) => members.iter().map(|(name, v)| format!("{name} {}", plain_text(v))).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

pub async fn segment(config: &Config, asked: &args::Segment, json: bool) -> anyhow::Result<()> {
    match asked {
        args::Segment::List { at, tenant } => {
            let mut rows = Rows::new(&["segment", "members", "entered", "left"]);
            let reader = reader(config, &at.namespace)?;
            let tenant = self::tenant(config, &reader, &at.namespace, tenant.as_deref()).await?;
            let segments = reader.segments(&tenant).await?;
            if segments.is_empty() {
                let others = other_tenants(config, &reader, &at.namespace, &tenant).await?;
                note!("nobody of tenant {tenant} was ever in a segment of namespace {}{others}", at.namespace);
            }
            for summary in segments {
                rows.push(vec![json!(summary.segment), json!(summary.members), json!(summary.entered), json!(summary.left)]);
            }
            rows.print(json);
        }
        args::Segment::Members { segment, at, tenant, limit, after } => {
            let mut rows = Rows::new(&["subject", "since"]);
            let reader = reader(config, &at.namespace)?;
            let tenant = self::tenant(config, &reader, &at.namespace, tenant.as_deref()).await?;
            let members = reader.members(&tenant, segment, after.as_deref(), *limit).await?;
            if members.is_empty() && reader.segment_sizes(&tenant, segment).await?.is_empty() {
                return Err(never_in(segment, &other_tenants(config, &reader, &at.namespace, &tenant).await?));
            }
            for member in members {
                rows.push(vec![json!(member.subject), json!(member.since.to_string())]);
            }
            rows.print(json);
        }
        args::Segment::Plot { segment, at, tenant } => {
            let reader = reader(config, &at.namespace)?;
            let tenant = self::tenant(config, &reader, &at.namespace, tenant.as_deref()).await?;
            let names = match segment {
                Some(name) => vec![name.clone()],
                None => reader.segments(&tenant).await?.into_iter().map(|summary| summary.segment).collect(),
            };
            let mut all = serde_json::Map::new();
            for name in names {
                let sizes = reader.segment_sizes(&tenant, &name).await?;
                if sizes.is_empty() {
                    return Err(never_in(&name, &other_tenants(config, &reader, &at.namespace, &tenant).await?));
                }
                let points: Vec<(String, f64)> = sizes.iter().map(|size| (size.day.clone(), size.members as f64)).collect();
                if json {
                    all.insert(name, json!(points.iter().map(|(day, size)| json!({"day": day, "members": size})).collect::<Vec<_>>()));
                } else {
                    outln!("{name}\n{}", bars(&thinned(&points), PLOT_WIDTH));
                }
            }
            if json {
                print_json(&Value::Object(all));
            }
        }
    }
    Ok(())
}

fn never_in(segment: &str, others: &str) -> anyhow::Error {
    Exit::not_found(format!("nobody was ever in a segment {segment:?}; `flywheel segment list` names those there are{others}"))
}

/// The last point and evenly spaced ones before it.
pub fn thinned(points: &[(String, f64)]) -> Vec<(String, f64)> {
    let step = points.len().div_ceil(PLOT_POINTS_MAX).max(1);
    let mut kept: Vec<_> = points.iter().rev().step_by(step).cloned().collect();
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_reads_as_people_write_numbers() {
        let profile = json!({
            "user_id": "ada", "consent": null, "features": {"engagement": 0.236_666_666_666_666_64, "orders": 3},
            "currencies": [{"currency": "USD", "orders": 3, "refunds": 0, "revenue": 37.55}],
            "event_counts": [{"event": "Order Completed", "total": 3, "d7": 0, "d30": 1, "d90": 2}],
            "funnels": [{"funnel": "checkout", "step": 1, "steps": 4}],
            "scores": [{"score": "churn", "model": "own-pauses", "version": 1, "value": 0.998_71,
                        "reasons": [{"feature": "days_since_seen", "effect": 0.598_71}]}],
        });
        let text = described(&readable(&profile), 0);
        for line in [
            "  USD  37.55 in 3 orders, 0.00 refunded",
            "  Order Completed  3 (0 in 7 days, 1 in 30, 2 in 90)",
            "  checkout  step 1 of 4",
            "  churn  0.999 by own-pauses v1: days_since_seen +0.599",
            "  engagement  0.2367",
        ] {
            assert!(text.lines().any(|given| given == line), "{line}\n{text}");
        }
        assert!(!text.contains("consent"), "{text}");
    }
}
