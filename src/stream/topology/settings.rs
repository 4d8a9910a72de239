//! The settings tables of the cores, as a topology holds them, and what their own checks say, with a place in the file.

use toml::Spanned;

use crate::segments::Source;
use crate::{features, intake, models};

/// The settings of every core, checked.
pub(super) struct Settings {
    pub(super) intake: intake::Settings,
    pub(super) features: features::Settings,
    pub(super) rules: features::Rules,
    pub(super) scores: models::Settings,
    pub(super) models: models::Models,
}

pub(super) fn check(
    intake: Option<&Spanned<intake::Settings>>,
    features: Option<&Spanned<features::Settings>>,
    scores: Option<&Spanned<models::Settings>>,
    source: &mut Source<'_>,
) -> Settings {
    let intake_settings = or_default(intake);
    // Whatever the clock: it only decides whether the flood limit is in force.
    if let Err(error) = intake::Rules::new(&intake_settings, intake::Clock::Wall) {
        source.report(intake.map_or(0..0, Spanned::span), error.to_string(), None);
    }
    let feature_settings = or_default(features);
    let rules = checked(features::Rules::compile(feature_settings.clone()), features, source);
    let score_settings = or_default(scores);
    let models = checked(models::Models::compile(&score_settings), scores, source);
    Settings { intake: intake_settings, features: feature_settings, rules, scores: score_settings, models }
}

fn or_default<T: Clone + Default>(table: Option<&Spanned<T>>) -> T {
    table.map(|table| table.get_ref().clone()).unwrap_or_default()
}

/// The compiled settings; the default's, and a problem at the table, if they do not compile.
fn checked<C: Default, T, E: std::fmt::Display>(compiled: Result<C, E>, table: Option<&Spanned<T>>, source: &mut Source<'_>) -> C {
    compiled.unwrap_or_else(|error| {
        source.report(table.map_or(0..0, Spanned::span), error.to_string(), None);
        C::default()
    })
}
