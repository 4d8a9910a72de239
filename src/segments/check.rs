//! The type pass: from the `cel` parser's tree to a typed predicate, or to an error that says where and what instead.
//!
//! Deliberately not all of CEL: comprehensions (their maps have no order), regular expressions (unbounded time), text
//! concatenation (allocates) and null are refused by name.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo, operators};
use cel::parser::Parser;

use super::catalog::{Catalog, Clock, Field, Path, Type};
use super::error::{Error, did_you_mean};
use super::literals::{duration_ms, timestamp};
use super::operands::{Arithmetic, Comparison, FloatNode, IntNode, Slot, TextNode};
use super::predicate::{BoolNode, Predicate, TextTest};
use super::settle::parse_error;

/// The longest expression taken, in bytes: far beyond what anyone writes, small enough for the parser's recursion.
const EXPRESSION_BYTES_MAX: usize = 8 * 1024;

/// The deepest nesting taken.
const DEPTH_MAX: u16 = 64;

/// Functions of our own beside the catalog's, for hints.
const FUNCTIONS: [&str; 9] = ["size(", "int(", "double(", "timestamp(", "duration(", "contains(", "startsWith(", "endsWith(", "has("];

/// Compiles an expression that must be a condition.
pub fn compile<C: Catalog>(text: &str, catalog: &C) -> Result<Predicate<C::Id>, Error> {
    let (mut checker, tree) = parse(text, catalog, false)?;
    let typed = checker.check(&tree)?;
    let root = checker.condition_node(typed, tree.id)?;
    let moves = checker.names_now || checker.fields.iter().any(|field| field.clock != Clock::Still);
    Ok(Predicate { root, fields: checker.fields.into(), moves })
}

/// The parsed text and a checker for it; `values` admits what only makes values, such as putting text together.
pub(super) fn parse<'c, C: Catalog>(text: &'c str, catalog: &'c C, values: bool) -> Result<(Checker<'c, C>, IdedExpr), Error> {
    if text.len() > EXPRESSION_BYTES_MAX {
        let message = format!("the expression is {} bytes long, at most {EXPRESSION_BYTES_MAX} are taken", text.len());
        return Err(Error::at((0, 0), message));
    }
    if text.trim().is_empty() {
        return Err(Error::at((0, 0), "the expression is empty").hint("`true` is everyone"));
    }
    let (tree, positions) =
        Parser::new().max_recursion_depth(DEPTH_MAX).parse_with_source_info(text).map_err(|errors| parse_error(text, &errors))?;
    Ok((Checker { catalog, text, positions, fields: Vec::new(), names_now: false, values }, tree))
}

/// A name whose type is what it is used as: a trait, or what the catalog calls open.
pub(super) struct Open {
    pub(super) root: String,
    pub(super) path: String,
}

/// An expression with the type that the pass found.
pub(super) enum Typed {
    Bool(BoolNode),
    Int(IntNode),
    Float(FloatNode),
    Text(TextNode),
    Time(IntNode),
    Duration(IntNode),
    Trait(Open),
    List(Vec<(u64, Typed)>),
}

impl Typed {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Typed::Bool(_) => Type::Bool.as_str(),
            Typed::Int(_) => Type::Int.as_str(),
            Typed::Float(_) => Type::Float.as_str(),
            Typed::Text(_) => Type::Text.as_str(),
            Typed::Time(_) => Type::Time.as_str(),
            Typed::Duration(_) => Type::Duration.as_str(),
            Typed::Trait(open) if open.root == "traits" => "trait",
            Typed::Trait(_) => "value of no declared type",
            Typed::List(_) => "list",
        }
    }

    pub(super) fn a_name(&self) -> String {
        let article = if self.name().starts_with('i') { "an" } else { "a" };
        format!("{article} {}", self.name())
    }
}

pub(super) struct Checker<'c, C: Catalog> {
    pub(super) catalog: &'c C,
    text: &'c str,
    positions: SourceInfo,
    pub(super) fields: Vec<Field<C::Id>>,
    values: bool,
    /// The expression asks for the present time.
    pub(super) names_now: bool,
}

pub(super) type Checked = Result<Typed, Error>;

impl<C: Catalog> Checker<'_, C> {
    /// Where a node stands, as byte offsets.
    fn span(&self, id: u64) -> (usize, usize) {
        let Some((start, stop)) = self.positions.offset_for(id) else { return (0, self.text.len()) };
        // The parser counts bytes and includes the last one's first.
        let end = (stop as usize + 1..=self.text.len()).find(|at| self.text.is_char_boundary(*at)).unwrap_or(self.text.len());
        ((start as usize).min(end), end)
    }

    pub(super) fn error(&self, id: u64, message: impl Into<String>) -> Error {
        Error::at(self.span(id), message)
    }

    pub(super) fn check(&mut self, node: &IdedExpr) -> Checked {
        match &node.expr {
            Expr::Literal(literal) => self.literal(node.id, literal),
            Expr::Ident(name) => self.name(node.id, name),
            Expr::Select(select) => self.select(node.id, select),
            Expr::Call(call) => self.call(node.id, call),
            Expr::List(list) => {
                let elements = list.elements.iter().map(|element| Ok((element.id, self.check(element)?)));
                Ok(Typed::List(elements.collect::<Result<_, Error>>()?))
            }
            Expr::Comprehension(_) => Err(self
                .error(node.id, "comprehensions (all, exists, exists_one, map, filter) are not taken: maps have no order to run through")
                .hint("compare fields one by one with `&&` and `||`, or use `x in [..]`")),
            Expr::Map(_) | Expr::Struct(_) => Err(self.error(node.id, "maps and messages are not taken in conditions")),
            Expr::Unspecified => Err(self.error(node.id, "not an expression")),
        }
    }

    fn literal(&self, id: u64, literal: &LiteralValue) -> Checked {
        match literal {
            LiteralValue::Boolean(value) => Ok(Typed::Bool(BoolNode::Const(*value.inner()))),
            LiteralValue::Int(value) => Ok(Typed::Int(IntNode::Const(*value.inner()))),
            LiteralValue::Double(value) => Ok(Typed::Float(FloatNode::Const(*value.inner()))),
            LiteralValue::String(value) => Ok(Typed::Text(TextNode::Const(value.inner().into()))),
            LiteralValue::UInt(_) => Err(self.error(id, "unsigned numbers are not taken").hint("leave out the `u`")),
            LiteralValue::Bytes(_) => Err(self.error(id, "bytes are not taken").hint("leave out the `b`")),
            LiteralValue::Null => Err(self.error(id, "null is not taken").hint("ask with `has(profile.field)` or `has(traits.name)`")),
        }
    }

    fn name(&mut self, id: u64, name: &str) -> Checked {
        if let Some(field) = self.catalog.field(name) {
            return Ok(self.use_field(field));
        }
        if name == "now" {
            self.names_now = true;
            return Ok(Typed::Time(IntNode::Now));
        }
        if name == "traits" || name == "profile" {
            return Err(self
                .error(id, format!("`{name}` alone is not a value"))
                .hint(format!("name what you want of it: `{name}.something`")));
        }
        Err(self.unknown_field(id, name))
    }

    fn unknown_field(&self, id: u64, name: &str) -> Error {
        let error = self.error(id, format!("unknown field `{name}`"));
        let names = self.catalog.names();
        if self.catalog.call(name, &[]).is_some() {
            return error.hint(format!("`{name}` is a function: write `{name}(..)`"));
        }
        match did_you_mean(name, names.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("docs/features.md lists all fields; a trait of your own is `traits.name`"),
        }
    }

    fn slot(&mut self, field: Field<C::Id>) -> Slot {
        let known = self.fields.iter().position(|known| known.id == field.id);
        let at = known.unwrap_or_else(|| {
            self.fields.push(field);
            self.fields.len() - 1
        });
        Slot::try_from(at).expect("an expression of 8 KiB names fewer than 65,536 fields")
    }

    pub(super) fn use_field(&mut self, field: Field<C::Id>) -> Typed {
        let ty = field.ty;
        let slot = self.slot(field);
        match ty {
            Type::Bool => Typed::Bool(BoolNode::Field(slot)),
            Type::Int => Typed::Int(IntNode::Field(slot)),
            Type::Float => Typed::Float(FloatNode::Field(slot)),
            Type::Text => Typed::Text(TextNode::Field(slot)),
            Type::Time => Typed::Time(IntNode::Field(slot)),
            Type::Duration => Typed::Duration(IntNode::Field(slot)),
        }
    }

    fn select(&mut self, id: u64, select: &SelectExpr) -> Checked {
        if let Some((root, path)) = dotted(select)
            && let Some(found) = self.catalog.path(root, &path, None)
        {
            let found = found.map_err(|why| self.error(id, why))?;
            return self.path(root, path, found, select.test);
        }
        let root = match &select.operand.expr {
            Expr::Ident(name) => name.as_str(),
            _ => "",
        };
        match (root, select.test) {
            ("profile", false) => self.name(id, &select.field),
            ("profile", true) => {
                let Some(field) = self.catalog.field(&select.field) else { return Err(self.unknown_field(id, &select.field)) };
                Ok(Typed::Bool(BoolNode::Known(self.slot(field))))
            }
            ("traits", false) => Ok(Typed::Trait(Open { root: "traits".to_owned(), path: select.field.clone() })),
            ("traits", true) => {
                let mut known = Vec::new();
                for ty in [Type::Text, Type::Float, Type::Bool] {
                    let Some(field) = self.catalog.trait_as(&select.field, ty) else { continue };
                    known.push(BoolNode::Known(self.slot(field)));
                }
                Ok(Typed::Bool(BoolNode::Or(known.into())))
            }
            _ => Err(self
                .error(id, format!("`.{}` does not exist: fields have no parts", select.field))
                .hint("write the field's name alone, or `traits.name` for a trait of your own")),
        }
    }

    fn path(&mut self, root: &str, path: String, found: Path<C::Id>, test: bool) -> Checked {
        match (found, test) {
            (Path::Typed(field), false) => Ok(self.use_field(field)),
            (Path::Typed(field), true) => Ok(Typed::Bool(BoolNode::Known(self.slot(field)))),
            (Path::Open, false) => Ok(Typed::Trait(Open { root: root.to_owned(), path })),
            (Path::Open, true) => {
                let mut known = Vec::new();
                for ty in [Type::Text, Type::Float, Type::Bool] {
                    if let Some(Ok(Path::Typed(field))) = self.catalog.path(root, &path, Some(ty)) {
                        known.push(BoolNode::Known(self.slot(field)));
                    }
                }
                Ok(Typed::Bool(BoolNode::Or(known.into())))
            }
        }
    }

    fn call(&mut self, id: u64, call: &CallExpr) -> Checked {
        let name = call.func_name.as_str();
        match (name, call.target.as_deref(), call.args.as_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, None, [_, _]) => self.logic(name, call),
            (operators::LOGICAL_NOT, None, [inner]) => {
                let typed = self.check(inner)?;
                Ok(Typed::Bool(BoolNode::Not(Box::new(self.condition_node(typed, inner.id)?))))
            }
            (operators::NEGATE, None, [inner]) => self.negate(id, inner),
            (operators::CONDITIONAL, None, [condition, then, otherwise]) => self.conditional(id, condition, then, otherwise),
            (operators::IN, None, [element, list]) => self.one_of(id, element, list),
            (operators::INDEX, None, [root, key]) => self.index(id, root, key),
            ("size", target, args) if target.iter().len() + args.len() == 1 => {
                let argument = target.unwrap_or_else(|| &args[0]);
                let typed = self.check(argument)?;
                Ok(Typed::Int(IntNode::Size(Box::new(self.text_node(typed, argument.id)?))))
            }
            ("contains" | "startsWith" | "endsWith", Some(target), [part]) => self.text_test(name, target, part),
            ("matches", ..) => Err(self
                .error(id, "regular expressions are not taken: their time has no bound")
                .hint("use `contains`, `startsWith` or `endsWith`")),
            ("int" | "double", None, [inner]) => self.convert(id, name, inner),
            ("string", None, [inner]) if self.values => self.show(inner),
            ("timestamp" | "duration", None, [inner]) => self.moment(name, inner),
            _ => match (arithmetic(name), comparison(name), call.args.as_slice()) {
                (Some(operator), _, [left, right]) => self.arithmetic(id, operator, left, right),
                (_, Some(operator), [left, right]) => self.compare(id, operator, left, right),
                _ => self.catalog_call(id, call),
            },
        }
    }

    fn catalog_call(&mut self, id: u64, call: &CallExpr) -> Checked {
        let name = call.func_name.as_str();
        let mut arguments = Vec::new();
        let mut all_text = call.target.is_none();
        for argument in &call.args {
            match &argument.expr {
                Expr::Literal(LiteralValue::String(text)) => arguments.push(text.inner()),
                _ => all_text = false,
            }
        }
        match self.catalog.call(name, if all_text { &arguments } else { &[] }) {
            Some(_) if !all_text => {
                Err(self.error(id, format!("`{name}` takes text literals only, so that what it reads is known before it runs")))
            }
            Some(Ok(field)) => Ok(self.use_field(field)),
            Some(Err(why)) => Err(self.error(id, why)),
            None => {
                let names = self.catalog.names();
                let functions = names.iter().map(String::as_str).filter(|name| name.ends_with('(')).chain(FUNCTIONS);
                let error = self.error(id, format!("unknown function `{name}`"));
                match did_you_mean(name, functions) {
                    Some(near) => Err(error.hint(format!("did you mean `{near}..)`?"))),
                    None if self.catalog.field(name).is_some() => Err(error.hint(format!("`{name}` is a field: write it without `()`"))),
                    None => Err(error.hint("docs/segments.md lists all functions")),
                }
            }
        }
    }

    fn logic(&mut self, name: &str, call: &CallExpr) -> Checked {
        let is_and = name == operators::LOGICAL_AND;
        let mut parts = Vec::new();
        for argument in &call.args {
            let typed = self.check(argument)?;
            match (self.condition_node(typed, argument.id)?, is_and) {
                (BoolNode::And(inner), true) | (BoolNode::Or(inner), false) => parts.extend(inner),
                (other, _) => parts.push(other),
            }
        }
        Ok(Typed::Bool(if is_and { BoolNode::And(parts.into()) } else { BoolNode::Or(parts.into()) }))
    }

    fn negate(&mut self, id: u64, inner: &IdedExpr) -> Checked {
        match self.check(inner)? {
            Typed::Int(IntNode::Const(value)) if value != i64::MIN => Ok(Typed::Int(IntNode::Const(-value))),
            Typed::Float(FloatNode::Const(value)) => Ok(Typed::Float(FloatNode::Const(-value))),
            Typed::Int(node) => Ok(Typed::Int(IntNode::Negate(Box::new(node)))),
            Typed::Duration(node) => Ok(Typed::Duration(IntNode::Negate(Box::new(node)))),
            Typed::Float(node) => Ok(Typed::Float(FloatNode::Negate(Box::new(node)))),
            other => Err(self.error(id, format!("`-` takes a number, this is {}", other.a_name()))),
        }
    }

    fn conditional(&mut self, id: u64, condition: &IdedExpr, then: &IdedExpr, otherwise: &IdedExpr) -> Checked {
        let typed = self.check(condition)?;
        let condition = self.condition_node(typed, condition.id)?;
        let (then, otherwise) = (self.check(then)?, self.check(otherwise)?);
        let (then, otherwise) = self.settle_traits(id, then, otherwise)?;
        match (then, otherwise) {
            (Typed::Bool(a), Typed::Bool(b)) => Ok(Typed::Bool(BoolNode::If(Box::new((condition, a, b))))),
            (Typed::Int(a), Typed::Int(b)) => Ok(Typed::Int(IntNode::If(Box::new((condition, a, b))))),
            (Typed::Time(a), Typed::Time(b)) => Ok(Typed::Time(IntNode::If(Box::new((condition, a, b))))),
            (Typed::Duration(a), Typed::Duration(b)) => Ok(Typed::Duration(IntNode::If(Box::new((condition, a, b))))),
            (Typed::Float(a), Typed::Float(b)) => Ok(Typed::Float(FloatNode::If(Box::new((condition, a, b))))),
            (Typed::Text(a), Typed::Text(b)) => Ok(Typed::Text(TextNode::If(Box::new((condition, a, b))))),
            (a, b) => Err(self.error(id, format!("both sides of `:` must have one type, these are {} and {}", a.name(), b.name()))),
        }
    }

    fn index(&mut self, id: u64, root: &IdedExpr, key: &IdedExpr) -> Checked {
        match (&root.expr, &key.expr) {
            (Expr::Ident(root), Expr::Literal(LiteralValue::String(name))) if root == "traits" => {
                Ok(Typed::Trait(Open { root: "traits".to_owned(), path: name.inner().to_owned() }))
            }
            _ => Err(self.error(id, "only `traits[\"name\"]` can be indexed")),
        }
    }

    fn one_of(&mut self, id: u64, element: &IdedExpr, list: &IdedExpr) -> Checked {
        let element_typed = self.check(element)?;
        let Typed::List(elements) = self.check(list)? else {
            return Err(self.error(id, "`in` takes a list of literals").hint("write `x in [\"a\", \"b\"]`"));
        };
        let (mut ints, mut floats, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        for (at, element) in elements {
            match element {
                Typed::Int(IntNode::Const(value)) => {
                    ints.push(value);
                    floats.push(value as f64);
                }
                Typed::Float(FloatNode::Const(value)) => floats.push(value),
                Typed::Text(TextNode::Const(text)) => texts.push(text),
                other => return Err(self.error(at, format!("a list after `in` holds text or number literals, this is {}", other.a_name()))),
            }
        }
        let element_typed = match element_typed {
            Typed::Trait(name) if texts.is_empty() => self.trait_used(id, &name, Type::Float)?,
            Typed::Trait(name) => self.trait_used(id, &name, Type::Text)?,
            other => other,
        };
        match element_typed {
            Typed::Int(node) if texts.is_empty() && floats.len() == ints.len() => {
                ints.sort_unstable();
                Ok(Typed::Bool(BoolNode::OneOfInts(Box::new((node, ints.into())))))
            }
            Typed::Float(node) if texts.is_empty() => {
                let equals = |value: f64| BoolNode::Floats(Comparison::Equal, Box::new((node.clone(), FloatNode::Const(value))));
                Ok(Typed::Bool(BoolNode::Or(floats.into_iter().map(equals).collect())))
            }
            Typed::Text(node) if floats.is_empty() => {
                texts.sort_unstable();
                Ok(Typed::Bool(BoolNode::OneOfTexts(Box::new((node, texts.into())))))
            }
            other => Err(self.error(id, format!("{} is never in a list of these", other.a_name()))),
        }
    }

    fn text_test(&mut self, name: &str, target: &IdedExpr, part: &IdedExpr) -> Checked {
        let text = self.check(target)?;
        let text = self.text_node(text, target.id)?;
        let wanted = self.check(part)?;
        let wanted = self.text_node(wanted, part.id)?;
        let test = match name {
            "contains" => TextTest::Contains,
            "startsWith" => TextTest::StartsWith,
            _ => TextTest::EndsWith,
        };
        Ok(Typed::Bool(BoolNode::Text(test, Box::new((text, wanted)))))
    }

    fn convert(&mut self, id: u64, name: &str, inner: &IdedExpr) -> Checked {
        match (name, self.check(inner)?) {
            ("int", Typed::Float(node)) => Ok(Typed::Int(IntNode::Truncate(Box::new(node)))),
            ("int", Typed::Int(node)) => Ok(Typed::Int(node)),
            ("double", Typed::Int(node)) => Ok(Typed::Float(FloatNode::OfInt(Box::new(node)))),
            ("double", Typed::Float(node)) => Ok(Typed::Float(node)),
            ("double", Typed::Trait(trait_name)) => self.trait_used(id, &trait_name, Type::Float),
            (_, other) => Err(self.error(id, format!("`{name}` takes a number, this is {}", other.a_name()))),
        }
    }

    /// A number as text.
    fn show(&mut self, inner: &IdedExpr) -> Checked {
        match self.check(inner)? {
            Typed::Int(node) => Ok(Typed::Text(TextNode::OfInt(Box::new(node)))),
            Typed::Float(node) => Ok(Typed::Text(TextNode::OfFloat(Box::new(node)))),
            Typed::Text(node) => Ok(Typed::Text(node)),
            Typed::Trait(open) => self.trait_used(inner.id, &open, Type::Text),
            other => Err(self.error(inner.id, format!("`string` takes a number or text, this is {}", other.a_name()))),
        }
    }

    fn moment(&mut self, name: &str, inner: &IdedExpr) -> Checked {
        let Expr::Literal(LiteralValue::String(text)) = &inner.expr else {
            return Err(self.error(inner.id, format!("`{name}` takes a text literal")));
        };
        if name == "duration" {
            let ms = duration_ms(text.inner()).ok_or_else(|| {
                self.error(inner.id, format!("{:?} is not a length of time", text.inner())).hint("write `60d`, `12h`, `1h30m` or `45s`")
            })?;
            return Ok(Typed::Duration(IntNode::Const(ms)));
        }
        let time = timestamp(text.inner()).ok_or_else(|| {
            self.error(inner.id, format!("{:?} is not a point in time", text.inner())).hint("write `2024-03-01` or `2024-03-01T12:00:00Z`")
        })?;
        Ok(Typed::Time(IntNode::Const(time.0)))
    }

    fn arithmetic(&mut self, id: u64, operator: Arithmetic, left: &IdedExpr, right: &IdedExpr) -> Checked {
        let (left, right) = (self.check(left)?, self.check(right)?);
        let (left, right) = self.settle_traits(id, left, right)?;
        let ints = |l, r| IntNode::Arithmetic(operator, Box::new((l, r)));
        let error = match (left, right, operator) {
            (Typed::Int(l), Typed::Int(r), _) => return Ok(Typed::Int(ints(l, r))),
            (Typed::Float(_), Typed::Float(_), Arithmetic::Remainder) => {
                self.error(id, "`%` takes whole numbers").hint("convert with `int(..)`")
            }
            (Typed::Float(l), Typed::Float(r), _) => return Ok(Typed::Float(FloatNode::Arithmetic(operator, Box::new((l, r))))),
            (Typed::Time(l), Typed::Time(r), Arithmetic::Subtract) => return Ok(Typed::Duration(ints(l, r))),
            (Typed::Time(l), Typed::Duration(r), Arithmetic::Add | Arithmetic::Subtract) => return Ok(Typed::Time(ints(l, r))),
            (Typed::Duration(l), Typed::Time(r), Arithmetic::Add) => return Ok(Typed::Time(ints(l, r))),
            (Typed::Duration(l), Typed::Duration(r), Arithmetic::Add | Arithmetic::Subtract) => return Ok(Typed::Duration(ints(l, r))),
            (Typed::Int(_), Typed::Float(_), _) | (Typed::Float(_), Typed::Int(_), _) => self
                .error(id, "arithmetic takes two ints or two doubles, not one of each")
                .hint("write a literal as `2.0`, or convert a field with `double(..)`"),
            (Typed::Text(l), Typed::Text(r), Arithmetic::Add) if self.values => {
                return Ok(Typed::Text(TextNode::Join(Box::new((l, r)))));
            }
            (Typed::Text(_), Typed::Text(_), Arithmetic::Add) => {
                self.error(id, "text is not put together in conditions").hint("compare the parts one by one")
            }
            (l, r, _) => self.error(id, format!("no arithmetic between {} and {}", l.name(), r.name())),
        };
        Err(error)
    }

    fn compare(&mut self, id: u64, operator: Comparison, left: &IdedExpr, right: &IdedExpr) -> Checked {
        let (left, right) = (self.check(left)?, self.check(right)?);
        let (left, right) = self.settle_traits(id, left, right)?;
        let ints = |l, r| BoolNode::Ints(operator, Box::new((l, r)));
        let floats = |l, r| BoolNode::Floats(operator, Box::new((l, r)));
        let of_int = |node| FloatNode::OfInt(Box::new(node));
        let node = match (left, right) {
            (Typed::Int(l), Typed::Int(r)) | (Typed::Time(l), Typed::Time(r)) | (Typed::Duration(l), Typed::Duration(r)) => ints(l, r),
            (Typed::Float(l), Typed::Float(r)) => floats(l, r),
            // A literal takes the other side's type, so that "60.0 days" is solved like "60 days".
            (Typed::Int(l), Typed::Float(FloatNode::Const(r))) if is_whole(r) => ints(l, IntNode::Const(r as i64)),
            (Typed::Float(FloatNode::Const(l)), Typed::Int(r)) if is_whole(l) => ints(IntNode::Const(l as i64), r),
            (Typed::Float(l), Typed::Int(IntNode::Const(r))) => floats(l, FloatNode::Const(r as f64)),
            (Typed::Int(IntNode::Const(l)), Typed::Float(r)) => floats(FloatNode::Const(l as f64), r),
            (Typed::Int(l), Typed::Float(r)) => floats(of_int(l), r),
            (Typed::Float(l), Typed::Int(r)) => floats(l, of_int(r)),
            (Typed::Text(l), Typed::Text(r)) => BoolNode::Texts(operator, Box::new((l, r))),
            (Typed::Bool(l), Typed::Bool(r)) => match operator {
                Comparison::Equal | Comparison::NotEqual => BoolNode::Same(operator == Comparison::Equal, Box::new((l, r))),
                _ => return Err(self.error(id, "bools have no order").hint("use `==`, `!=` or `!`")),
            },
            (l, r) => return Err(self.mismatch(id, &l, &r)),
        };
        Ok(Typed::Bool(node))
    }
}

/// `a.b.c` as its root and the rest.
fn dotted(select: &SelectExpr) -> Option<(&str, String)> {
    let mut parts = vec![select.field.as_str()];
    let mut operand = &select.operand;
    loop {
        match &operand.expr {
            Expr::Ident(root) => {
                parts.reverse();
                return Some((root, parts.join(".")));
            }
            Expr::Select(inner) => {
                parts.push(&inner.field);
                operand = &inner.operand;
            }
            _ => return None,
        }
    }
}

/// Whether a literal is a whole number that an int holds exactly.
fn is_whole(value: f64) -> bool {
    value.fract() == 0.0 && value.abs() < 9.0e15
}

fn arithmetic(name: &str) -> Option<Arithmetic> {
    Some(match name {
        operators::ADD => Arithmetic::Add,
        operators::SUBSTRACT => Arithmetic::Subtract,
        operators::MULTIPLY => Arithmetic::Multiply,
        operators::DIVIDE => Arithmetic::Divide,
        operators::MODULO => Arithmetic::Remainder,
        _ => return None,
    })
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        operators::LESS => Comparison::Less,
        operators::LESS_EQUALS => Comparison::LessOrEqual,
        operators::GREATER => Comparison::Greater,
        operators::GREATER_EQUALS => Comparison::GreaterOrEqual,
        operators::EQUALS => Comparison::Equal,
        operators::NOT_EQUALS => Comparison::NotEqual,
        _ => return None,
    })
}
