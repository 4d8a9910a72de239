//! What became of the messages sent to the person: sent, opened, clicked per channel, and when they last reacted.

use super::codec::{Error, Reader, put_u64};
use super::settings::{Channel, Reaction};
use crate::domain::Millis;

const CHANNELS: usize = 4;

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Reach {
    counts: [[u64; 3]; CHANNELS],
    /// The newest opening or click on any channel.
    pub(crate) last_reaction: Option<Millis>,
}

impl Reach {
    pub(crate) fn add(&mut self, channel: Channel, reaction: Reaction, time: Millis) {
        self.counts[channel as usize][reaction as usize] += 1;
        if reaction != Reaction::Sent {
            self.last_reaction = self.last_reaction.max(Some(time));
        }
    }

    pub(crate) fn count(&self, channel: Channel, reaction: Reaction) -> u64 {
        self.counts[channel as usize][reaction as usize]
    }

    /// Openings and clicks, and messages sent, over all channels.
    pub(crate) fn reactions_and_sent(&self) -> (u64, u64) {
        let sum = |reaction: Reaction| self.counts.iter().fold(0u64, |sum, channel| sum.saturating_add(channel[reaction as usize]));
        (sum(Reaction::Opened).saturating_add(sum(Reaction::Clicked)), sum(Reaction::Sent))
    }

    pub(crate) fn absorb(&mut self, other: &Reach) {
        for (mine, theirs) in self.counts.iter_mut().flatten().zip(other.counts.iter().flatten()) {
            *mine = mine.saturating_add(*theirs);
        }
        self.last_reaction = self.last_reaction.max(other.last_reaction);
    }

    pub(crate) fn encode(&self, newest: Millis, out: &mut Vec<u8>) {
        let present = self.counts.iter().enumerate().filter(|(_, channel)| **channel != [0; 3]);
        out.push(present.clone().fold(0, |mask, (at, _)| mask | 1 << at) | if self.last_reaction.is_some() { 0x80 } else { 0 });
        for (_, channel) in present {
            for count in channel {
                put_u64(out, *count);
            }
        }
        if let Some(last) = self.last_reaction {
            put_u64(out, newest.since_ms(last) as u64);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>, newest: Millis) -> Result<Reach, Error> {
        let mask = reader.u8()?;
        let mut reach = Reach::default();
        if mask & 0x70 != 0 {
            return reader.broken("engagement on an unknown channel");
        }
        for at in 0..CHANNELS {
            if mask & 1 << at != 0 {
                for count in &mut reach.counts[at] {
                    *count = reader.total()?;
                }
            }
        }
        if mask & 0x80 != 0 {
            reach.last_reaction = Some(reader.time_before(newest)?);
        }
        Ok(reach)
    }
}
