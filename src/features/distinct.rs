//! How many different things: exact up to [`EXACT_MAX`], a HyperLogLog of 256 registers beyond (standard error 6.5 %).
//!
//! Which of the two holds depends on the set alone, never on the order of arrival or of merges.

use super::codec::{Error, Reader, put_u64};

pub const EXACT_MAX: usize = 32;
const REGISTERS: usize = 256;
const INDEX_BITS: u32 = 8;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Distinct {
    /// Sorted hashes.
    Exact(Vec<u32>),
    Sketch(Box<[u8; REGISTERS]>),
}

impl Default for Distinct {
    fn default() -> Self {
        Distinct::Exact(Vec::new())
    }
}

impl Distinct {
    /// Adds a hash; true if that changed anything.
    pub(crate) fn add(&mut self, hash: u32) -> bool {
        match self {
            Distinct::Exact(hashes) => {
                let Err(at) = hashes.binary_search(&hash) else { return false };
                hashes.insert(at, hash);
                if hashes.len() > EXACT_MAX {
                    let mut registers = Box::new([0; REGISTERS]);
                    for hash in hashes.iter() {
                        note(&mut registers, *hash);
                    }
                    *self = Distinct::Sketch(registers);
                }
                true
            }
            Distinct::Sketch(registers) => note(registers, hash),
        }
    }

    pub(crate) fn absorb(&mut self, other: &Distinct) {
        match (&mut *self, other) {
            (Distinct::Sketch(mine), Distinct::Sketch(theirs)) => {
                for (mine, theirs) in mine.iter_mut().zip(theirs.iter()) {
                    *mine = (*mine).max(*theirs);
                }
            }
            (Distinct::Exact(hashes), Distinct::Sketch(theirs)) => {
                let mut registers = theirs.clone();
                for hash in hashes.iter() {
                    note(&mut registers, *hash);
                }
                *self = Distinct::Sketch(registers);
            }
            (_, Distinct::Exact(theirs)) => {
                for hash in theirs {
                    self.add(*hash);
                }
            }
        }
    }

    pub(crate) fn count(&self) -> u64 {
        match self {
            Distinct::Exact(hashes) => hashes.len() as u64,
            Distinct::Sketch(registers) => estimate(registers),
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Distinct::Exact(hashes) => {
                put_u64(out, hashes.len() as u64);
                for hash in hashes {
                    out.extend_from_slice(&hash.to_le_bytes());
                }
            }
            // A register is at most 25: five bits each, eight registers in five bytes.
            Distinct::Sketch(registers) => {
                put_u64(out, EXACT_MAX as u64 + 1);
                for eight in registers.chunks_exact(8) {
                    let packed = eight.iter().rev().fold(0u64, |packed, register| packed << 5 | u64::from(*register));
                    out.extend_from_slice(&packed.to_le_bytes()[..5]);
                }
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Distinct, Error> {
        let len = reader.len(EXACT_MAX + 1)?;
        if len <= EXACT_MAX {
            let bytes = reader.bytes(len * 4)?;
            let hashes: Vec<u32> = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            if !hashes.is_sorted_by(|a, b| a < b) {
                return reader.broken("hashes out of order");
            }
            return Ok(Distinct::Exact(hashes));
        }
        let mut registers = Box::new([0; REGISTERS]);
        for eight in registers.chunks_exact_mut(8) {
            let bytes = reader.bytes(5)?;
            let packed = u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], 0, 0, 0]);
            for (at, register) in eight.iter_mut().enumerate() {
                *register = (packed >> (5 * at) & 31) as u8;
            }
        }
        if registers.iter().any(|register| u32::from(*register) > 33 - INDEX_BITS) {
            return reader.broken("a register beyond its range");
        }
        Ok(Distinct::Sketch(registers))
    }
}

/// The hash's top bits choose a register, which keeps the longest run of zeros (plus one) among the others.
fn note(registers: &mut [u8; REGISTERS], hash: u32) -> bool {
    let register = &mut registers[(hash >> (32 - INDEX_BITS)) as usize];
    let rank = ((hash << INDEX_BITS).leading_zeros().min(32 - INDEX_BITS) + 1) as u8;
    let higher = rank > *register;
    *register = rank.max(*register);
    higher
}

/// Flajolet's estimator with linear counting while registers are empty. Sums of powers of two are exact, so the result is the same anywhere.
fn estimate(registers: &[u8; REGISTERS]) -> u64 {
    let m = REGISTERS as f64;
    let empty = registers.iter().filter(|register| **register == 0).count();
    let harmonic: f64 = registers.iter().map(|register| 1.0 / (1u64 << register) as f64).sum();
    let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / harmonic;
    let estimate = if raw <= 2.5 * m && empty > 0 { m * libm::log(m / empty as f64) } else { raw };
    libm::round(estimate) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_exactly_while_small_and_within_error_beyond() {
        let mut distinct = Distinct::default();
        for number in 0u64..5_000 {
            let hash = xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes()) as u32;
            distinct.add(hash);
            distinct.add(hash);
            let (count, truth) = (distinct.count() as f64, (number + 1) as f64);
            let tolerance = if number < EXACT_MAX as u64 { 0.0 } else { 0.2 * truth };
            assert!((count - truth).abs() <= tolerance, "{count} for {truth}");
        }
    }
}
