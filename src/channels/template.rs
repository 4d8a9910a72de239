//! Templates of a message: subject, text and HTML over declared inputs.
//!
//! A template declares its inputs with an example of each. So what it names and nobody gives is found at check, with its place, and a
//! preview needs nothing else. Rendering is strict: what is not there is an error and never an empty place in a mail. It is bounded too, in
//! steps and in size.

use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

/// What every message is given by the channel: links of the one who reads it.
pub const GIVEN: &[&str] = &["unsubscribe_url", "preferences_url"];

const FUNCTIONS: &[&str] = &["range", "dict", "namespace"];
const FUEL: u64 = 200_000;
const BYTES_MAX: usize = 512 * 1024;
const SUBJECT_CHARS_MAX: usize = 250;

/// As it is written in a definition.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub subject: String,
    pub text: String,
    #[serde(default)]
    pub html: Option<String>,
    /// Every input, with an example of it.
    #[serde(default)]
    pub inputs: Map<String, Json>,
}

/// A checked template.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    has_html: bool,
    inputs: Map<String, Json>,
}

/// Hexadecimal digits of a message's digest.
const DIGEST_CHARS: usize = 32;

/// A message's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub subject: String,
    pub text: String,
    pub html: Option<String>,
}

impl Rendered {
    /// What these words are recognised by.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for part in [&self.subject, &self.text, self.html.as_ref().unwrap_or(&String::new())] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().to_hex()[..DIGEST_CHARS].to_owned()
    }
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part}, line {line}: {reason}; {hint}")]
pub struct Problem {
    /// `subject`, `text` or `html`.
    pub part: &'static str,
    /// Within the part, from 1.
    pub line: usize,
    pub reason: String,
    pub hint: String,
}

impl Template {
    /// Compiles and checks: no syntax error, no unknown name or filter, and the examples give a message.
    pub fn compile(source: &Source) -> Result<Self, Vec<Problem>> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|part| if part == "html" { AutoEscape::Html } else { AutoEscape::None });
        let mut problems = Vec::new();
        let parts = [("subject", Some(&source.subject)), ("text", Some(&source.text)), ("html", source.html.as_ref())];
        for (part, text) in parts.into_iter().filter_map(|(part, text)| Some((part, text?))) {
            match environment.add_template_owned(part, text.clone()) {
                Ok(()) => problems.extend(undeclared(&environment, part, text, &source.inputs)),
                Err(error) => problems.push(problem(part, &error, "correct the template's syntax")),
            }
        }
        let template = Self { environment, has_html: source.html.is_some(), inputs: source.inputs.clone() };
        if problems.is_empty() {
            problems.extend(template.preview().err());
        }
        if problems.is_empty() { Ok(template) } else { Err(problems) }
    }

    /// Every declared input, with its example.
    pub fn inputs(&self) -> &Map<String, Json> {
        &self.inputs
    }

    /// The message as it reads with the examples.
    pub fn preview(&self) -> Result<Rendered, Problem> {
        let mut inputs = self.inputs.clone();
        for given in GIVEN {
            inputs.insert((*given).to_owned(), Json::from(format!("https://example.com/{given}")));
        }
        self.render(&inputs)
    }

    /// The message for one person; `inputs` holds the declared ones and those of [`GIVEN`].
    pub fn render(&self, inputs: &Map<String, Json>) -> Result<Rendered, Problem> {
        let values = Value::from_serialize(inputs);
        let subject = one_line(&self.part("subject", &values)?);
        if subject.is_empty() || subject.chars().count() > SUBJECT_CHARS_MAX {
            let reason = format!("a subject of {} characters", subject.chars().count());
            return Err(Problem { part: "subject", line: 1, reason, hint: format!("give it 1 to {SUBJECT_CHARS_MAX}") });
        }
        let html = if self.has_html { Some(self.part("html", &values)?) } else { None };
        Ok(Rendered { subject, text: self.part("text", &values)?, html })
    }

    fn part(&self, part: &'static str, values: &Value) -> Result<String, Problem> {
        let rendered = self.environment.get_template(part).and_then(|template| template.render(values));
        let text = rendered.map_err(|error| problem(part, &error, hint(error.kind())))?;
        if text.len() > BYTES_MAX {
            let reason = format!("{} bytes come of it", text.len());
            return Err(Problem { part, line: 1, reason, hint: format!("at most {BYTES_MAX} are sent") });
        }
        Ok(text)
    }
}

fn hint(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::UndefinedError => "give every declared input a value, or test it with `is defined`",
        ErrorKind::UnknownFilter | ErrorKind::UnknownFunction | ErrorKind::UnknownTest => "use those of minijinja's documentation",
        ErrorKind::OutOfFuel => "make the loops shorter",
        _ => "correct the expression",
    }
}

fn problem(part: &'static str, error: &minijinja::Error, hint: &str) -> Problem {
    let reason = error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    Problem { part, line: error.line().unwrap_or(1), reason, hint: hint.to_owned() }
}

/// Every name the part uses that nobody declared, in the order of the text.
fn undeclared(environment: &Environment<'_>, part: &'static str, text: &str, inputs: &Map<String, Json>) -> Vec<Problem> {
    let Ok(template) = environment.get_template(part) else { return Vec::new() };
    let names = template.undeclared_variables(true);
    let unknown = names.into_iter().filter(|name| !FUNCTIONS.contains(&name.as_str()) && !GIVEN.contains(&name.as_str()));
    let mut unknown: Vec<(usize, String)> = unknown.filter(|name| !has(inputs, name)).map(|name| (line_of(text, &name), name)).collect();
    unknown.sort();
    let declared = inputs.keys().map(String::as_str).chain(GIVEN.iter().copied()).collect::<Vec<_>>().join(", ");
    let problems = unknown.into_iter().map(|(line, name)| {
        let hint = format!("declare it under inputs with an example, or use one of {declared}");
        Problem { part, line, reason: format!("nobody gives {name:?}"), hint }
    });
    problems.collect()
}

/// Whether the examples hold `order.total`. Below what is not an object anything may be: text and lists have methods.
fn has(inputs: &Map<String, Json>, name: &str) -> bool {
    let mut steps = name.split('.');
    let mut value = steps.next().and_then(|first| inputs.get(first));
    for step in steps {
        value = match value {
            Some(Json::Object(members)) if !["items", "keys", "values", "get"].contains(&step) => members.get(step),
            other => return other.is_some(),
        };
    }
    value.is_some()
}

/// The first line within braces on which the name stands as a word.
fn line_of(text: &str, name: &str) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let stands = |line: &str| {
        line.match_indices(name).any(|(at, _)| {
            let before = line[..at].chars().next_back().is_some_and(|c| is_word(c) || c == '.');
            let after = line[at + name.len()..].chars().next().is_some_and(is_word);
            !before && !after
        })
    };
    let braced = text.lines().position(|line| line.contains('{') && stands(line));
    braced.or_else(|| text.lines().position(stands)).map_or(1, |line| line + 1)
}

/// Line breaks and other controls have no place in a header.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINBACK: &str = r#"
        subject = "{{ first_name }}, your basket\n misses you"
        text = """
Hello {{ first_name }},
{% for item in basket %}- {{ item.name }} for {{ item.price }}
{% endfor %}{% if order.total > 100 %}Free shipping.{% endif %}
{{ unsubscribe_url }}"""
        html = "<p>Hello {{ first_name }}</p>"
        [inputs]
        first_name = "Ada"
        basket = [{ name = "Pen", price = 3 }]
        order = { total = 120 }
    "#;

    fn template(text: &str) -> Result<Template, Vec<Problem>> {
        Template::compile(&toml::from_str(text).unwrap())
    }

    #[track_caller]
    fn check(subject: &str, text: &str, expected: &[(usize, &str)]) {
        let inputs = serde_json::json!({"name": "Ada", "order": {"total": 1}});
        let source = Source { subject: subject.into(), text: text.into(), html: None, inputs: inputs.as_object().unwrap().clone() };
        let found = Template::compile(&source).err().unwrap_or_default();
        let found: Vec<(usize, &str)> = found.iter().map(|problem| (problem.line, problem.reason.as_str())).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_preview_reads_as_the_mail_will() {
        let found = template(WINBACK).unwrap().preview().unwrap();
        assert_eq!(found.subject, "Ada, your basket misses you");
        assert_eq!(found.text, "Hello Ada,\n- Pen for 3\nFree shipping.\nhttps://example.com/unsubscribe_url");
        assert_eq!(found.html.as_deref(), Some("<p>Hello Ada</p>"));
    }

    #[test]
    fn a_name_that_nobody_gives_is_found_at_check_with_its_line() {
        check("Hi {{ name }}", "Hello\n{{ nmae }}\n{{ order.totl }}", &[(2, "nobody gives \"nmae\""), (3, "nobody gives \"order.totl\"")]);
        check("Hi", "{% for x in order %}{{ x }}{% endfor %}{% set y = 1 %}{{ y }}", &[]);
        check("Hi", "{{ name.upper }}{{ range(2) }}", &[(1, "undefined value")]);
    }

    #[test]
    fn syntax_filters_and_endless_loops_are_found_at_check() {
        check("Hi {{ name", "x", &[(1, "syntax error: unexpected end of input, expected end of variable block")]);
        check("Hi", "\n{{ name|shout }}", &[(2, "unknown filter: filter shout is unknown")]);
        let nested = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        check("Hi", nested, &[(1, "engine ran out of fuel")]);
        check("{{ '' }}", "x", &[(1, "a subject of 0 characters")]);
    }

    #[test]
    fn what_is_missing_for_one_person_is_an_error_and_not_a_gap() {
        let template = template(WINBACK).unwrap();
        let error = template.render(&Map::new()).unwrap_err();
        assert_eq!((error.part, error.reason.as_str()), ("subject", "undefined value"));
    }

    #[test]
    fn what_a_person_typed_is_text_in_the_html_and_one_line_in_the_subject() {
        let template = template(WINBACK).unwrap();
        let mut inputs = template.inputs.clone();
        inputs.insert("first_name".into(), "<b>Bob</b>\r\nBcc: all@example.com".into());
        inputs.insert("unsubscribe_url".into(), "x".into());
        let found = template.render(&inputs).unwrap();
        assert_eq!(found.html.as_deref(), Some("<p>Hello &lt;b&gt;Bob&lt;&#x2f;b&gt;\r\nBcc: all@example.com</p>"));
        assert!(found.subject.starts_with("<b>Bob</b> Bcc: all@example.com, your"));
    }
}
