//! The templates that messages are written from: those that the binary carries, and those of a folder, which go before them.
//!
//! A template is a file `NAME.toml`; its HTML or text may stand beside it as `NAME.html` and `NAME.txt`. Whatever is wrong with one is found
//! when it is read, and whatever a workflow asks of one that it does not give, when the workflow is checked.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value as Json};

use crate::channels::template::{Rendered, Source as TemplateSource, Template};
use crate::segments::{Problems, Source};
use crate::workflow::{Definition, Kind, Performer};

/// The templates of the shipped workflows.
const SHIPPED: [(&str, &str); 2] = [
    ("winback", include_str!("../../../topologies/templates/winback.toml")),
    ("winback_reminder", include_str!("../../../topologies/templates/winback_reminder.toml")),
];

/// What a channel's node says besides variables.
pub const TEMPLATE: &str = "template";
/// What every template is given besides, and what stands there while nobody gets it.
pub(super) const OWN_LINKS: [&str; 2] = ["unsubscribe_url", "preferences_url"];
const OWN_LINK: &str = "(a link of the recipient's own)";

#[derive(Debug, Default)]
pub struct Templates {
    by_name: BTreeMap<String, Template>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {message}")]
    File { path: String, message: String },
    #[error("{path}: {problems}")]
    Template { path: String, problems: String },
}

impl Templates {
    pub fn shipped() -> Self {
        let mut templates = Self::default();
        for (name, text) in SHIPPED {
            let path = format!("topologies/templates/{name}.toml");
            templates.add(name, &path, text, None, None).expect("a test reads it");
        }
        templates
    }

    /// The shipped ones and those of the folder; one that is not there has none.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let mut templates = Self::shipped();
        let files = match std::fs::read_dir(folder) {
            Ok(files) => files,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(templates),
            Err(error) => return Err(Error::File { path: folder.display().to_string(), message: error.to_string() }),
        };
        let mut paths: Vec<_> = files.filter_map(|file| Some(file.ok()?.path())).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "toml")) {
            let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
            let beside = |extension: &str| std::fs::read_to_string(path.with_extension(extension)).ok();
            let text = std::fs::read_to_string(path)
                .map_err(|error| Error::File { path: path.display().to_string(), message: error.to_string() })?;
            templates.add(name, &path.display().to_string(), &text, beside("html"), beside("txt"))?;
        }
        Ok(templates)
    }

    fn add(&mut self, name: &str, path: &str, text: &str, html: Option<String>, plain: Option<String>) -> Result<(), Error> {
        let file = |message: String| Error::File { path: path.to_owned(), message };
        let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| file(error.to_string()))?;
        for (key, beside) in [("html", html), ("text", plain)] {
            if let Some(beside) = beside.filter(|_| !table.contains_key(key)) {
                table.insert(key.to_owned(), toml::Value::String(beside));
            }
        }
        let source: TemplateSource = table.try_into().map_err(|error: toml::de::Error| file(error.to_string()))?;
        let template = Template::compile(&source).map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Error::Template { path: path.to_owned(), problems: problems.join("\n") }
        })?;
        self.by_name.insert(name.to_owned(), template);
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<&Template> {
        self.by_name.get(name)
    }

    /// The words of a message as they are shown before it is sent: `input` is what the node gives it. Links that each recipient has of
    /// their own are not made for that.
    pub fn words(&self, mut input: Map<String, Json>) -> Result<Rendered, String> {
        for own in OWN_LINKS {
            input.insert(own.to_owned(), OWN_LINK.into());
        }
        self.fill(input)
    }

    /// The words of a message, of a template or as the node gives them.
    pub(super) fn fill(&self, mut input: Map<String, Json>) -> Result<Rendered, String> {
        match input.remove(TEMPLATE) {
            Some(Json::String(name)) => {
                let template = self.get(&name).ok_or_else(|| format!("there is no template {name:?}"))?;
                template.render(&input).map_err(|problem| format!("template {name}: {problem}"))
            }
            Some(other) => Err(format!("a template is named by a text, not by {other}")),
            None => plain(&input),
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

/// A message that the node gives word for word.
fn plain(input: &Map<String, Json>) -> Result<Rendered, String> {
    let text = |name: &str| input.get(name).and_then(Json::as_str).map(str::to_owned);
    let subject = text("subject").filter(|subject| !subject.trim().is_empty());
    match (subject, text("text").or_else(|| text("body"))) {
        (Some(subject), Some(words)) => Ok(Rendered { subject, text: words, html: text("html") }),
        _ => Err("a message without a template needs `subject` and `text`".to_owned()),
    }
}

/// Whether every message that a workflow sends has a template, and gives it what it needs. `file` and `text` are what the definition was
/// parsed from.
pub fn check(file: &str, text: &str, definition: &Definition, templates: &Templates) -> Result<(), Problems> {
    let mut source = Source::new(file, text);
    for node in definition.nodes.iter() {
        let Kind::Effect(effect) = &node.kind else { continue };
        if effect.by != Performer::Channel || effect.target != "email" {
            continue;
        }
        let given = |name: &str| effect.input.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        let place = place(text, &node.name);
        match given(TEMPLATE).map(|value| literal(value.text())) {
            Some(None) => {
                let hint = "write its name as it is, for example `template = \"'winback'\"`, so that it can be checked here".to_owned();
                source.report(place, format!("the template of `{}` is known only when it runs", node.name), Some(hint));
            }
            Some(Some(name)) => match templates.get(name) {
                None => {
                    let known: Vec<&str> = templates.names().collect();
                    let hint = format!("there are {}; others are files of the folder channels.templates", known.join(", "));
                    source.report(place, format!("there is no template `{name}`"), Some(hint));
                }
                Some(template) => {
                    let missing: Vec<&str> = template.inputs().keys().map(String::as_str).filter(|name| given(name).is_none()).collect();
                    if !missing.is_empty() {
                        let message = format!("`{}` does not give the template `{name}` its {}", node.name, missing.join(", "));
                        source.report(place, message, Some("add it to the node's `input`".to_owned()));
                    }
                }
            },
            None if given("subject").is_some() && (given("text").is_some() || given("body").is_some()) => {}
            None => {
                let hint = "give it `template`, or `subject` and `text`".to_owned();
                source.report(place, format!("nothing says what `{}` sends", node.name), Some(hint));
            }
        }
    }
    source.finish(Some(()))
}

/// The text of an expression that is nothing but a text.
pub fn literal(expression: &str) -> Option<&str> {
    let text = expression.trim();
    let inside = ['\'', '"'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote));
    inside.filter(|inside| !inside.contains(['\'', '"', '\\']))
}

/// Where a node says its name.
fn place(text: &str, node: &str) -> std::ops::Range<usize> {
    let quoted = format!("\"{node}\"");
    let names = text.match_indices(&quoted).map(|(at, _)| at);
    let is_name = |at: &usize| text[..*at].trim_end().strip_suffix('=').is_some_and(|before| before.trim_end().ends_with("name"));
    let at = names.into_iter().find(is_name).unwrap_or(0);
    at..at + quoted.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::SHIPPED as WORKFLOWS;

    #[track_caller]
    fn checked(text: &str) -> Vec<String> {
        let definition = Definition::parse("w.toml", text).unwrap_or_else(|problems| panic!("{problems}"));
        let problems = check("w.toml", text, &definition, &Templates::shipped()).err();
        problems
            .map(|problems| problems.0.into_iter().map(|problem| format!("{}: {}", problem.line, problem.message)).collect())
            .unwrap_or_default()
    }

    #[test]
    fn the_shipped_workflows_have_their_templates() {
        for (name, text) in WORKFLOWS {
            assert_eq!(checked(text), Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn a_missing_template_or_variable_is_found_at_check_with_its_line() {
        let (_, winback) = WORKFLOWS[0];
        let line = winback.lines().position(|line| line == "name = \"send\"").unwrap() + 1;
        let cases = [
            ("template = \"'winback'\"", "template = \"'winbuck'\"", "there is no template `winbuck`"),
            (", body = \"results.write.body\" }\nunknown", " }\nunknown", "`send` does not give the template `winback` its body"),
            ("template = \"'winback'\"", "template = \"vars.offer\"", "the template of `send` is known only when it runs"),
            ("template = \"'winback'\", subject", "subject", ""),
            ("template = \"'winback'\", subject", "title", "nothing says what `send` sends"),
        ];
        for (from, to, expected) in cases {
            let text = winback.replacen(from, to, 1);
            assert_ne!(text, winback, "{from}");
            let expected: Vec<String> = if expected.is_empty() { vec![] } else { vec![format!("{line}: {expected}")] };
            assert_eq!(checked(&text), expected, "{to}");
        }
    }

    #[test]
    fn a_folders_templates_go_before_the_shipped_ones_and_may_have_their_html_beside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("winback.toml"), "subject = 'Hi {{ subject }}'\n[inputs]\nsubject = 'x'\nbody = 'y'").unwrap();
        std::fs::write(dir.path().join("winback.txt"), "{{ body }}").unwrap();
        std::fs::write(dir.path().join("winback.html"), "<p>{{ body }}</p>").unwrap();
        let templates = Templates::load(dir.path()).unwrap();
        let words = templates.get("winback").unwrap().preview().unwrap();
        assert_eq!((words.subject.as_str(), words.text.as_str(), words.html.as_deref()), ("Hi x", "y", Some("<p>y</p>")));
        assert!(templates.get("winback_reminder").is_some());
        std::fs::write(dir.path().join("bad.toml"), "subject = 'Hi {{ nobody }}'\ntext = 't'").unwrap();
        let error = Templates::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("bad.toml: subject, line 1: nobody gives \"nobody\""), "{error}");
    }
}
