//! A whole profile as bytes and back: version, times, then each accumulator in a fixed order, absent ones marked in one byte.

use super::codec::{Error, Reader, VERSION, put_i64, put_u64};
use super::counts::{Counts, DAYS_KEPT};
use super::days::{Days, day_of};
use super::distinct::Distinct;
use super::orders::Orders;
use super::reach::Reach;
use super::recent::Recent;
use super::rhythm::Rhythm;
use super::sessions::Sessions;
use super::traits::Traits;
use super::{Profile, touch};

const HAS_WOKEN: u8 = 1;
const HAS_EVENTS: u8 = 1 << 1;
const HAS_SEEN: u8 = 1 << 2;
const HAS_ORDERS: u8 = 1 << 3;
const HAS_REACH: u8 = 1 << 4;

impl Profile {
    /// Appends the state's bytes: the same state, the same bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        let marks = [
            (self.woken.is_some(), HAS_WOKEN),
            (self.newest.is_some(), HAS_EVENTS),
            (self.seen.is_some(), HAS_SEEN),
            (self.orders.is_some(), HAS_ORDERS),
            (self.reach.is_some(), HAS_REACH),
        ];
        out.push(marks.iter().filter(|(there, _)| *there).fold(0, |mask, (_, mark)| mask | mark));
        if let Some(woken) = self.woken {
            put_i64(out, woken.0);
        }
        let Some(newest) = self.newest else { return };
        put_i64(out, newest.0);
        if let Some((first, last)) = self.seen {
            put_u64(out, newest.since_ms(last) as u64);
            put_u64(out, last.since_ms(first) as u64);
        }
        self.counts.encode(newest, out);
        self.acts.encode(day_of(newest), out);
        self.recent.encode(newest, out);
        self.sessions.encode(newest, out);
        self.rhythm.encode(newest, out);
        if let Some(orders) = &self.orders {
            orders.encode(newest, out);
        }
        self.products.encode(out);
        self.categories.encode(out);
        if let Some(reach) = &self.reach {
            reach.encode(newest, out);
        }
        touch::encode(&self.touches, newest, out);
        self.traits.encode(newest, out);
    }

    pub fn decode(bytes: &[u8]) -> Result<Profile, Error> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Error::Version { found: version });
        }
        let mask = reader.u8()?;
        let mut profile = Profile::default();
        if mask & HAS_WOKEN != 0 {
            profile.woken = Some(reader.time()?);
        }
        if mask & HAS_EVENTS == 0 {
            reader.finish()?;
            return Ok(profile);
        }
        let newest = reader.time()?;
        profile.newest = Some(newest);
        if mask & HAS_SEEN != 0 {
            let last = reader.time_before(newest)?;
            profile.seen = Some((reader.time_before(last)?, last));
        }
        profile.counts = Counts::decode(&mut reader, newest)?;
        profile.acts = Days::decode(&mut reader, day_of(newest), DAYS_KEPT as usize)?;
        profile.recent = Recent::decode(&mut reader, newest, profile.counts.types.len())?;
        profile.sessions = Sessions::decode(&mut reader, newest)?;
        profile.rhythm = Rhythm::decode(&mut reader, newest)?;
        if mask & HAS_ORDERS != 0 {
            profile.orders = Some(Box::new(Orders::decode(&mut reader, newest)?));
        }
        profile.products = Distinct::decode(&mut reader)?;
        profile.categories = Distinct::decode(&mut reader)?;
        if mask & HAS_REACH != 0 {
            profile.reach = Some(Box::new(Reach::decode(&mut reader, newest)?));
        }
        profile.touches = touch::decode(&mut reader, newest)?;
        profile.traits = Traits::decode(&mut reader, newest)?;
        reader.finish()?;
        Ok(profile)
    }
}
