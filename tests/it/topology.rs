//! Shipped topologies hold what they promise; broken ones are refused with their place and a way out.

use flywheel::stream::Simulation;
use flywheel::stream::topology::{Drawing, Fields, Problem, SHIPPED, Topology, load, run, show, test};

#[test]
fn the_canonical_text_of_a_shipped_topology_is_the_same_topology() {
    for (name, text) in SHIPPED {
        let topology = Topology::parse(name, text).unwrap_or_else(|problems| panic!("{problems}"));
        let again = Topology::parse(name, &topology.canonical).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!((again.digest, &again.parts), (topology.digest, &topology.parts), "{}", topology.canonical);
    }
}

#[test]
fn every_test_of_every_shipped_topology_passes() {
    for (name, _) in SHIPPED {
        for report in test(name, &Simulation).unwrap() {
            assert!(report.passed(), "{report}");
        }
    }
}

/// A valid graph, so that each case below is broken in one way only.
const GRAPH: &str = r#"
[[processor]]
name = "intake"
kind = "intake"
reads = ["intake"]
writes = ["identities", "events", "dead_letters", "outcomes"]

[[processor]]
name = "profiles"
kind = "profiles"
reads = ["events"]
writes = ["events", "profiles", "segment_changes", "dead_letters"]
"#;

/// What is said of `text` under the name `t.toml`, each problem on one line: place, message, hint.
#[track_caller]
fn refused(text: &str, with_graph: bool) -> String {
    let whole = if with_graph { format!("topology.name = \"t\"\n{text}{GRAPH}") } else { format!("topology.name = \"t\"\n{text}") };
    let problems = Topology::parse("t.toml", &whole).expect_err(text);
    let line = |problem: &Problem| {
        let hint = problem.hint.as_ref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
        format!("{}:{} {}{hint}", problem.line, problem.column, problem.message)
    };
    problems.0.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn broken_topologies_are_refused_with_their_place_and_a_hint() {
    let on_a_graph: &[(&str, &str)] = &[
        (
            r##"[[segmnt]]
name = "a""##,
            r##"2:3 unknown field `segmnt` (hint: did you mean `segment`?)"##,
        ),
        (
            r##"[[segment]]
name = "a"
when = "orders > 1"
whne = "x""##,
            r##"5:1 unknown field `whne` (hint: did you mean `when`?)"##,
        ),
        (
            r##"[[segment]]
name = "a""##,
            r##"2:1 missing field `when`"##,
        ),
        (
            r##"[[segment]]
name = "a"
when = 3"##,
            r##"4:8 invalid type: integer `3`, expected a string (hint: a value here is an expression, and stands in quotes: `"3"`)"##,
        ),
        (
            r##"[[segment]]
name = "a"
when = "ordres > 1""##,
            r##"4:9 unknown field `ordres` (hint: did you mean `orders`?)"##,
        ),
        (
            r##"[[segment]]
name = "a"
when = """
orders > 1 &&
  cuontry == 2
""""##,
            r##"6:3 unknown field `cuontry` (hint: docs/features.md lists all fields; a trait of your own is `traits.name`)"##,
        ),
        (
            r##"[[segment]]
name = "a"
when = "orders""##,
            r##"4:9 a condition is needed here, this is an int (hint: compare it: `.. > 0`)"##,
        ),
        (
            r##"[[segment]]
name = "a"
when = "traits.\"plan\" > 1""##,
            r##"4:8 not a CEL expression: no viable alternative at input '."plan"'"##,
        ),
        (
            r##"[[segment]]
name = "buyer"
when = "orders > 1"
[[segment]]
name = "b"
when = "buyer && orders > 3""##,
            r##"7:9 unknown field `buyer` (hint: a segment cannot name another: repeat its condition)"##,
        ),
        (
            r##"[[segment]]
name = "a"
when = "true"
[[segment]]
name = "a"
when = "false""##,
            r##"6:8 there are two segments named `a`"##,
        ),
        (
            r##"[[segment]]
name = "Has Spaces"
when = "true""##,
            r##"3:8 "Has Spaces" is not a segment's name (hint: names are a-z, 0-9, `_` and `-`: they become columns and metric labels)"##,
        ),
        (
            r##"[[segment]]
name = "a"
when = "funnel(\"chekout\") > 1""##,
            r##"4:8 there is no funnel "chekout": none is declared in [[features.funnels]]"##,
        ),
        (
            r##"[[segment]]
name = "a"
when = 'count("Order Completed", "60d") > 1'"##,
            r##"4:14 "60d" is not a window: they are 1h, 1d, 7d, 30d, 90d and all"##,
        ),
        (
            r##"[features]
session_gap_minute = 30"##,
            r##"3:1 unknown field `session_gap_minute` (hint: did you mean `session_gap_minutes`?)"##,
        ),
        (
            r##"[features]
session_gap_minutes = 0"##,
            r##"2:1 features.session_gap_minutes is 0, must be 1 to 1440"##,
        ),
        (
            r##"[features.orders]
currency = "dollars""##,
            r##"2:2 features.orders.currency "dollars" is not a code of three letters"##,
        ),
        (
            r##"[[features.funnels]]
name = "f"
steps = ["one"]"##,
            r##"2:3 funnel "f" has 1 steps, must have 2 to 12"##,
        ),
        (
            r##"[scores.churn]
prior_median_days = -1.0"##,
            r##"2:2 scores.churn.prior_median_days is -1, must be 0.1 to 3650"##,
        ),
        (
            r##"[[processor]]
name = "read"
kind = "read_modles"
reads = ["events"]"##,
            r##"4:8 unknown kind of processor `read_modles` (hint: did you mean `read_models`?)"##,
        ),
        (
            r##"[[processor]]
name = "read"
kind = "read_models"
reads = ["evnts", "events", "profiles", "segment_changes"]"##,
            r##"5:10 there is no topic `evnts` (hint: did you mean `events`?)"##,
        ),
        (
            r##"[[processor]]
name = "read"
kind = "read_models"
reads = ["events", "profiles"]"##,
            r##"3:8 a processor of kind `read_models` must read `segment_changes` (hint: add "segment_changes" to `reads`)"##,
        ),
        (
            r##"[[processor]]
name = "read"
kind = "read_models"
reads = ["events", "profiles", "segment_changes"]
writes = ["intake"]"##,
            r##"6:11 a processor of kind `read_models` does not write `intake` (hint: it writes nothing)
8:8 emit loop: intake -> read -> intake (hint: a record must not come back to where it was made: drop one of these reads or writes)"##,
        ),
        (
            r##"[[processor]]
name = "profiles"
kind = "profiles"
reads = ["events"]
writes = ["events", "profiles", "segment_changes", "dead_letters"]"##,
            r##"14:8 there are two processors named `profiles`
15:8 a second processor of kind `profiles`: its topics would hold every fact twice"##,
        ),
        (
            r##"[[processor]]
name = "second"
kind = "profiles"
reads = ["events"]
writes = ["events", "profiles", "segment_changes", "dead_letters"]"##,
            r##"14:8 emit loop: profiles -> second -> profiles (hint: a record must not come back to where it was made: drop one of these reads or writes)
15:8 a second processor of kind `profiles`: its topics would hold every fact twice"##,
        ),
        (
            r##"[[test]]
name = "t"
given = [{ at = "0d", user = "ann", track = "x" }]"##,
            r##"3:8 the test expects nothing (hint: add an `[[test.expect]]` block)"##,
        ),
        (
            r##"[[test]]
name = "t"
given = [{ at = "0d", user = "ann" }]
[[test.expect]]"##,
            r##"4:10 a record has one of track, page, screen, identify, group, alias or body; this has 0 (hint: for example `{ at = "1d", user = "ann", track = "Signed Up" }`)"##,
        ),
        (
            r##"[[test]]
name = "t"
given = [{ at = "soon", user = "ann", track = "x" }]
[[test.expect]]"##,
            r##"4:17 "soon" is not a time (hint: write `60d`, `1d 2h` after the start, or `2024-03-01T12:00:00Z`)"##,
        ),
        (
            r##"[[test]]
name = "t"
given = [{ at = "2d", user = "ann", track = "x" }, { at = "1d", user = "ann", track = "x" }]
[[test.expect]]"##,
            r##"4:52 this record arrives before the one above it (hint: write records in the order in which they arrive; `received` says that one arrived late)"##,
        ),
        (
            r##"[[test]]
name = "t"
[[test.expect]]
members = { nobody = [] }
outcomes = { aplied = 1 }
profiles = { ann = ["orders > x"] }
changes = ["1d ann joins nobody"]"##,
            r##"5:13 there is no segment `nobody`
6:14 there is no outcome `aplied` (hint: outcomes are applied, duplicate, filtered, dead_lettered, control; reasons are bot, internal, flood, source_disabled, erased, control, refused, undecodable, malformed, no_identity, unknown_type, missing_field, too_large, identity_loop, panicked, too_deep, too_much_held, unknown_tenant, unknown_schema)
7:31 unknown field `x` (hint: docs/features.md lists all fields; a trait of your own is `traits.name`)
8:12 `joins` is neither `enters` nor `leaves` (hint: write `60d ann enters lapsing` or `1d 2h ann leaves new`)"##,
        ),
        (
            r##"[[test]]
name = "t"
[[test.expect]]
changes = ["ann enters"]"##,
            r##"5:12 a change is a time, a person, `enters` or `leaves`, and a segment (hint: write `60d ann enters lapsing` or `1d 2h ann leaves new`)"##,
        ),
        (
            r##"[[segment]
name = "a""##,
            r##"2:11 unclosed array table, expected `]`"##,
        ),
    ];
    let without_one: &[(&str, &str)] = &[
        (
            r##""##,
            r##"1:17 there is no processor of kind `intake` (hint: copy the [[processor]] of kind "intake" from topologies/spine.toml)
1:17 there is no processor of kind `profiles` (hint: copy the [[processor]] of kind "profiles" from topologies/spine.toml)"##,
        ),
        (
            r##"[[processor]]
name = "profiles"
kind = "profiles"
reads = ["events"]
writes = ["profiles", "segment_changes", "dead_letters"]"##,
            r##"1:17 there is no processor of kind `intake` (hint: copy the [[processor]] of kind "intake" from topologies/spine.toml)
3:8 a processor of kind `profiles` must write `events` (hint: add "events" to `writes`)
5:10 no other processor writes `events`, so nothing would ever come (hint: add the processor that writes it, or do not read it)"##,
        ),
    ];
    for (cases, with_graph) in [(on_a_graph, true), (without_one, false)] {
        for (text, expected) in cases {
            assert_eq!(refused(text, with_graph), *expected, "{text}");
        }
    }
}

#[test]
fn a_failing_test_says_what_differs_and_why() {
    let text = format!(
        r#"topology.name = "t"{GRAPH}
[[segment]]
name = "lapsing"
when = "orders >= 1 && days_since_seen >= 60"

[[test]]
name = "wrong about everything"
given = [
  {{ at = "0d", user = "ann", track = "Order Completed", properties = {{ revenue = 5.0 }} }},
  {{ at = "1d", user = "ann", track = "Order Completed", properties = {{ revenue = 6.5 }} }},
  {{ at = "2d", body = "broken" }},
]

[[test.expect]]
at = "70d"
outcomes = {{ applied = 3 }}
members = {{ lapsing = ["bob"] }}
changes = ["60d ann enters lapsing"]
profiles = {{ ann = ["revenue == 11.0", "days_since_order < 3 && orders == 2"], cyd = ["true"] }}
"#
    );
    let topology = Topology::parse("t.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
    let report = run(&topology, "t.toml", &Simulation).to_string();
    insta::assert_snapshot!(report, @r#"
FAIL t.toml:19 wrong about everything
     line 26: applied: expected 3, got 2 (all outcomes: applied 2, control 1, dead_lettered 1, duplicate 0, filtered 0, malformed 1)
     line 26: members of lapsing (orders >= 1 && days_since_seen >= 60) at 70d:
     - bob is not: no such person
     + ann is in it
     line 26: segment changes (- expected, + got):
     - 60d ann enters lapsing
     + 61d ann enters lapsing
     line 31: ann: revenue == 11.0 is false: revenue is 11.5
     line 31: ann: days_since_order < 3 && orders == 2 is false: days_since_order is 69, orders is 2
     line 26: there is no profile of cyd
t: 1 tests, 1 failed
"#);
}

#[test]
fn a_topology_is_drawn_as_text_and_as_mermaid() {
    let digest = load("clickstream").unwrap().digest.to_hex();
    let text = show("clickstream", Drawing::Text).unwrap().replace(&digest[..12], "DIGEST");
    insta::assert_snapshot!(text, @r#"
topology clickstream (DIGEST)
  Sessions, funnels and intent of a shop's clickstream.

  intake --> [intake] --> identities
                      --> events
                      --> dead_letters
                      --> outcomes

  events --> [profiles] --> events
                        --> profiles
                        --> segment_changes
                        --> corrections
                        --> dead_letters

  identities      --> [read-models]
  events          -->
  profiles        -->
  segment_changes -->
  corrections     -->
  dead_letters    -->
  outcomes        -->

segments
  at_risk           orders >= 1 && churn >= 0.8
                    Bought before, and the present silence is unusual for this very person.
  browsing          session_open
                    In a session that may still go on.
  buyer             orders >= 1
                    Bought at least once.
  cart_abandoned    funnel("checkout") in [1, 2, 3] && !session_open
                    Put something into the cart in the last day and has not bought since.
  hot               intent >= 0.6
                    The last pages look like a purchase is near.
  lapsing           orders >= 1 && days_since_seen >= 30
                    Bought before and has been quiet for 30 days.
  new               age_days < 7
                    First seen less than a week ago.
  repeat_buyer      orders >= 2
                    Bought at least twice.
  stuck_at_payment  (count("payment_error", "1d") >= 1 || count("checkout_bug", "1d") >= 1) && funnel("checkout") != 4
                    A payment failed or the checkout broke in the last day, and no purchase followed.
  window_shopper    active_days_30d >= 3 && orders == 0
                    Came back often this month and never bought.
"#);
    let mermaid = show("clickstream", Drawing::Mermaid).unwrap();
    for line in [
        "flowchart LR",
        "    topic_events[(events)]",
        "    topic_events --> profiles",
        "    profiles --> topic_segment_changes",
        "    segment_cart_abandoned([\"cart_abandoned: funnel(#quot;checkout#quot;) in [1, 2, 3] #amp;#amp; !session_open\"])",
    ] {
        assert!(mermaid.lines().any(|drawn| drawn == line), "{line} is not in\n{mermaid}");
    }
}

/// The fenced blocks of one language in a document.
fn fenced<'d>(document: &'d str, language: &str) -> Vec<&'d str> {
    let opening = format!("```{language}\n");
    document.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap_or("")).collect()
}

#[test]
fn every_condition_in_the_documentation_compiles() {
    let document = include_str!("../../docs/segments.md");
    let spine = load("spine").unwrap();
    let conditions: Vec<&str> = fenced(document, "cel").into_iter().flat_map(str::lines).collect();
    assert!(conditions.len() > 15, "the examples are fenced as `cel`");
    for when in conditions {
        if let Err(error) = flywheel::segments::compile(when, &Fields::new(&spine.rules)) {
            panic!("{when}: {error}");
        }
    }
}

#[test]
fn every_table_in_the_documentation_works_in_a_topology() {
    let segments = fenced(include_str!("../../docs/segments.md"), "toml").concat();
    let tests = fenced(include_str!("../../docs/topologies.md"), "toml").concat();
    let text = format!("topology.name = \"docs\"\n{GRAPH}\n{segments}\n{tests}");
    let topology = Topology::parse("docs.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(!topology.tests.is_empty());
    let report = run(&topology, "docs.toml", &Simulation);
    assert!(report.passed(), "{report}");
}
