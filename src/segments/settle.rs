//! The type pass, second half: what untyped things become beside typed ones, and what is said where types do not fit.

use super::catalog::{Catalog, Path, Type};
use super::check::{Checked, Checker, Open, Typed};
use super::error::Error;
use super::operands::TextNode;
use super::predicate::BoolNode;

/// The parser's first complaint in our form.
pub(super) fn parse_error(text: &str, errors: &cel::ParseErrors) -> Error {
    let Some(first) = errors.errors.first() else { return Error::at((0, text.len()), "not an expression") };
    let line = usize::try_from(first.pos.0).unwrap_or(1).max(1);
    let column = usize::try_from(first.pos.1).unwrap_or(1).max(1);
    let line_start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let in_line = text[line_start.min(text.len())..].char_indices().nth(column - 1).map_or(0, |(at, _)| at);
    let start = (line_start + in_line).min(text.len());
    let message = first.msg.lines().next().unwrap_or("not an expression").trim_start_matches("Syntax error: ");
    // The list of all that could have stood there helps nobody.
    let message = message.split(" expecting {").next().unwrap_or(message);
    let error = Error::at((start, text.len()), format!("not a CEL expression: {message}"));
    let words = |word: &str| text.split(|c: char| !c.is_alphanumeric()).any(|part| part.eq_ignore_ascii_case(word));
    if message.contains("has() macro") {
        return error.hint("write `has(profile.last_order_at)` or `has(traits.plan)`");
    }
    if words("and") || words("or") || words("not") {
        return error.hint("CEL writes `&&`, `||` and `!`");
    }
    let bytes = text.as_bytes();
    let single_equals = (1..bytes.len().saturating_sub(1))
        .any(|at| bytes[at] == b'=' && !matches!(bytes[at - 1], b'=' | b'!' | b'<' | b'>') && bytes[at + 1] != b'=');
    if single_equals { error.hint("CEL compares with `==`") } else { error }
}

impl<C: Catalog> Checker<'_, C> {
    pub(super) fn mismatch(&self, id: u64, left: &Typed, right: &Typed) -> Error {
        let error = self.error(id, format!("cannot compare {} with {}", left.name(), right.name()));
        let kinds = [left, right].map(|typed| match typed {
            Typed::Int(_) | Typed::Float(_) => "number",
            other => other.name(),
        });
        let are = |one: &str, other: &str| kinds == [one, other] || kinds == [other, one];
        if are("duration", "number") {
            error.hint("write the length of time as `duration(\"60d\")`")
        } else if are("timestamp", "string") {
            error.hint("write the time as `timestamp(\"2024-03-01\")`")
        } else if are("timestamp", "duration") || are("timestamp", "number") {
            error.hint("how long ago it was is `now - field`")
        } else if are("string", "number") {
            error.hint("leave out the quotes around the number")
        } else {
            error
        }
    }

    /// Gives a trait beside something typed that type.
    pub(super) fn settle_traits(&mut self, id: u64, left: Typed, right: Typed) -> Result<(Typed, Typed), Error> {
        let wanted = |other: &Typed| match other {
            Typed::Bool(_) => Some(Type::Bool),
            Typed::Int(_) | Typed::Float(_) => Some(Type::Float),
            Typed::Text(_) => Some(Type::Text),
            Typed::Time(_) => Some(Type::Time),
            _ => None,
        };
        match (left, right) {
            (Typed::Trait(l), Typed::Trait(r)) if l.root != "traits" && r.root != "traits" => {
                // Two ids, mostly: `event.order_id == entry.order_id`.
                Ok((self.trait_used(id, &l, Type::Text)?, self.trait_used(id, &r, Type::Text)?))
            }
            (Typed::Trait(_), Typed::Trait(_)) => {
                Err(self.error(id, "two traits: their types are not known").hint("compare each with a literal or a field"))
            }
            (Typed::Trait(name), other) => match wanted(&other) {
                Some(ty) => Ok((self.trait_used(id, &name, ty)?, other)),
                None => Err(self.error(id, format!("a trait cannot be compared with {}", other.a_name()))),
            },
            (other, Typed::Trait(name)) => match wanted(&other) {
                Some(ty) => {
                    let settled = self.trait_used(id, &name, ty)?;
                    Ok((other, settled))
                }
                None => Err(self.error(id, format!("a trait cannot be compared with {}", other.a_name()))),
            },
            same => Ok(same),
        }
    }

    pub(super) fn trait_used(&mut self, id: u64, open: &Open, ty: Type) -> Checked {
        if open.root != "traits" {
            return match self.catalog.path(&open.root, &open.path, Some(ty)) {
                Some(Ok(Path::Typed(field))) => Ok(self.use_field(field)),
                _ => Err(self.error(id, format!("`{}.{}` cannot be read as {}", open.root, open.path, ty.as_str()))),
            };
        }
        if ty == Type::Time {
            return Err(self.error(id, "a trait cannot be compared with a timestamp"));
        }
        match self.catalog.trait_as(&open.path, ty) {
            Some(field) => Ok(self.use_field(field)),
            None => Err(self.error(id, format!("a trait cannot be read as {}", ty.as_str()))),
        }
    }

    pub(super) fn condition_node(&mut self, typed: Typed, id: u64) -> Result<BoolNode, Error> {
        match typed {
            Typed::Bool(node) => Ok(node),
            Typed::Trait(name) => match self.trait_used(id, &name, Type::Bool)? {
                Typed::Bool(node) => Ok(node),
                _ => Err(self.error(id, "a trait cannot be read as bool")),
            },
            other => Err(self.error(id, format!("a condition is needed here, this is {}", other.a_name())).hint(match other {
                Typed::Int(_) | Typed::Float(_) => "compare it: `.. > 0`",
                Typed::Text(_) => "compare it: `.. == \"text\"`",
                Typed::Time(_) => "compare it: `now - .. < duration(\"7d\")`",
                _ => "compare it with something",
            })),
        }
    }

    pub(super) fn text_node(&mut self, typed: Typed, id: u64) -> Result<TextNode, Error> {
        match typed {
            Typed::Text(node) => Ok(node),
            Typed::Trait(name) => match self.trait_used(id, &name, Type::Text)? {
                Typed::Text(node) => Ok(node),
                _ => Err(self.error(id, "a trait cannot be read as string")),
            },
            other => Err(self.error(id, format!("text is needed here, this is {}", other.a_name()))),
        }
    }
}
