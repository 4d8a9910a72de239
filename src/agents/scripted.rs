//! The scripted agents of the shipped workflows.

use serde_json::{Map, Value as Json, json};

use super::Refused;

const MODEL: &str = "scripted";

type Input = Map<String, Json>;

/// How many people an audience holds that a budget reaches. Nobody is in an audience called `nobody`.
pub(super) fn lead_gen(input: &Input) -> Result<Json, Refused> {
    let audience = text(input, "audience")?;
    let budget = input.get("budget").and_then(Json::as_f64).unwrap_or(0.0);
    let size = 50 + drawn(&["leads", &audience], 450);
    // A lead costs two, whatever the currency.
    let affordable = (budget / 2.0).clamp(0.0, 1e9) as u64;
    let leads = if audience == "nobody" { 0 } else { size.min(affordable) };
    Ok(json!({ "model": MODEL, "leads": leads }))
}

pub(super) fn content(input: &Input) -> Result<Json, Refused> {
    const OPENINGS: [&str; 4] = ["Made for you", "Back in season", "The one you wanted", "New this week"];
    const CLOSINGS: [&str; 3] = ["Have a look while it lasts.", "Sizes go quickly.", "Free returns, as ever."];
    let brief = text(input, "brief")?;
    let leads = text(input, "leads").unwrap_or_default();
    let headline = format!("{}: {brief}", pick(&OPENINGS, &["headline", &brief, &leads]));
    let body = format!("{brief}, chosen for you. {}", pick(&CLOSINGS, &["text", &brief, &leads]));
    Ok(json!({ "model": MODEL, "headline": headline, "text": body }))
}

/// Places nothing: an ad's name says its round and follows from its words, so that searching for it and placing it give the same.
pub(super) fn ad_manager(input: &Input) -> Result<Json, Refused> {
    let (headline, body) = (text(input, "headline")?, text(input, "text")?);
    let change = text(input, "change").unwrap_or_default();
    let round = input.get("round").and_then(Json::as_u64).unwrap_or(1);
    let (words, changed) = (hash(&["ad", &headline, &body]) as u32, hash(&["change", &change]) as u16);
    Ok(json!({ "model": MODEL, "ad": format!("ad-{round}-{words:08x}-{changed:04x}") }))
}

/// What an ad earned up to an hour. The first round of a campaign is never good enough, the third always is, of the second one in two.
pub(super) fn analytics(input: &Input) -> Result<Json, Refused> {
    let ad = text(input, "ad")?;
    let hour = text(input, "hour").unwrap_or_default();
    let mut parts = ad.split('-').skip(1);
    let (round, words) = (parts.next().and_then(|round| round.parse().ok()).unwrap_or(1u64), parts.next().unwrap_or_default());
    let first = 400 + drawn(&["first", words], 220);
    let permille = match round {
        0 | 1 => first,
        2 if drawn(&["second", words], 2) == 0 => 640,
        2 => 760,
        _ => 780,
    };
    // Hours differ by a little, never by as much as decides.
    let permille = permille + drawn(&["hour", &ad, &hour], 40);
    let clicks = permille / 10 + drawn(&["clicks", &ad, &hour], 20);
    Ok(json!({ "model": MODEL, "performance": permille as f64 / 1_000.0, "clicks": clicks }))
}

pub(super) fn optimizer(input: &Input) -> Result<Json, Refused> {
    const CHANGES: [&str; 4] = ["shorter headline", "narrower audience", "earlier in the day", "another picture"];
    let (round, clicks) = (text(input, "round").unwrap_or_default(), text(input, "clicks").unwrap_or_default());
    Ok(json!({ "model": MODEL, "change": pick(&CHANGES, &["change", &round, &clicks]) }))
}

/// A win-back mail's words.
pub(super) fn copywriter(input: &Input) -> Result<Json, Refused> {
    const SUBJECTS: [&str; 3] = ["We miss you", "It has been a while", "Still thinking of you"];
    let name = text(input, "name").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "there".to_owned());
    let offer = text(input, "offer").unwrap_or_default();
    let days = input.get("days").and_then(Json::as_f64).filter(|days| *days >= 1.0);
    let since = days.map_or("some time".to_owned(), |days| format!("{days:.0} days"));
    let subject = pick(&SUBJECTS, &["subject", &name, &since]);
    let offered = if offer.is_empty() || offer == "none" { String::new() } else { format!(" Come back with {offer} off.") };
    let body = format!("It has been {since} since we last saw you.{offered} Have a look at what is new.");
    Ok(json!({ "model": MODEL, "subject": format!("{subject}, {name}"), "body": body }))
}

/// A field as text, whatever it was.
fn text(input: &Input, name: &str) -> Result<String, Refused> {
    match input.get(name) {
        Some(Json::String(text)) => Ok(text.clone()),
        Some(Json::Null) | None => Err(Refused(format!("the input has no `{name}`"))),
        Some(other) => Ok(other.to_string()),
    }
}

fn pick<'a>(of: &[&'a str], parts: &[&str]) -> &'a str {
    of[drawn(parts, of.len() as u64) as usize]
}

fn drawn(parts: &[&str], bound: u64) -> u64 {
    hash(parts) % bound
}

fn hash(parts: &[&str]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut first = [0u8; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::super::{AGENTS, find};
    use super::*;

    fn ask(agent: &str, input: Json) -> Json {
        find(agent).unwrap()(input.as_object().unwrap()).unwrap()
    }

    #[test]
    fn the_same_input_gives_the_same_result_and_every_result_names_its_model() {
        let input = json!({
            "audience": "runners", "budget": 500.0, "brief": "shoes", "leads": 7, "headline": "h", "text": "t", "change": "c", "round": 1,
            "ad": "ad-1-x", "hour": 3, "performance": 0.4, "clicks": 10, "name": "Ann", "offer": "ten percent", "days": 61
        });
        for (name, agent) in AGENTS {
            let first = agent(input.as_object().unwrap()).unwrap();
            assert_eq!(first["model"], "scripted", "{name}");
            assert_eq!(agent(input.as_object().unwrap()).unwrap(), first, "{name}");
        }
    }

    /// As topologies/workflows/campaign_graph.toml goes around.
    #[test]
    fn a_campaign_is_never_good_at_once_and_always_good_by_the_third_round() {
        let mut ended_in = [0; 4];
        for campaign in 0..200 {
            let words = ask("content", json!({ "brief": format!("shoes {campaign}"), "leads": 10 }));
            let mut change = json!("first placement");
            for round in 1..=3u8 {
                let ad =
                    ask("ad_manager", json!({ "headline": words["headline"], "text": words["text"], "change": change, "round": round }));
                let seen = ask("analytics", json!({ "ad": ad["ad"], "hour": 24 }));
                if seen["performance"].as_f64().unwrap() >= 0.7 {
                    ended_in[usize::from(round)] += 1;
                    break;
                }
                change =
                    ask("optimizer", json!({ "performance": seen["performance"], "clicks": seen["clicks"], "round": round }))["change"]
                        .clone();
            }
        }
        assert_eq!(ended_in.iter().sum::<i32>(), 200, "{ended_in:?}");
        assert!(ended_in[1] == 0 && ended_in[2] > 50 && ended_in[3] > 50, "{ended_in:?}");
    }

    #[test]
    fn an_audience_of_nobody_has_no_leads_and_no_audience_is_refused() {
        assert_eq!(ask("lead_gen", json!({ "audience": "nobody", "budget": 500 }))["leads"], 0);
        assert!(ask("lead_gen", json!({ "audience": "runners", "budget": 500 }))["leads"].as_u64().unwrap() > 0);
        assert_eq!(lead_gen(&Map::new()), Err(Refused("the input has no `audience`".into())));
    }
}
