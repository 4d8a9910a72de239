//! The settings tables of the cores, as a topology holds them, and their own checks with a place in the file.

use toml::Spanned;

use super::problem::Source;

pub type IntakeSettings = toml::Table;
pub type FeatureSettings = toml::Table;
pub type ScoreSettings = toml::Table;

pub(super) fn check_intake(table: Option<&Spanned<IntakeSettings>>, _source: &mut Source<'_>) -> IntakeSettings {
    table.map(|table| table.get_ref().clone()).unwrap_or_default()
}

pub(super) fn check_features(table: Option<&Spanned<FeatureSettings>>, _source: &mut Source<'_>) -> FeatureSettings {
    table.map(|table| table.get_ref().clone()).unwrap_or_default()
}

pub(super) fn check_scores(table: Option<&Spanned<ScoreSettings>>, _source: &mut Source<'_>) -> ScoreSettings {
    table.map(|table| table.get_ref().clone()).unwrap_or_default()
}
