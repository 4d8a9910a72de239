//! Random workflows: a tree of blocks from bytes, written out as a definition that the check must take.

use std::fmt::Write;

/// Bytes as choices; zero when they run out, so that shrinking makes things smaller.
pub(super) struct Choices<'b> {
    bytes: std::slice::Iter<'b, u8>,
}

impl<'b> Choices<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes: bytes.iter() }
    }

    pub(super) fn below(&mut self, bound: u8) -> u8 {
        self.bytes.next().copied().unwrap_or(0) % bound
    }
}

struct Writer<'c, 'b> {
    /// Nothing in it pauses a run, or lets go of an attempt that is under way.
    calm: bool,
    choices: &'c mut Choices<'b>,
    out: String,
    count: usize,
}

/// A workflow started by command with a signal `s`, events `E` and `Goal`; a `calm` one never pauses, and waits for every attempt.
pub(super) fn program(bytes: &[u8], calm: bool) -> String {
    let mut choices = Choices::new(bytes);
    let policy = ["on_failure = \"failed\"\n", ""][usize::from(choices.below(2)) * usize::from(!calm)];
    let with_goal = choices.below(2) == 1 && !calm;
    let mut writer = Writer { calm, choices: &mut choices, out: String::new(), count: 0 };
    let first = writer.block("end", 3, true);
    let nodes = writer.out;
    let goal = if with_goal { "[[node]]\nname = \"goal\"\nkind = \"goal\"\nevent = \"Goal\"\n" } else { "" };
    let failed = if policy.is_empty() { "" } else { "[[node]]\nname = \"failed\"\nkind = \"exit\"\nfailed = true\n" };
    format!(
        "[workflow]\nname = \"random\"\nfirst = \"{first}\"\nvars = {{ n = 0 }}\n{policy}entry = {{ command = true, reenter = \"always\" }}\n\
         {nodes}{goal}{failed}[[node]]\nname = \"end\"\nkind = \"exit\"\n"
    )
}

impl Writer<'_, '_> {
    /// Writes a block that leads to `next` and gives the name of its first node.
    fn block(&mut self, next: &str, depth: u8, must: bool) -> String {
        let length = self.choices.below(3) + u8::from(must);
        let mut to = next.to_owned();
        for _ in 0..length {
            to = self.item(&to, depth);
        }
        to
    }

    fn node(&mut self, kind: &str, keys: &str) -> String {
        let name = format!("n{}", self.count);
        self.count += 1;
        self.named(&name, kind, keys);
        name
    }

    fn named(&mut self, name: &str, kind: &str, keys: &str) {
        let _ = write!(self.out, "[[node]]\nname = \"{name}\"\nkind = \"{kind}\"\n{keys}\n");
    }

    fn item(&mut self, next: &str, depth: u8) -> String {
        let kinds = if depth == 0 { 6 } else { 9 };
        match self.choices.below(kinds) {
            0 | 1 => self.effect(next),
            2 => self.node("delay", &format!("wait = \"5m\"\nnext = \"{next}\"")),
            3 => {
                let timeout = ["10m", "2h"][usize::from(self.choices.below(2))];
                self.node(
                    "wait_for",
                    &format!("any = [{{ signal = \"s\" }}, {{ event = \"E\" }}]\ntimeout = \"{timeout}\"\nnext = \"{next}\""),
                )
            }
            4 => {
                let silence = ["approves", "rejects", "pauses"][usize::from(self.choices.below(3 - u8::from(self.calm)))];
                let keys =
                    format!("who = \"x\"\ndeadline = \"1h\"\nsilence = \"{silence}\"\non_approve = \"{next}\"\non_reject = \"{next}\"");
                self.node("approval", &keys)
            }
            5 => self.node("set", &format!("set = {{ n = \"vars.n + 1\" }}\nnext = \"{next}\"")),
            6 => {
                let (a, b) = (self.block(next, depth - 1, false), self.block(next, depth - 1, false));
                self.node("branch", &format!("cases = [{{ when = \"vars.n > 1\", next = \"{a}\" }}]\notherwise = \"{b}\""))
            }
            7 => self.looped(next, depth),
            _ => self.parallel(next, depth),
        }
    }

    fn effect(&mut self, next: &str) -> String {
        let unknown = ["retry", "look_up", "assume_done", "ask_a_person"][usize::from(self.choices.below(4 - u8::from(self.calm)))];
        let attempts = self.choices.below(3) + 1;
        let fallback = if self.choices.below(2) == 1 { format!("\non_failure = \"{next}\"") } else { String::new() };
        let by = match self.choices.below(6) {
            0..=2 => "agent = \"x\"".to_owned(),
            3 | 4 => format!("channel = \"email\"\npriority = \"{}\"", ["low", "high"][usize::from(self.choices.below(2))]),
            _ => format!("channel = \"sms\"\npurpose = \"{}\"", ["product", "transactional"][usize::from(self.choices.below(2))]),
        };
        let takes = ["", "takes = \"2m\"\n"][usize::from(self.choices.below(2))];
        let keys = format!(
            "{by}\n{takes}timeout = \"1m\"\nunknown = \"{unknown}\"\nretry = {{ attempts = {attempts}, first = \"10s\" }}\nnext = \"{next}\"{fallback}"
        );
        self.node("effect", &keys)
    }

    fn looped(&mut self, next: &str, depth: u8) -> String {
        let name = format!("n{}", self.count);
        self.count += 1;
        let body = self.block(&name, depth - 1, true);
        let most = self.choices.below(3) + 1;
        self.named(&name, "loop", &format!("most = {most}\nbody = \"{body}\"\nnext = \"{next}\""));
        name
    }

    fn parallel(&mut self, next: &str, depth: u8) -> String {
        let needs = ["\"all\"", "\"any\"", "2"][usize::from(self.choices.below(if self.calm { 1 } else { 3 }))];
        let join = self.node("join", &format!("needs = {needs}\nnext = \"{next}\""));
        let branches: Vec<String> = (0..3).map(|_| format!("\"{}\"", self.block(&join, depth - 1, true))).collect();
        let failing = ["leaves_others", "cancels_others", "pauses"][usize::from(self.choices.below(if self.calm { 1 } else { 3 }))];
        let fallback = if failing == "pauses" { String::new() } else { format!("\non_failure = \"{next}\"") };
        let keys = format!("branches = [{}]\njoin = \"{join}\"\nfailing = \"{failing}\"{fallback}", branches.join(", "));
        self.node("parallel", &keys)
    }
}
