//! What is wrong with an expression, where in it, and what to write instead.

/// A refused expression. `start..end` are byte offsets into its text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", hint.as_ref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default())]
pub struct Error {
    pub message: String,
    pub hint: Option<String>,
    pub start: usize,
    pub end: usize,
}

impl Error {
    pub(super) fn at(span: (usize, usize), message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, start: span.0, end: span.1 }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The line and column of the error in `text`, both from 1; columns count characters.
    pub fn line_column(&self, text: &str) -> (usize, usize) {
        let before = text.get(..self.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// The name in `names` that `wrong` was most likely meant to be, if any is near enough.
pub fn did_you_mean<'n>(wrong: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let allowed = 1 + wrong.chars().count() / 4;
    let folded = |name: &str| name.trim_end_matches('(').to_lowercase().replace('-', "_");
    let wrong = folded(wrong);
    names
        .into_iter()
        .map(|name| (edit_distance(&wrong, &folded(name)), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn one word into the other.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let substituted = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substituted.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        let names = ["orders", "revenue", "days_since_last_event", "count("];
        let cases = [
            ("order", Some("orders")),
            ("revnue", Some("revenue")),
            ("ordesr", Some("orders")),
            ("days-since-last-event", Some("days_since_last_event")),
            ("cuont", Some("count(")),
            ("weather", None),
        ];
        for (wrong, meant) in cases {
            assert_eq!(did_you_mean(wrong, names), meant, "{wrong}");
        }
    }

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let text = "orders > 1 &&\n  \"é\" == x";
        let error = Error::at((text.len() - 1, text.len()), "x");
        assert_eq!(error.line_column(text), (2, 10));
    }
}
