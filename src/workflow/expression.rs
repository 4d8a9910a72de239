//! What expressions in a workflow may name, and how a run's state answers: `profile`, `traits`, `entry`, `event`, `vars`, `results`, `run`.
//!
//! `entry` and `event` are what a customer's own code sent, so their types are what they are used as; `vars` have the type of their
//! first value, `results` those that their node declares, the profile those of `features::FIELDS`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use super::ids::RunId;
use super::state::Run;
use crate::domain::Millis;
use crate::features::{FIELDS, FieldType, Window};
use crate::segments::{self, Catalog, Clock, Expression, Field, Lookup, Path, Predicate, Type, Value, Yield, compile_value};

/// One thing that an expression reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    root: Root,
    path: Box<str>,
    ty: Type,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    Shows,
    Profile,
    Traits,
    Entry,
    Event,
    Vars,
    Results,
    Run,
}

/// What an expression reads, as [`Expr::reads`] names it.
pub(super) const NOW: &str = "now";
pub(super) const PROFILE: &str = "profile";

pub(super) fn variable(name: &str) -> String {
    format!("vars.{name}")
}

pub(super) fn result(node: &str) -> String {
    format!("results.{node}")
}

impl Root {
    fn named(name: &str) -> Option<Self> {
        match name {
            "traits" => Some(Root::Traits),
            _ => ROOTS.iter().find(|(known, _)| *known == name).map(|(_, root)| *root),
        }
    }
}

const ROOTS: [(&str, Root); 6] = [
    ("shows", Root::Shows),
    ("entry", Root::Entry),
    ("event", Root::Event),
    ("vars", Root::Vars),
    ("results", Root::Results),
    ("run", Root::Run),
];

const RUN_FIELDS: [(&str, Type); 7] = [
    ("id", Type::Text),
    ("workflow", Type::Text),
    ("started_at", Type::Time),
    ("key", Type::Text),
    // Whose run it is: `u:ID` or `a:ID`, and the id alone of whichever kind it is.
    ("subject", Type::Text),
    ("user_id", Type::Text),
    ("anonymous_id", Type::Text),
];

/// What a node's results are known to hold.
#[derive(Debug, Clone)]
pub(super) enum Returns {
    Declared(BTreeMap<String, Type>),
    /// An event's or signal's content: anyone's.
    Anything,
}

/// The names that one workflow's expressions may use.
#[derive(Default)]
pub(super) struct Names {
    pub(super) vars: BTreeMap<String, Type>,
    pub(super) results: BTreeMap<String, Returns>,
    /// In conditions on an event that just came.
    pub(super) event: bool,
    /// In rules for approvals, which know what the approval shows and nothing else.
    pub(super) only_shows: bool,
}

fn type_of(kind: FieldType) -> Type {
    match kind {
        FieldType::Int => Type::Int,
        FieldType::Float | FieldType::Money => Type::Float,
        FieldType::Bool => Type::Bool,
        FieldType::Text => Type::Text,
        FieldType::Time => Type::Time,
    }
}

fn known(root: Root, path: &str, ty: Type) -> Field<Reference> {
    Field { id: Reference { root, path: path.into(), ty }, ty, clock: Clock::Still, groups: 0 }
}

fn near<'n>(wrong: &str, names: impl Iterator<Item = &'n str> + Clone) -> String {
    match segments::did_you_mean(wrong, names.clone()) {
        Some(near) => format!(", did you mean `{near}`?"),
        None => match names.collect::<Vec<_>>().as_slice() {
            [] => ": there is none".to_owned(),
            names => format!(": there are {}", names.join(", ")),
        },
    }
}

impl Names {
    fn result(&self, path: &str, used_as: Option<Type>) -> Result<Path<Reference>, String> {
        let (node, field) = path.split_once('.').unwrap_or((path, ""));
        let Some(returns) = self.results.get(node) else {
            return Err(format!("no node named `{node}` gives a result{}", near(node, self.results.keys().map(String::as_str))));
        };
        match (returns, used_as) {
            (Returns::Anything, None) => Ok(Path::Open),
            (Returns::Anything, Some(ty)) => Ok(Path::Typed(known(Root::Results, path, ty))),
            (Returns::Declared(_), _) if field.is_empty() => {
                Err(format!("`results.{node}` alone is not a value: name what you want of it"))
            }
            (Returns::Declared(fields), _) => match fields.get(field) {
                Some(ty) => Ok(Path::Typed(known(Root::Results, path, *ty))),
                None => Err(format!("`{node}` returns no `{field}`{}", near(field, fields.keys().map(String::as_str)))),
            },
        }
    }
}

impl Catalog for Names {
    type Id = Reference;

    fn field(&self, name: &str) -> Option<Field<Reference>> {
        let def = FIELDS.iter().find(|def| def.name == name && !self.only_shows)?;
        Some(known(Root::Profile, name, type_of(def.kind)))
    }

    fn call(&self, function: &str, arguments: &[&str]) -> Option<Result<Field<Reference>, String>> {
        if function != "count" || self.only_shows {
            return None;
        }
        let windows = || Window::ALL.map(Window::as_str).join(", ");
        Some(match arguments {
            [event] => Ok(known(Root::Profile, &format!("count({event:?}, \"all\")"), Type::Int)),
            [event, window] if *window == "all" || Window::parse(window).is_some() => {
                Ok(known(Root::Profile, &format!("count({event:?}, {window:?})"), Type::Int))
            }
            [_, window] => Err(format!("{window:?} is not a window: they are {} and all", windows())),
            _ => Err("`count` takes an event's name and a window: `count(\"Order Completed\", \"30d\")`".to_owned()),
        })
    }

    fn trait_as(&self, name: &str, ty: Type) -> Option<Field<Reference>> {
        (!self.only_shows).then(|| known(Root::Traits, name, ty))
    }

    fn path(&self, root: &str, path: &str, used_as: Option<Type>) -> Option<Result<Path<Reference>, String>> {
        let root = ROOTS.iter().find(|(name, known)| *name == root && (*known == Root::Shows) == self.only_shows)?.1;
        Some(match root {
            Root::Shows => Ok(used_as.map_or(Path::Open, |ty| Path::Typed(known(root, path, ty)))),
            Root::Event if !self.event => {
                Err("`event` is known only in a condition on one; what started the run is `entry`, what a wait saw is `results.NODE`"
                    .to_owned())
            }
            Root::Entry | Root::Event => Ok(used_as.map_or(Path::Open, |ty| Path::Typed(known(root, path, ty)))),
            Root::Vars => match self.vars.get(path) {
                Some(ty) => Ok(Path::Typed(known(root, path, *ty))),
                None => Err(format!("there is no variable `{path}`{}", near(path, self.vars.keys().map(String::as_str)))),
            },
            Root::Results => self.result(path, used_as),
            Root::Run => match RUN_FIELDS.iter().find(|(name, _)| *name == path) {
                Some((_, ty)) => Ok(Path::Typed(known(root, path, *ty))),
                None => Err(format!("a run has no `{path}`{}", near(path, RUN_FIELDS.iter().map(|(name, _)| *name)))),
            },
            Root::Profile | Root::Traits => return None,
        })
    }

    fn names(&self) -> Vec<String> {
        if self.only_shows {
            return vec!["shows.".to_owned()];
        }
        let roots = ROOTS[1..].iter().map(|(name, _)| format!("{name}."));
        FIELDS.iter().map(|def| def.name.to_owned()).chain(["count(".to_owned()]).chain(roots).collect()
    }
}

impl Reference {
    /// The name under which commands bring it along, if it is of the profile.
    fn profile_name(&self) -> Option<String> {
        match self.root {
            Root::Profile => Some(self.path.to_string()),
            Root::Traits => Some(format!("traits.{}", self.path)),
            _ => None,
        }
    }
}

/// A condition with the text that it was written as.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    text: String,
    predicate: Predicate<Reference>,
}

impl Condition {
    pub(super) fn compile(text: &str, names: &Names) -> Result<Self, segments::Error> {
        Ok(Self { text: text.to_owned(), predicate: segments::compile(text, names)? })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Unknown is no.
    pub(super) fn holds(&self, scope: &Scope<'_>) -> bool {
        self.predicate.evaluate(scope, scope.now)
    }

    pub(super) fn profile(&self) -> Vec<String> {
        self.predicate.fields().iter().filter_map(|field| field.id.profile_name()).collect()
    }
}

/// A value expression with the text that it was written as.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    text: String,
    compiled: Expression<Reference>,
}

impl Expr {
    pub(super) fn compile(text: &str, names: &Names) -> Result<Self, segments::Error> {
        Ok(Self { text: text.to_owned(), compiled: compile_value(text, names)? })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn ty(&self) -> Option<Type> {
        self.compiled.ty()
    }

    /// Its value as it goes into a fact; null where something it needs is absent.
    pub(super) fn json(&self, scope: &Scope<'_>) -> Json {
        match self.compiled.evaluate(scope, scope.now) {
            Yield::Unknown | Yield::Value(Value::Absent) => Json::Null,
            Yield::Value(Value::Bool(value)) => json!(value),
            Yield::Value(Value::Int(value)) => json!(value),
            // Infinite and not a number have no JSON: null.
            Yield::Value(Value::Float(value)) => json!(value),
            Yield::Value(Value::Text(text)) => json!(text),
            Yield::Value(Value::Time(time)) => time.to_rfc3339().map_or(Json::Null, Json::String),
            Yield::Duration(ms) => json!(ms),
            Yield::Path(root, path) => scope.open(root, path).cloned().unwrap_or(Json::Null),
        }
    }

    /// Its value as an id or key: text as it is, numbers and truth written out; `None` for anything else.
    pub(super) fn text_value(&self, scope: &Scope<'_>) -> Option<String> {
        match self.json(scope) {
            Json::String(text) if !text.is_empty() => Some(text),
            Json::Number(number) => Some(number.to_string()),
            Json::Bool(value) => Some(value.to_string()),
            _ => None,
        }
    }

    /// Its value as a point in time.
    pub(super) fn time(&self, scope: &Scope<'_>) -> Option<Millis> {
        json_time(&self.json(scope))
    }

    /// What it reads that is not settled for good when the run begins.
    pub(super) fn reads(&self) -> BTreeSet<String> {
        let name = |root: Root, path: &str| match root {
            Root::Profile | Root::Traits => Some(PROFILE.to_owned()),
            Root::Vars => Some(variable(path)),
            Root::Results => Some(result(path.split('.').next().unwrap_or(path))),
            Root::Shows | Root::Entry | Root::Event | Root::Run => None,
        };
        let open = self.compiled.open_path().and_then(|(root, path)| name(Root::named(root)?, path));
        let fields = self.compiled.fields().iter().filter_map(|field| name(field.id.root, &field.id.path));
        fields.chain(open).chain(self.compiled.names_now().then(|| NOW.to_owned())).collect()
    }

    pub(super) fn profile(&self) -> Vec<String> {
        let open = self.compiled.open_path().filter(|(root, _)| *root == "traits").map(|(_, path)| format!("traits.{path}"));
        self.compiled.fields().iter().filter_map(|field| field.id.profile_name()).chain(open).collect()
    }
}

/// A time as SDKs write it: RFC 3339, a date, or milliseconds.
pub(super) fn json_time(value: &Json) -> Option<Millis> {
    match value {
        Json::String(text) if text.len() == 10 => Millis::parse(&format!("{text}T00:00:00Z")),
        Json::String(text) => Millis::parse(text),
        Json::Number(number) => number.as_i64().map(Millis),
        _ => None,
    }
}

/// What expressions are evaluated against.
pub(super) struct Scope<'a> {
    pub(super) run: Option<(RunId, &'a Run)>,
    /// As the context names it: tenant, a NUL, `u:ID` or `a:ID`.
    pub(super) subject: &'a str,
    /// Before there is a run: what would start it.
    pub(super) entry: Option<&'a Json>,
    pub(super) event: Option<&'a Json>,
    pub(super) profile: Option<&'a Json>,
    /// What an approval shows, where its rules are held against it.
    pub(super) shows: Option<&'a Json>,
    pub(super) now: Millis,
}

impl<'a> Scope<'a> {
    fn open(&self, root: &str, path: &str) -> Option<&'a Json> {
        self.json(Root::named(root)?, path)
    }

    fn json(&self, root: Root, path: &str) -> Option<&'a Json> {
        let run = self.run.map(|(_, run)| run);
        match root {
            // Field names hold no dots that mean anything, so they are read whole.
            Root::Profile => self.profile.or(run.map(|run| &run.profile))?.get(path),
            Root::Traits => self.profile.or(run.map(|run| &run.profile))?.get(format!("traits.{path}")),
            Root::Entry => walk(self.entry.or(run.map(|run| &run.entry))?, path),
            Root::Event => walk(self.event?, path),
            Root::Shows => walk(self.shows?, path),
            Root::Vars => run?.vars.get(path),
            Root::Results => {
                let (node, rest) = path.split_once('.').unwrap_or((path, ""));
                walk(run?.results.get(node)?, rest)
            }
            Root::Run => None,
        }
    }

    fn run_field(&self, path: &str) -> Value<'a> {
        let own = self.subject.rsplit_once('\0').map_or(self.subject, |(_, own)| own);
        let text = |text: Option<&'a str>| text.map_or(Value::Absent, |text| Value::Text(Cow::Borrowed(text)));
        match path {
            "subject" => return text(Some(own)),
            "user_id" => return text(own.strip_prefix("u:")),
            "anonymous_id" => return text(own.strip_prefix("a:")),
            _ => {}
        }
        let Some((id, run)) = self.run else { return Value::Absent };
        match path {
            "id" => Value::Text(Cow::Owned(id.to_string())),
            "workflow" => Value::Text(Cow::Borrowed(&run.workflow)),
            "started_at" => Value::Time(run.started),
            _ => run.key.as_deref().map_or(Value::Absent, |key| Value::Text(Cow::Borrowed(key))),
        }
    }
}

fn walk<'j>(mut value: &'j Json, path: &str) -> Option<&'j Json> {
    for part in path.split('.').filter(|part| !part.is_empty()) {
        value = value.get(part)?;
    }
    Some(value)
}

impl Lookup<Reference> for Scope<'_> {
    fn value(&self, field: &Reference, _now: Millis) -> Value<'_> {
        if field.root == Root::Run {
            return self.run_field(&field.path);
        }
        let Some(json) = self.json(field.root, &field.path) else { return Value::Absent };
        match (field.ty, json) {
            (Type::Bool, Json::Bool(value)) => Value::Bool(*value),
            (Type::Int | Type::Duration, Json::Number(number)) => number.as_i64().map_or(Value::Absent, Value::Int),
            (Type::Float, Json::Number(number)) => number.as_f64().map_or(Value::Absent, Value::Float),
            (Type::Text, Json::String(text)) => Value::Text(Cow::Borrowed(text)),
            // Order 17 and order "17" are one order.
            (Type::Text, Json::Number(number)) if matches!(field.root, Root::Entry | Root::Event) => {
                Value::Text(Cow::Owned(number.to_string()))
            }
            (Type::Time, json) => json_time(json).map_or(Value::Absent, Value::Time),
            _ => Value::Absent,
        }
    }

    fn next_change(&self, _field: &Reference, _after: Millis) -> Option<Millis> {
        None
    }
}

/// The type that a variable's first value gives it.
pub(super) fn type_of_json(value: &Json) -> Option<Type> {
    match value {
        Json::Bool(_) => Some(Type::Bool),
        Json::Number(number) => Some(if number.is_f64() { Type::Float } else { Type::Int }),
        Json::String(_) => Some(Type::Text),
        _ => None,
    }
}

/// `double`, `int`, `string`, `bool`, `timestamp`.
pub(super) fn type_named(name: &str) -> Option<Type> {
    [Type::Bool, Type::Int, Type::Float, Type::Text, Type::Time].into_iter().find(|ty| ty.as_str() == name)
}
