//! The templates that messages are written from: those that the binary carries, and those of a folder, which go before them.
//!
//! A template is a file `NAME.toml`; its HTML or text may stand beside it as `NAME.html` and `NAME.txt`. Whatever is wrong with one is found
//! when it is read, and whatever a workflow asks of one that it does not give, when the workflow is checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value as Json};
use toml::Spanned;

use super::named::{self, Findings, Known};
use crate::channels::template::{Problem, Rendered, Source as TemplateSource, Template};
use crate::segments::{Problems, Source, did_you_mean};
use crate::workflow::{Definition, Effect, Kind, Performer, Places, warnings};

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
    /// What is wrong with those that cannot be used, by name. One that is broken hides a shipped one all the same.
    broken: BTreeMap<String, Problems>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {message}")]
    File { path: String, message: String },
    /// Every mistake of every broken one, each with its file.
    #[error("{0}")]
    Broken(Problems),
}

/// A template's file: TOML, and what stands beside it.
struct File<'f> {
    path: &'f str,
    text: &'f str,
    /// Parts in files of their own: which, the file and what it says.
    beside: Vec<(&'static str, PathBuf, String)>,
}

/// Where the parts stand in a template's file.
#[derive(Deserialize)]
struct Parts {
    subject: Option<Spanned<String>>,
    text: Option<Spanned<String>>,
    html: Option<Spanned<String>>,
}

impl Templates {
    pub fn shipped() -> Self {
        let mut templates = Self::default();
        for (name, text) in SHIPPED {
            let path = format!("topologies/templates/{name}.toml");
            templates.add(name, &File { path: &path, text, beside: Vec::new() });
        }
        templates
    }

    /// The shipped ones and those of the folder, broken ones marked; a folder that is not there has none.
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
            let beside = [("html", "html"), ("text", "txt")].into_iter().filter_map(|(part, extension)| {
                let file = path.with_extension(extension);
                let text = std::fs::read_to_string(&file).ok()?;
                Some((part, file, text))
            });
            let text = std::fs::read_to_string(path)
                .map_err(|error| Error::File { path: path.display().to_string(), message: error.to_string() })?;
            templates.add(name, &File { path: &path.display().to_string(), text: &text, beside: beside.collect() });
        }
        Ok(templates)
    }

    /// These, if none is broken: who sends has to have all of them.
    pub fn all_sound(self) -> Result<Self, Error> {
        if self.broken.is_empty() {
            return Ok(self);
        }
        Err(Error::Broken(Problems(self.broken.into_values().flat_map(|problems| problems.0).collect())))
    }

    fn add(&mut self, name: &str, file: &File<'_>) {
        self.by_name.remove(name);
        match file.compile() {
            Ok(template) => drop(self.by_name.insert(name.to_owned(), template)),
            Err(problems) => drop(self.broken.insert(name.to_owned(), problems)),
        }
    }

    /// What is wrong with a template that is there and cannot be used.
    pub fn broken(&self, name: &str) -> Option<&Problems> {
        self.broken.get(name)
    }

    /// Every broken one.
    pub fn all_broken(&self) -> impl Iterator<Item = (&str, &Problems)> {
        self.broken.iter().map(|(name, problems)| (name.as_str(), problems))
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
                let missing = || match self.broken(&name) {
                    Some(problems) => format!("the template {name:?} is broken: {problems}"),
                    None => format!("there is no template {name:?}"),
                };
                let template = self.get(&name).ok_or_else(missing)?;
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

impl File<'_> {
    fn compile(&self) -> Result<Template, Problems> {
        let mut source = Source::new(self.path, self.text);
        let read = self.text.parse::<toml::Table>().and_then(|mut table| {
            for (part, _, text) in &self.beside {
                table.entry(*part).or_insert_with(|| toml::Value::String(text.clone()));
            }
            TemplateSource::deserialize(table)
        });
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                // Read once more as it stands: what was put in beside has no place in the text.
                let placed = toml::from_str::<TemplateSource>(self.text).err().filter(|placed| placed.message() == error.message());
                source.report_toml(placed.as_ref().unwrap_or(&error));
                return Err(source.found());
            }
        };
        Template::compile(&read).map_err(|problems| {
            let parts: Option<Parts> = toml::from_str(self.text).ok();
            Problems(problems.iter().flat_map(|problem| self.placed(problem, parts.as_ref()).0).collect())
        })
    }

    /// A problem of a part as one of the file that the part stands in.
    fn placed(&self, problem: &Problem, parts: Option<&Parts>) -> Problems {
        let part = parts.and_then(|parts| match problem.part {
            "subject" => parts.subject.as_ref(),
            "text" => parts.text.as_ref(),
            _ => parts.html.as_ref(),
        });
        let message = format!("{}: {}", problem.part, problem.reason);
        let report = |path: &str, text: &str, begins: usize| {
            let mut source = Source::new(path, text);
            let lines = text[begins..].split_inclusive('\n').take(problem.line.saturating_sub(1));
            let at = begins + lines.map(str::len).sum::<usize>();
            let line = text[at..].lines().next().unwrap_or_default();
            let indent = line.len() - line.trim_start().len();
            source.report(at + indent..at + line.len(), message.clone(), Some(problem.hint.clone()));
            source.found()
        };
        let Some(part) = part else {
            return match self.beside.iter().find(|(name, ..)| *name == problem.part) {
                Some((_, path, text)) => report(&path.display().to_string(), text, 0),
                None => report(self.path, self.text, 0),
            };
        };
        let place = part.span();
        let written = &self.text[place.clone()];
        // A text of several lines begins behind its quotes, and behind the line's end that follows them; one of a single line has them as \n.
        let is_long = written.starts_with("\"\"\"") || written.starts_with("'''");
        if !is_long {
            let mut source = Source::new(self.path, self.text);
            source.report(place, message, Some(problem.hint.clone()));
            return source.found();
        }
        let line_end = match &written[3..] {
            rest if rest.starts_with("\r\n") => 2,
            rest if rest.starts_with('\n') => 1,
            _ => 0,
        };
        report(self.path, self.text, place.start + 3 + line_end)
    }
}

/// Whether what a workflow names is there, and every message that it sends has a template and gives it what it needs: all mistakes, or what
/// is no mistake and yet hardly meant. `file` and `text` are what the definition was parsed from.
pub fn check(file: &str, text: &str, definition: &Definition, templates: &Templates, known: &Known) -> Result<Problems, Problems> {
    let places = Places::of(text);
    let mut found = Findings { wrong: Source::new(file, text), told: Source::new(file, text) };
    named::check(definition, &places, known, &mut found);
    for node in &definition.nodes {
        match &node.kind {
            Kind::Effect(effect) if effect.by == Performer::Channel && effect.target == "email" => {
                message(&node.name, effect, &places, templates, &mut found);
            }
            _ => {}
        }
    }
    warnings(definition, &places, &mut found.told);
    found.wrong.finish(Some(()))?;
    Ok(found.told.found())
}

/// Whether a message can be written.
fn message(node: &str, effect: &Effect, places: &Places, templates: &Templates, found: &mut Findings<'_>) {
    let given = |name: &str| effect.input.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let place = places.input(node, TEMPLATE);
    let Some(name) = given(TEMPLATE).map(|value| literal(value.text())) else {
        if given("subject").is_none() || (given("text").is_none() && given("body").is_none()) {
            let hint = "give it `template`, or `subject` and `text`".to_owned();
            found.wrong.report(place, format!("nothing says what `{node}` sends"), Some(hint));
        }
        return;
    };
    let Some(name) = name else {
        let hint = "write its name as it is, for example `template = \"'winback'\"`, so that it can be checked here".to_owned();
        return found.wrong.report(place, format!("the template of `{node}` is known only when it runs"), Some(hint));
    };
    if let Some(problems) = templates.broken(name) {
        let first = problems.0.first().map(|first| format!("{}:{}: {}", first.file, first.line, first.message)).unwrap_or_default();
        let hint = "`flywheel template list` says all that is wrong with it".to_owned();
        return found.wrong.report(place, format!("the template `{name}` is broken: {first}"), Some(hint));
    }
    let Some(template) = templates.get(name) else {
        let near = did_you_mean(name, templates.names()).map_or(String::new(), |near| format!("did you mean `{near}`? "));
        let names: Vec<&str> = templates.names().collect();
        let hint = format!("{near}there are {}; others are files of the folder channels.templates", names.join(", "));
        return found.wrong.report(place, format!("there is no template `{name}`"), Some(hint));
    };
    let missing: Vec<&str> = template.inputs().keys().map(String::as_str).filter(|name| given(name).is_none()).collect();
    if !missing.is_empty() {
        let message = format!("`{node}` does not give the template `{name}` its {}", missing.join(", "));
        found.wrong.report(place, message, Some("add it to the node's `input`".to_owned()));
    }
    for (unused, _) in effect.input.iter().filter(|(given, _)| given != TEMPLATE && !template.inputs().contains_key(given)) {
        let message = format!("the template `{name}` does not use `{unused}`");
        let hint = format!("it takes {}", template.inputs().keys().cloned().collect::<Vec<_>>().join(", "));
        found.told.report(places.input(node, unused), message, Some(hint));
    }
}

/// The text of an expression that is nothing but a text.
pub fn literal(expression: &str) -> Option<&str> {
    let text = expression.trim();
    let inside = ['\'', '"'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote));
    inside.filter(|inside| !inside.contains(['\'', '"', '\\']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::SHIPPED as WORKFLOWS;

    fn known() -> Known {
        Known::performers(&Default::default(), &Default::default(), "here", true)
    }

    /// What is wrong, then what is only told.
    #[track_caller]
    fn checked(text: &str, templates: &Templates) -> (Vec<String>, Vec<String>) {
        let definition = Definition::parse("w.toml", text).unwrap_or_else(|problems| panic!("{problems}"));
        let lines =
            |problems: Problems| problems.0.into_iter().map(|one| format!("{}:{}: {}", one.line, one.column, one.message)).collect();
        match check("w.toml", text, &definition, templates, &known()) {
            Ok(told) => (vec![], lines(told)),
            Err(wrong) => (lines(wrong), vec![]),
        }
    }

    #[test]
    fn the_shipped_workflows_have_their_templates_and_nothing_to_look_at_again() {
        for (name, text) in WORKFLOWS {
            assert_eq!(checked(text, &Templates::shipped()), (vec![], vec![]), "{name}");
        }
    }

    #[test]
    fn a_missing_template_or_variable_is_found_at_the_nodes_own_template() {
        // An arm of the same name as the node stands before it.
        let (_, winback) = WORKFLOWS[0];
        let text = &winback.replacen("name = \"treatment\"", "name = \"send\"", 1);
        assert!(text != winback);
        let line = text.lines().position(|line| line.contains("template = \"'winback'\"")).unwrap() + 1;
        let cases = [
            ("template = \"'winback'\"", "template = \"'winbuck'\"", "22: there is no template `winbuck`"),
            (", body = \"results.write.body\" }\nunknown", " }\nunknown", "22: `send` does not give the template `winback` its body"),
            ("template = \"'winback'\"", "template = \"vars.offer\"", "22: the template of `send` is known only when it runs"),
            ("template = \"'winback'\", subject", "title", "9: nothing says what `send` sends"),
        ];
        for (from, to, expected) in cases {
            let text = text.replacen(from, to, 1);
            let (wrong, _) = checked(&text, &Templates::shipped());
            assert_eq!(wrong, [format!("{line}:{expected}")], "{to}");
        }
        let words = text.replacen("template = \"'winback'\", subject", "subject", 1);
        assert_eq!(checked(&words, &Templates::shipped()).0, Vec::<String>::new());
    }

    #[test]
    fn what_is_hardly_meant_is_told_with_its_line_and_refused_by_nobody() {
        let text = r#"
[workflow]
name = "w"
[workflow.entry]
command = true
[[node]]
name = "gave"
kind = "split"
arms = [{ name = "mail", weight = 1, next = "wait" }, { name = "none", weight = 0, next = "over" }]
[[node]]
name = "wait"
kind = "wait_for"
any = [{ signal = "stop" }]
timeout = "1d"
next = "send"
[[node]]
name = "send"
kind = "effect"
channel = "email"
input = { template = "'winback'", subject = "'Hi'", body = "'You'", name = "'Ada'" }
timeout = "1m"
next = "over"
[[node]]
name = "over"
kind = "exit"
"#;
        let told = [
            "3:8: it has no tests: nothing says what it is to do",
            "3:8: it has no goal: nothing tells whether its messages and arms do any good",
            "9:81: nobody is given the arm `none`: its weight is 0",
            "14:11: `wait` goes the same way whether what it waits for comes or not",
            "20:76: the template `winback` does not use `name`",
        ];
        assert_eq!(checked(text, &Templates::shipped()), (vec![], told.map(str::to_owned).to_vec()));
    }

    #[test]
    fn a_message_that_cannot_be_shown_as_it_will_go_is_told() {
        let text = r#"
[workflow]
name = "w"
[workflow.entry]
command = true
[workflow.vars]
day = "never"
[[node]]
name = "review"
kind = "approval"
who = "marketing"
shows = { subject = "'Hi'", body = "now" }
deadline = "1d"
silence = "rejects"
on_approve = "send"
on_reject = "over"
[[node]]
name = "send"
kind = "effect"
channel = "email"
input = { template = "'winback'", subject = "'Hi'", body = "now" }
timeout = "1m"
next = "over"
[[node]]
name = "over"
kind = "exit"
"#;
        let told = |text: &str| {
            let told = checked(text, &Templates::shipped()).1;
            told.into_iter().filter(|line| line.contains("review")).collect::<Vec<_>>()
        };
        let expected = "21:60: `review` cannot show the message of `send`: its `body` reads `now`, which may be another when it goes";
        assert_eq!(told(text), [expected]);
        assert_eq!(told(&text.replace("now", "vars.day")), Vec::<String>::new());
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
    }

    #[test]
    fn a_broken_template_is_told_with_its_files_line_and_fails_only_who_uses_it() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let templates = || Templates::load(dir.path()).unwrap();
        let found = |name: &str| {
            let problems = templates().broken(name).cloned().map(|problems| problems.0).unwrap_or_default();
            let file = |file: &str| file.rsplit('/').next().unwrap_or_default().to_owned();
            problems.iter().map(|one| format!("{}:{}:{}: {}", file(&one.file), one.line, one.column, one.message)).collect::<Vec<_>>()
        };
        write("winback_reminder.toml", "subject = 'Hi'\n\ntext = \"\"\"\none\n  two {{ nobody }}\n\"\"\"\n[inputs]\n");
        assert_eq!(found("winback_reminder"), ["winback_reminder.toml:5:3: text: nobody gives \"nobody\""]);
        write("winback_reminder.toml", "text = 't'\nsubject = 'Hi {{ nobody }}'");
        assert_eq!(found("winback_reminder"), ["winback_reminder.toml:2:11: subject: nobody gives \"nobody\""]);
        write("winback_reminder.toml", "subject = 'Hi'\ntext = 't'\ninput = 1");
        assert_eq!(found("winback_reminder"), ["winback_reminder.toml:3:1: unknown field `input`"]);
        write("winback_reminder.toml", "subject = 'Hi'\n\ntext = 't");
        assert!(found("winback_reminder")[0].starts_with("winback_reminder.toml:3:"), "{:?}", found("winback_reminder"));
        write("winback_reminder.toml", "subject = 'Hi'\ntext = 't'");
        write("winback_reminder.html", "<p>\n<b>{{ nobody }}</b>");
        assert_eq!(found("winback_reminder"), ["winback_reminder.html:2:1: html: nobody gives \"nobody\""]);

        let uses =
            |template: &str| WORKFLOWS[0].1.replacen("template = \"'winback_reminder'\"", &format!("template = \"'{template}'\""), 1);
        let (wrong, _) = checked(&uses("winback_reminder"), &templates());
        assert!(wrong.len() == 1 && wrong[0].contains("the template `winback_reminder` is broken: "), "{wrong:?}");
        assert!(wrong[0].contains("winback_reminder.html:2: html: nobody gives"), "{wrong:?}");
        write("fine.toml", "subject = '{{ subject }}'\ntext = 't'\n[inputs]\nsubject = 'x'");
        assert_eq!(checked(&uses("fine"), &templates()).0, Vec::<String>::new(), "another is none the worse for it");
        assert!(templates().all_sound().unwrap_err().to_string().contains("winback_reminder.html:2:1: html: nobody gives"));
    }
}
