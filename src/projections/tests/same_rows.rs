//! SQLite and Postgres have the same rows for the same log: every table and every view, whole.

use super::workflows::{append_fact, journals, time};
use super::*;

/// Numbers that a database gives by itself, in the order in which rows came: batches are not alike everywhere.
const GIVEN: [&str; 4] = ["event_id", "history_id", "dead_letter_id", "correction_id"];

#[test]
fn every_table_and_view_has_the_same_rows_on_both_and_after_a_rebuild() {
    let Some(postgres) = World::on_postgres() else { return };
    let sqlite = World::new();
    for world in [&sqlite, &postgres] {
        fill(world);
        world.project();
    }
    let relations = relations(&sqlite);
    assert!(relations.len() > 60, "{}", relations.len());
    let expected = dump(&sqlite, &relations);
    assert!(expected.len() > 1_000, "{}", expected.len());
    same(&dump(&postgres, &relations), &expected, "as they came");
    let options = Options { clock: Arc::new(postgres.clock.clone()), ..Options::default() };
    let rebuilt =
        block_on(rebuild(postgres.log.clone(), &postgres.place, &postgres.namespace, &options, &mut |_| ControlFlow::Continue(())));
    rebuilt.unwrap();
    same(&dump(&postgres, &relations), &expected, "rebuilt");
}

/// The shop and campaign of the documentation, every workflow that is shipped, and texts that databases stumble over.
fn fill(world: &World) {
    docs::small_shop(world);
    for (number, (subject, facts)) in journals().iter().enumerate() {
        facts.iter().for_each(|fact| append_fact(world, number as u32 % 2, subject, fact));
    }
    time(world, 1, 1_709_550_000_000);
    let odd = ["a\0b", "a\u{fffd}b", "o'brien \"; DROP TABLE events --", "\u{1f600} ünïcödé", "tab\tand\\backslash\nnewline", "%_like?$1"];
    for (number, text) in odd.into_iter().enumerate() {
        let at = DAY * number as i64;
        world.event(0, &format!("u:{text}"), text, at, r#"{"a":"\u0000","deep":[[[[]]]],"n":1e400}"#);
        world.event(1, &format!("a:{text}"), "Page", at - 40 * DAY, "not json");
        world.append(
            "profiles",
            0,
            &format!("u:{text}"),
            &profile("u:x", &[("orders", Field::Int(number as i64)), ("churn", Field::Float(0.1))]),
        );
        let change = SegmentChange { segment: text, digest: "d", entered: number % 2 == 0, at, cause: text, late: false };
        world.append("segment_changes", 0, &format!("u:{text}"), &change);
        let tie = Tie { user_id: text.to_owned(), from: at };
        world.append("identities", 0, &format!("a:{text}"), &IdentityRecord { ties: vec![tie.clone(), tie] });
    }
    for at in [-1, 253_402_300_800_000] {
        world.event(0, "u:far", "Page", at, "");
    }
}

/// (name, columns that are compared) of every table and view.
fn relations(sqlite: &World) -> Vec<(String, Vec<String>)> {
    let names = sqlite
        .sql("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE '%sql%' AND name <> 'meta' ORDER BY 1");
    let columns = |name: &String| {
        let all = sqlite.sql(&format!("SELECT name FROM pragma_table_info('{name}')"));
        all.into_iter().filter(|column| !GIVEN.contains(&column.as_str())).map(|column| format!("\"{column}\"")).collect()
    };
    names.iter().map(|name| (name.clone(), columns(name))).collect()
}

fn dump(world: &World, relations: &[(String, Vec<String>)]) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, columns) in relations {
        let mut rows = world.sql(&format!("SELECT {} FROM {name}", columns.join(", ")));
        rows.sort();
        lines.extend(rows.into_iter().map(|row| format!("{name}: {row}")));
    }
    lines
}

#[track_caller]
fn same(found: &[String], expected: &[String], when: &str) {
    let only = |some: &[String], other: &[String]| some.iter().filter(|line| !other.contains(line)).take(20).cloned().collect::<Vec<_>>();
    let (more, less) = (only(found, expected), only(expected, found));
    assert!(found == expected, "{when}: only on Postgres {more:#?}, only on SQLite {less:#?}");
}
