//! How far the person is in a declared funnel, read from their last 50 acts: no state of its own, so merging needs no care.
//!
//! A chain of acts that reach the steps in order counts while no more than the funnel's time lies between its first step and now. Of several
//! chains to the same step the one that began last is kept. Completing the funnel ends all chains begun before.

use super::Profile;
use super::counts::TYPES_MAX;
use super::settings::{FUNNEL_STEPS_MAX, FunnelRule};
use crate::domain::Millis;

/// Steps reached at `now`, and when that lapses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) steps: usize,
    pub(crate) lapses: Option<Millis>,
}

pub(crate) fn progress(profile: &Profile, funnel: &FunnelRule, now: Millis) -> Progress {
    let none = Progress { steps: 0, lapses: None };
    // The steps that each of the person's event types is, a bit each.
    let mut steps_of = [0u16; TYPES_MAX + 1];
    for (step, name) in funnel.steps.iter().enumerate() {
        match profile.counts.slot_of(name) {
            Some(slot) => steps_of[slot] |= 1 << step,
            None if step == 0 => return none,
            None => {}
        }
    }
    let last = funnel.steps.len() - 1;
    // begun[k]: when the best chain that has reached step k began.
    let mut begun = [None::<Millis>; FUNNEL_STEPS_MAX];
    for (time, slot) in profile.recent.iter().filter(|(time, _)| *time <= now) {
        // Later steps first, so that one act is not taken for two steps that share its event.
        let mut steps = steps_of[slot];
        while steps != 0 {
            let step = steps.ilog2() as usize;
            steps ^= 1 << step;
            let start = if step == 0 { Some(time) } else { begun[step - 1] };
            let Some(start) = start.filter(|start| time.since_ms(*start) <= funnel.within_ms) else { continue };
            if step == last {
                begun.fill(None);
            } else if step == 0 {
                begun[last] = None;
            }
            begun[step] = begun[step].max(Some(start));
            break;
        }
    }
    for step in (0..=last).rev() {
        if let Some(start) = begun[step]
            && now.since_ms(start) <= funnel.within_ms
        {
            return Progress { steps: step + 1, lapses: Some(start + (funnel.within_ms + 1)) };
        }
    }
    none
}
