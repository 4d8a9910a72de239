//! Random workflows as their authors would write them: a tree of blocks that ends, in text that the check must take.

use std::fmt::Write;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// What may be sent in these worlds: few messages, a purpose that needs a yes, one that nothing stops, and nights.
pub const POLICY: &str = r#"
permit_valid = "60s"

[[purpose]]
name = "marketing"
basis = "opt_out"

[[purpose]]
name = "news"
basis = "opt_in"

[[purpose]]
name = "receipt"
basis = "transactional"

[[cap]]
name = "hourly"
window = "1h"
limit = 2

[[quiet]]
purpose = "marketing"
from = "22:00"
to = "06:00"

[[approval]]
workflow = "one"
node = "n0"
by = "small ones"
"#;

/// Of the policy above, for whoever counts again.
pub const CAP_WINDOW_MS: i64 = 3_600_000;
pub const CAP_LIMIT: usize = 2;

/// What a workflow that others start is called; those that people, events and segments start are `one` and `two`.
pub const CHILD: &str = "child";

struct Writer<'r> {
    rng: &'r mut ChaCha8Rng,
    out: String,
    count: usize,
    may_start: bool,
}

/// The text of a workflow.
pub fn program(rng: &mut ChaCha8Rng, name: &str) -> String {
    let may_start = name != CHILD;
    let entry = if !may_start { "command = true, reenter = \"always\"".to_owned() } else { entry(rng) };
    let on_failure = rng.random_bool(0.5);
    let with_goal = rng.random_bool(0.3);
    let depth = if may_start { rng.random_range(1..4) } else { 0 };
    let mut writer = Writer { rng, out: String::new(), count: 0, may_start };
    let first = writer.block("end", depth, true);
    let nodes = writer.out;
    let mut text = format!("[workflow]\nname = \"{name}\"\nfirst = \"{first}\"\nvars = {{ n = 0 }}\n");
    if on_failure {
        text += "on_failure = \"failed\"\n";
    }
    let _ = write!(text, "entry = {{ {entry} }}\n{nodes}");
    if with_goal {
        text += "[[node]]\nname = \"goal\"\nkind = \"goal\"\nevent = \"Goal\"\n";
    }
    if on_failure {
        text += "[[node]]\nname = \"failed\"\nkind = \"exit\"\nfailed = true\n";
    }
    text + "[[node]]\nname = \"end\"\nkind = \"exit\"\n"
}

fn entry(rng: &mut ChaCha8Rng) -> String {
    let by = [
        "event = \"Begin\"",
        "event = \"Begin\", key = \"string(event.order)\"",
        "event = \"Begin\"",
        "segment = \"busy\"",
        "segment = \"busy\"",
        "command = true",
        "every = \"2h\"",
        "broadcast = \"busy\", throttle = \"30m\"",
    ];
    let reenter = ["always", "when_ended", "never", "after 2h"];
    format!("{}, reenter = \"{}\"", by[rng.random_range(0..by.len())], reenter[rng.random_range(0..reenter.len())])
}

impl Writer<'_> {
    fn one_of(&mut self, words: &[&'static str]) -> &'static str {
        words[self.rng.random_range(0..words.len())]
    }

    /// Writes a block that leads to `next` and gives the name of its first node.
    fn block(&mut self, next: &str, depth: u8, must: bool) -> String {
        let length = self.rng.random_range(0..3) + usize::from(must);
        let mut to = next.to_owned();
        for _ in 0..length {
            to = self.item(&to, depth);
        }
        to
    }

    fn name(&mut self) -> String {
        self.count += 1;
        format!("n{}", self.count - 1)
    }

    fn node(&mut self, kind: &str, keys: &str) -> String {
        let name = self.name();
        self.named(&name, kind, keys);
        name
    }

    fn named(&mut self, name: &str, kind: &str, keys: &str) {
        let _ = write!(self.out, "[[node]]\nname = \"{name}\"\nkind = \"{kind}\"\n{keys}\n");
    }

    fn item(&mut self, next: &str, depth: u8) -> String {
        let kinds = if depth == 0 { 15 } else { 20 };
        match self.rng.random_range(0..kinds) {
            0..4 => self.effect(next),
            4..7 => self.message(next),
            7 => self.delay(next),
            8 => self.wait(next),
            9 => self.approval(next),
            10 => self.node("set", &format!("set = {{ n = \"vars.n + 1\" }}\nnext = \"{next}\"")),
            11 => self.node("emit", &format!("event = \"Emitted\"\nproperties = {{ n = \"vars.n\" }}\nnext = \"{next}\"")),
            12 => {
                let keys = format!(
                    "arms = [{{ name = \"a\", weight = 1, next = \"{next}\" }}, {{ name = \"b\", weight = 2, next = \"{next}\" }}]"
                );
                self.node("split", &keys)
            }
            13 => self
                .node("branch", &format!("cases = [{{ when = \"orders > 1\", next = \"{next}\" }}]\notherwise = \"{next}\"\nfresh = true")),
            14 if self.may_start => self.start(next),
            14 => self.delay(next),
            15 | 16 => {
                let (a, b) = (self.block(next, depth - 1, false), self.block(next, depth - 1, false));
                self.node("branch", &format!("cases = [{{ when = \"vars.n > 1\", next = \"{a}\" }}]\notherwise = \"{b}\""))
            }
            17 => self.looped(next, depth),
            _ => self.parallel(next, depth),
        }
    }

    fn retrying(&mut self, next: &str) -> String {
        let unknown = self.one_of(&["retry", "look_up", "assume_done", "ask_a_person"]);
        let attempts = self.rng.random_range(1..4);
        let takes = self.one_of(&["", "takes = \"5s\"\n", "takes = \"3m\"\n"]);
        let fallback = if self.rng.random_bool(0.5) { format!("on_failure = \"{next}\"\n") } else { String::new() };
        format!(
            "timeout = \"1m\"\nunknown = \"{unknown}\"\nretry = {{ attempts = {attempts}, first = \"10s\" }}\n{takes}{fallback}next = \"{next}\""
        )
    }

    fn effect(&mut self, next: &str) -> String {
        let by = self.one_of(&["agent = \"x\"", "webhook = \"https://example.org/x\""]);
        let keys = self.retrying(next);
        self.node("effect", &format!("{by}\n{keys}"))
    }

    fn message(&mut self, next: &str) -> String {
        let purpose = self.one_of(&["marketing", "marketing", "news", "receipt"]);
        let priority = self.one_of(&["low", "normal", "high"]);
        let until = self.one_of(&["", "not_after = \"2h\"\n"]);
        let refused = if self.rng.random_bool(0.3) { format!("on_refused = \"{next}\"\n") } else { String::new() };
        let keys = self.retrying(next);
        self.node("effect", &format!("channel = \"email\"\npurpose = \"{purpose}\"\npriority = \"{priority}\"\n{until}{refused}{keys}"))
    }

    fn delay(&mut self, next: &str) -> String {
        let until = self.one_of(&["wait = \"5m\"", "wait = \"3h\"", "until_local = \"09:00\"\nzone = \"Europe/Berlin\""]);
        self.node("delay", &format!("{until}\nnext = \"{next}\""))
    }

    fn wait(&mut self, next: &str) -> String {
        let timeout = self.one_of(&["10m", "2h", "1d"]);
        let any = self.one_of(&[
            "{ signal = \"s\" }, { event = \"E\" }",
            "{ signal = \"s\" }, { enters = \"busy\" }",
            "{ event = \"Emitted\" }, { leaves = \"busy\" }",
            "{ event = \"E\", when = \"event.total > 10.0\" }",
        ]);
        self.node("wait_for", &format!("any = [{any}]\ntimeout = \"{timeout}\"\nnext = \"{next}\""))
    }

    fn approval(&mut self, next: &str) -> String {
        let silence = self.one_of(&["approves", "rejects", "pauses"]);
        let keys = format!("who = \"x\"\ndeadline = \"1h\"\nsilence = \"{silence}\"\non_approve = \"{next}\"\non_reject = \"{next}\"");
        self.node("approval", &keys)
    }

    fn start(&mut self, next: &str) -> String {
        let subject = self.one_of(&["u:u0", "u:campaign:c", "a:a0"]);
        let timeout = self.one_of(&["", "timeout = \"30m\"\n", "timeout = \"2d\"\n"]);
        // Without it a run whose child fails waits for somebody to end it.
        let fallback = format!("on_failure = \"{next}\"\n");
        self.node("start", &format!("workflow = \"{CHILD}\"\nsubject = \"'{subject}'\"\n{timeout}{fallback}next = \"{next}\""))
    }

    fn looped(&mut self, next: &str, depth: u8) -> String {
        let name = self.name();
        let body = self.block(&name, depth - 1, true);
        let most = self.rng.random_range(1..4);
        self.named(&name, "loop", &format!("most = {most}\nbody = \"{body}\"\nnext = \"{next}\""));
        name
    }

    fn parallel(&mut self, next: &str, depth: u8) -> String {
        let needs = self.one_of(&["\"all\"", "\"any\"", "2"]);
        let join = self.node("join", &format!("needs = {needs}\nnext = \"{next}\""));
        let branches: Vec<String> = (0..3).map(|_| format!("\"{}\"", self.block(&join, depth - 1, true))).collect();
        let failing = self.one_of(&["pauses", "cancels_others", "leaves_others"]);
        let fallback = if failing == "pauses" { String::new() } else { format!("\non_failure = \"{next}\"") };
        let keys = format!("branches = [{}]\njoin = \"{join}\"\nfailing = \"{failing}\"{fallback}", branches.join(", "));
        self.node("parallel", &keys)
    }
}
