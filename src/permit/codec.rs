//! The ledger's and the suppressions' bytes in the subject's snapshot: a version, counts, then fixed-width entries. Reading never panics,
//! takes nothing that writing does not give, and reserves no memory that the input cannot fill.

use super::ids::{EffectKey, Executor};
use super::ledger::{CLASSES_MAX, Class, Entry, Ledger, OPEN_MAX};
use super::policy::LIMIT_MAX;
use super::suppression::{AddressKey, Cause, Mark, Suppressions, Word};
use crate::domain::Millis;

const VERSION: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stored permits do not decode: {0}")]
pub struct Error(&'static str);

impl Ledger {
    /// Appends `version u8 | newest i64 | classes u8`, then of each class `channel | purpose | entries u16`, then of each entry
    /// `at i64 | key 16 | open u8 | executor 16 if open`. Texts are `length u8 | bytes`; numbers are little-endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend(self.newest.0.to_le_bytes());
        out.push(self.classes.len() as u8);
        for class in &self.classes {
            put_text(out, &class.channel);
            put_text(out, &class.purpose);
            out.extend((class.entries.len() as u16).to_le_bytes());
            for entry in &class.entries {
                out.extend(entry.at.0.to_le_bytes());
                out.extend(entry.key.0);
                out.push(u8::from(entry.open.is_some()));
                out.extend(entry.open.iter().flat_map(|executor| executor.0));
            }
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Reader(bytes);
        from.version()?;
        let newest = from.millis()?;
        let mut ledger = Ledger { classes: Vec::new(), newest };
        for _ in 0..from.count_u8(CLASSES_MAX)? {
            let class = from.class()?;
            let name = |class: &Class| (class.channel.clone(), class.purpose.clone());
            if ledger.classes.last().is_some_and(|last| name(last) >= name(&class)) {
                return Err(Error("classes out of order"));
            }
            ledger.classes.push(class);
        }
        from.finish(ledger)
    }
}

impl Suppressions {
    /// Appends nothing if there are none, else `version u8 | count u8`, then of each address `key 16 | for good | for a time | lifted i64`,
    /// where the first two are a count u8 of words, at most one and at most one of each cause, and the words `cause u8 | at i64 | until i64`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if self.marks.is_empty() {
            return;
        }
        out.extend([VERSION, self.marks.len() as u8]);
        for (address, mark) in &self.marks {
            out.extend(address.0);
            for words in [mark.for_good.as_slice(), &mark.for_a_time] {
                out.push(words.len() as u8);
                for (at, until, cause) in words {
                    let cause = *cause;
                    out.push(cause as u8);
                    out.extend(at.0.to_le_bytes());
                    out.extend(until.0.to_le_bytes());
                }
            }
            out.extend(mark.lifted.0.to_le_bytes());
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut from = Reader(bytes);
        from.version()?;
        let mut marks: Vec<(AddressKey, Mark)> = Vec::new();
        for _ in 0..from.count_u8(Suppressions::MAX)? {
            let address = AddressKey(from.take()?);
            let (for_good, for_a_time) = (from.words(1)?.pop(), from.words(Cause::ALL.len())?);
            let mut mark = Mark { for_good, for_a_time, lifted: from.millis()? };
            // Once they were kept.
            mark.lift(mark.lifted);
            if marks.last().is_some_and(|(last, _)| *last >= address) {
                return Err(Error("addresses out of order"));
            }
            marks.push((address, mark));
        }
        if marks.is_empty() {
            return Err(Error("an empty list is written as nothing"));
        }
        from.finish(Self { marks })
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Error("cut off"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn version(&mut self) -> Result<(), Error> {
        if self.take()? == [VERSION] { Ok(()) } else { Err(Error("of another version")) }
    }

    fn count_u8(&mut self, max: usize) -> Result<usize, Error> {
        let [count] = self.take()?;
        if usize::from(count) <= max { Ok(usize::from(count)) } else { Err(Error("more entries than are kept")) }
    }

    fn flag(&mut self) -> Result<bool, Error> {
        match self.take()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Error("a flag that is neither")),
        }
    }

    fn millis(&mut self) -> Result<Millis, Error> {
        Ok(Millis(i64::from_le_bytes(self.take()?)))
    }

    fn text(&mut self) -> Result<Box<str>, Error> {
        let [len] = self.take()?;
        let (text, rest) = self.0.split_at_checked(usize::from(len)).ok_or(Error("cut off"))?;
        self.0 = rest;
        Ok(std::str::from_utf8(text).map_err(|_| Error("text is not UTF-8"))?.into())
    }

    fn class(&mut self) -> Result<Class, Error> {
        let (channel, purpose) = (self.text()?, self.text()?);
        let count = usize::from(u16::from_le_bytes(self.take()?));
        let mut class = Class { channel, purpose, entries: Vec::new() };
        for _ in 0..count {
            let (at, key) = (self.millis()?, EffectKey(self.take()?));
            let open = if self.flag()? { Some(Executor(self.take()?)) } else { None };
            if class.entries.last().is_some_and(|last| (last.at, last.key) >= (at, key)) {
                return Err(Error("entries out of order"));
            }
            class.entries.push(Entry { at, key, open });
        }
        let open = class.entries.iter().filter(|entry| entry.open.is_some()).count();
        if count == 0 || open > OPEN_MAX || count - open > LIMIT_MAX {
            return Err(Error("more entries than are kept"));
        }
        Ok(class)
    }

    fn words(&mut self, max: usize) -> Result<Vec<Word>, Error> {
        let mut words: Vec<Word> = Vec::new();
        for _ in 0..self.count_u8(max)? {
            let [cause] = self.take()?;
            let cause = Cause::from_u8(cause).ok_or(Error("an unknown cause"))?;
            if words.last().is_some_and(|(_, _, last)| *last >= cause) {
                return Err(Error("words out of order"));
            }
            words.push((self.millis()?, self.millis()?, cause));
        }
        Ok(words)
    }

    fn finish<T>(self, whole: T) -> Result<T, Error> {
        if self.0.is_empty() { Ok(whole) } else { Err(Error("bytes left over")) }
    }
}
