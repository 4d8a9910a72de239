//! What is refused at check: by which words, in which line, with which hint.

use super::super::Definition;

const HEAD: &str = "[workflow]\nname = \"w\"\nvars = { n = 1, text = \"a\" }\nentry = { command = true }\n";
const EXIT: &str = "[[node]]\nname = \"end\"\nkind = \"exit\"\n";

/// Checks `nodes` between a header of four lines and an exit named `end`.
#[track_caller]
fn refused(nodes: &str, line: usize, message: &str, hint: &str) {
    let text = format!("{HEAD}{nodes}\n{EXIT}");
    let problems = Definition::parse("w.toml", &text).expect_err("it should be refused");
    let found = problems.0.iter().find(|problem| problem.message.contains(message));
    let Some(problem) = found else { panic!("expected {message:?}, found:\n{problems}") };
    assert_eq!(problem.line, line, "{problem}");
    assert!(problem.hint.as_deref().unwrap_or_default().contains(hint), "{problem}");
}

#[track_caller]
fn taken(nodes: &str) {
    if let Err(problems) = Definition::parse("w.toml", &format!("{HEAD}{nodes}\n{EXIT}")) {
        panic!("{problems}");
    }
}

#[test]
fn a_text_or_number_that_is_written_as_it_is_says_how_an_expression_has_it() {
    let sends = |input: &str| {
        format!("[[node]]\nname = \"a\"\nkind = \"effect\"\nchannel = \"email\"\ninput = {{ {input} }}\ntimeout = \"1m\"\nnext = \"end\"")
    };
    refused(&sends("days = 0"), 9, "expected a string", "a value here is an expression, and stands in quotes: `\"0\"`");
    for offer in ["plain text here", "10% off, today only!", "plain"] {
        let hint = format!("a text has quotes of its own within an expression: \"'{offer}'\"");
        refused(&sends(&format!("offer = \"{offer}\"")), 9, "", &hint);
    }
    refused(
        &sends("template = \"welcome\""),
        9,
        "unknown field `welcome`",
        "the name of a template is a text, which has quotes of its own",
    );
    refused(&sends("template = \"welcome\""), 9, "unknown field `welcome`", "\"'welcome'\"");
}

#[test]
fn a_plain_workflow_is_taken() {
    taken("[[node]]\nname = \"a\"\nkind = \"delay\"\nwait = \"1h\"\nnext = \"end\"");
}

#[test]
fn graphs_that_lead_nowhere_or_nowhere_known() {
    let a = "[[node]]\nname = \"a\"\nkind = \"delay\"\nwait = \"1h\"\n";
    refused(&format!("{a}next = \"ned\""), 9, "there is no node `ned`", "did you mean `end`?");
    refused(a, 6, "`a` is a dead end", "next");
    refused(
        &format!("{a}next = \"end\"\n[[node]]\nname = \"b\"\nkind = \"delay\"\nwait = \"1h\"\nnext = \"end\""),
        11,
        "nothing leads to `b`",
        "",
    );
    refused(&format!("{a}next = \"end\"\n[[node]]\nname = \"a\"\nkind = \"exit\""), 11, "there are two nodes named `a`", "");
}

#[test]
fn loops_without_a_bound() {
    let back = "[[node]]\nname = \"a\"\nkind = \"delay\"\nwait = \"1h\"\nnext = \"b\"\n\
                [[node]]\nname = \"b\"\nkind = \"branch\"\ncases = [{ when = \"vars.n > 1\", next = \"a\" }]\notherwise = \"end\"";
    refused(back, 6, "on a loop without a bound", "most");
    let no_most = "[[node]]\nname = \"l\"\nkind = \"loop\"\nbody = \"a\"\nnext = \"end\"\n\
                   [[node]]\nname = \"a\"\nkind = \"delay\"\nwait = \"1h\"\nnext = \"l\"";
    refused(no_most, 6, "a loop without a bound", "most = 3");
    taken(&no_most.replace("next = \"end\"", "next = \"end\"\nmost = 3"));
    let no_return = no_most.replace("next = \"end\"", "next = \"end\"\nmost = 3").replace("next = \"l\"", "next = \"end\"");
    refused(&no_return, 6, "never comes back", "lead to `l`");
}

#[test]
fn waits_with_no_way_out() {
    let wait = "[[node]]\nname = \"a\"\nkind = \"wait_for\"\nany = [{ event = \"X\" }]\nnext = \"end\"";
    refused(wait, 6, "waits with no way out", "timeout");
    taken(&format!("{wait}\ntimeout = \"3d\""));
    let approval =
        "[[node]]\nname = \"a\"\nkind = \"approval\"\nwho = \"bo\"\non_approve = \"end\"\non_reject = \"end\"\nsilence = \"rejects\"";
    refused(approval, 6, "waits with no way out", "deadline");
}

#[test]
fn expressions_of_the_wrong_type_or_of_unknown_names() {
    let branch = |when: &str| {
        format!("[[node]]\nname = \"a\"\nkind = \"branch\"\ncases = [{{ when = \"{when}\", next = \"end\" }}]\notherwise = \"end\"")
    };
    refused(&branch("vars.n"), 8, "a condition is needed here", "compare it");
    refused(&branch("vars.m > 1"), 8, "there is no variable `m`, did you mean `n`?", "");
    refused(&branch("vars.n == 'a'"), 8, "cannot compare int with string", "");
    refused(&branch("ordres > 1"), 8, "unknown field `ordres`", "did you mean `orders`?");
    refused(&branch("results.x.y > 1"), 8, "no node named `x` gives a result", "");
    refused(&branch("event.total > 1"), 8, "`event` is known only in a condition on one", "");
    refused(&branch("run.colour == 'a'"), 8, "a run has no `colour`", "");
    taken(&branch("orders > 1 && entry.total >= 10.0 && now - run.started_at > duration('1h') && count('X', '30d') == 0"));
    let set = |expr: &str| format!("[[node]]\nname = \"a\"\nkind = \"set\"\nset = {{ n = \"{expr}\" }}\nnext = \"end\"");
    refused(&set("vars.text + 'b'"), 8, "`n` is a int, this is a string", "");
    refused(&set("entry.n"), 8, "the type of this is not known", "");
    taken(&set("vars.n + 1"));
}

#[test]
fn results_are_held_to_what_their_node_returns() {
    let effect =
        "[[node]]\nname = \"a\"\nkind = \"effect\"\nagent = \"x\"\ntimeout = \"1m\"\nreturns = { score = \"double\" }\nnext = \"b\"\n";
    let branch = |when: &str| {
        format!("{effect}[[node]]\nname = \"b\"\nkind = \"branch\"\ncases = [{{ when = \"{when}\", next = \"end\" }}]\notherwise = \"end\"")
    };
    taken(&branch("results.a.score < 0.7"));
    refused(&branch("results.a.scor < 0.7"), 15, "`a` returns no `scor`, did you mean `score`?", "");
    refused(&branch("results.a.score == 'x'"), 15, "cannot compare double with string", "");
}

#[test]
fn what_was_published_before_a_rule_was_made_goes_on() {
    let delay = "[[node]]\nname = \"a\"\nkind = \"delay\"\nwait = \"1h\"\nweekdays = [\"mon\"]\nnext = \"end\"";
    let text = format!("{HEAD}{delay}\n{EXIT}");
    assert!(Definition::parse("w.toml", &text).is_err());
    assert!(Definition::stored("w.toml", &text).is_ok());
    assert!(Definition::stored("w.toml", &text.replace("\"end\"\n[", "\"ned\"\n[")).is_err(), "what it means must still be clear");
}

#[test]
fn a_loop_that_waits_for_nothing_has_few_rounds() {
    let looped = |most: u32, body: &str| {
        format!(
            "[[node]]\nname = \"a\"\nkind = \"loop\"\nmost = {most}\nbody = \"b\"\nnext = \"end\"\n[[node]]\nname = \"b\"\n{body}\nnext = \"a\""
        )
    };
    let set = "kind = \"set\"\nset = { n = \"vars.n + 1\" }";
    refused(&looped(1_001, set), 6, "`a` may go 1001 rounds without waiting for anything", "put a delay");
    taken(&looped(1_000, set));
    taken(&looped(1_000_000, "kind = \"delay\"\nwait = \"1h\""));
}

#[test]
fn a_text_without_quotes_of_its_own_is_the_commonest_slip() {
    let effect = |input: &str| {
        format!("[[node]]\nname = \"a\"\nkind = \"effect\"\nagent = \"x\"\ntimeout = \"1m\"\nnext = \"end\"\ninput = {{ {input} }}")
    };
    refused(&effect("template = \"welcome\""), 11, "unknown field `welcome`", "\"'welcome'\"");
    refused(&effect("offer = \"plain text here\""), 11, "", "\"'plain text here'\"");
    refused(&effect("days = 0"), 11, "expected a string", "in quotes");
}

#[test]
fn a_mistake_in_a_node_is_no_mistake_of_what_it_leads_to() {
    let branch = "[[node]]\nname = \"a\"\nkind = \"branch\"\ncases = [{ when = \"vars.m > 1\", next = \"b\" }]\notherwise = \"end\"\n\
                  [[node]]\nname = \"b\"\nkind = \"exit\"";
    let problems = Definition::parse("w.toml", &format!("{HEAD}{branch}\n{EXIT}")).expect_err("it should be refused");
    assert_eq!(problems.0.len(), 1, "{problems}");
}

#[test]
fn keys_that_would_do_nothing() {
    let delay = |lines: &str| format!("[[node]]\nname = \"a\"\nkind = \"delay\"\n{lines}\nnext = \"end\"");
    refused(&delay("wait = \"1h\"\nweekdays = [\"mon\"]"), 9, "`weekdays` has no meaning here", "until_local");
    refused(&delay("until_local = \"09:00\"\nzone = \"UTC\"\noffset = \"1h\""), 10, "`offset` has no meaning here", "until_date");
    refused(&delay("until_date = \"traits.renewal\"\nzone = \"UTC\""), 9, "`zone` has no meaning here", "until_local");
}

#[test]
fn keys_and_values_that_are_not_known() {
    let node = |lines: &str| format!("[[node]]\nname = \"a\"\n{lines}\nnext = \"end\"");
    refused(&node("kind = \"dealy\"\nwait = \"1h\""), 7, "there is no kind of node `dealy`", "did you mean `delay`?");
    refused(&node("kind = \"delay\"\nwait = \"1h\"\ntimeout = \"1h\""), 9, "`timeout` is not a key of a `delay` node", "wait");
    refused(&node("kind = \"delay\"\nwiat = \"1h\""), 8, "unknown field `wiat`", "did you mean `wait`?");
    refused(&node("kind = \"delay\"\nwait = \"soon\""), 8, "is not a length of time", "");
    refused(&node("kind = \"delay\"\nuntil_local = \"9\"\nzone = \"UTC\""), 8, "is not a time of day", "09:00");
    refused(&node("kind = \"delay\"\nuntil_local = \"09:00\"\nzone = \"Mars\""), 9, "there is no time zone", "");
    refused(&node("kind = \"delay\"\nuntil_date = \"vars.n\""), 8, "a date is needed here, this is a int", "");
    refused(
        &node("kind = \"effect\"\nagent = \"x\"\ntimeout = \"1m\"\nunknown = \"retyr\""),
        10,
        "unknown value `retyr`",
        "did you mean `retry`?",
    );
    refused(&node("kind = \"effect\"\ntimeout = \"1m\""), 6, "an effect has one of agent, channel or webhook", "");
}

#[test]
fn branches_that_do_not_meet_in_their_join() {
    let fork = "[[node]]\nname = \"p\"\nkind = \"parallel\"\nbranches = [\"a\", \"b\"]\njoin = \"j\"\n\
                [[node]]\nname = \"a\"\nkind = \"delay\"\nwait = \"1h\"\nnext = \"j\"\n\
                [[node]]\nname = \"b\"\nkind = \"delay\"\nwait = \"2h\"\nnext = \"J\"\n\
                [[node]]\nname = \"j\"\nkind = \"join\"\nnext = \"after\"\n\
                [[node]]\nname = \"after\"\nkind = \"delay\"\nwait = \"1h\"\nnext = \"end\"";
    taken(&fork.replace("\"J\"", "\"j\""));
    refused(&fork.replace("\"J\"", "\"after\""), 25, "both from inside and from outside", "join");
    let failing = fork.replace("\"J\"", "\"j\"").replace("join = \"j\"", "join = \"j\"\nfailing = \"cancels_others\"");
    refused(&failing, 6, "where it leads when too few branches end well", "on_failure");
    let needs = fork.replace("\"J\"", "\"j\"").replace("kind = \"join\"", "kind = \"join\"\nneeds = 3");
    refused(&needs, 21, "`j` needs 3 branches, `p` has 2", "");
}

#[test]
fn entries_are_of_one_kind() {
    for (entry, message) in [
        ("{ command = true, event = \"X\" }", "this has 2"),
        ("{ every = \"1s\" }", "at most once a minute"),
        ("{ segment = \"s\", key = \"entry.x\" }", "`key` is not for entry by segment"),
        ("{ event = \"X\", reenter = \"nver\" }", "unknown value `nver`"),
        ("{ event = \"X\", when = \"event.total\" }", ""),
    ] {
        let text = format!("[workflow]\nname = \"w\"\nentry = {entry}\n{EXIT}");
        match Definition::parse("w.toml", &text) {
            Err(problems) => assert!(!message.is_empty() && problems.to_string().contains(message), "{entry}: {problems}"),
            Ok(_) => assert!(message.is_empty(), "{entry}"),
        }
    }
}
