//! Where the person came from first and last: campaign fields and the referring host of the earliest and the latest visit that had any.

use super::codec::{Error, Reader, put_str, put_u64};
use super::observe::{TOUCH_BYTES_MAX, TouchSignal};
use crate::domain::Millis;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Touch {
    pub at: Millis,
    pub source: Box<str>,
    pub medium: Box<str>,
    pub campaign: Box<str>,
    pub content: Box<str>,
    pub referrer: Box<str>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Touches {
    pub(crate) first: Touch,
    pub(crate) last: Touch,
}

impl Touch {
    fn of(at: Millis, signal: &TouchSignal<'_>) -> Touch {
        let TouchSignal { source, medium, campaign, content, referrer } = signal;
        Touch {
            at,
            source: (**source).into(),
            medium: (**medium).into(),
            campaign: (**campaign).into(),
            content: (**content).into(),
            referrer: (**referrer).into(),
        }
    }

    fn says(&self, signal: &TouchSignal<'_>) -> bool {
        *self.source == *signal.source
            && *self.medium == *signal.medium
            && *self.campaign == *signal.campaign
            && *self.content == *signal.content
            && *self.referrer == *signal.referrer
    }

    fn parts(&self) -> [&str; 5] {
        [&self.source, &self.medium, &self.campaign, &self.content, &self.referrer]
    }
}

/// Keeps the earliest and the latest; of two at the same time the lesser as first, the greater as last, so that order does not matter.
pub(crate) fn note(touches: &mut Option<Box<Touches>>, at: Millis, signal: &TouchSignal<'_>) {
    let Some(known) = touches else {
        let touch = Touch::of(at, signal);
        *touches = Some(Box::new(Touches { first: touch.clone(), last: touch }));
        return;
    };
    if at > known.last.at && known.last.says(signal) {
        // The campaign of a visit comes with each of its events.
        known.last.at = at;
        return;
    }
    if at >= known.last.at {
        let touch = Touch::of(at, signal);
        if touch > known.last {
            known.last = touch.clone();
        }
        if touch < known.first {
            known.first = touch;
        }
    } else if at <= known.first.at {
        known.first = Touch::of(at, signal).min(known.first.clone());
    }
}

pub(crate) fn absorb(mine: &mut Option<Box<Touches>>, theirs: &Option<Box<Touches>>) {
    let Some(theirs) = theirs else { return };
    let Some(mine) = mine else {
        *mine = Some(theirs.clone());
        return;
    };
    if theirs.first < mine.first {
        mine.first = theirs.first.clone();
    }
    if theirs.last > mine.last {
        mine.last = theirs.last.clone();
    }
}

pub(crate) fn encode(touches: &Option<Box<Touches>>, newest: Millis, out: &mut Vec<u8>) {
    let Some(touches) = touches else { return out.push(0) };
    let same = touches.first.parts() == touches.last.parts();
    out.push(if same { 1 } else { 2 });
    put_u64(out, newest.since_ms(touches.last.at) as u64);
    put_u64(out, touches.last.at.since_ms(touches.first.at) as u64);
    let both = [&touches.last, &touches.first];
    for touch in &both[..if same { 1 } else { 2 }] {
        for part in touch.parts() {
            put_str(out, part);
        }
    }
}

pub(crate) fn decode(reader: &mut Reader<'_>, newest: Millis) -> Result<Option<Box<Touches>>, Error> {
    let form = reader.u8()?;
    if form == 0 {
        return Ok(None);
    }
    if form > 2 {
        return reader.broken("an unknown form of touches");
    }
    let last_at = reader.time_before(newest)?;
    let first_at = reader.time_before(last_at)?;
    let last = decode_touch(reader, last_at)?;
    let first = if form == 1 { Touch { at: first_at, ..last.clone() } } else { decode_touch(reader, first_at)? };
    if first > last || (form == 2 && first.parts() == last.parts()) {
        return reader.broken("touches out of order");
    }
    Ok(Some(Box::new(Touches { first, last })))
}

fn decode_touch(reader: &mut Reader<'_>, at: Millis) -> Result<Touch, Error> {
    let mut text = || reader.str(TOUCH_BYTES_MAX).map(Box::from);
    Ok(Touch { at, source: text()?, medium: text()?, campaign: text()?, content: text()?, referrer: text()? })
}
