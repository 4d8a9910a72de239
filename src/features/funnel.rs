//! How far the person is in a declared funnel, read from their last 50 acts: no state of its own, so merging needs no care.
//!
//! A chain of acts that reach the steps in order counts while no more than the funnel's time lies between its first step and now. Of several
//! chains to the same step the one that began last is kept. Completing the funnel ends all chains begun before.

use super::Profile;
use super::settings::FunnelRule;
use crate::domain::Millis;

/// Steps reached at `now`, and when that lapses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) steps: usize,
    pub(crate) lapses: Option<Millis>,
}

pub(crate) fn progress(profile: &Profile, funnel: &FunnelRule, now: Millis) -> Progress {
    // The slots of the steps' event types; the person may never have sent some of them.
    let slots: Vec<Option<usize>> = funnel.steps.iter().map(|step| profile.counts.slot(step)).collect();
    let last = slots.len() - 1;
    // begun[k]: when the best chain that has reached step k began.
    let mut begun: Vec<Option<Millis>> = vec![None; slots.len()];
    for (time, slot) in profile.recent.iter().filter(|(time, _)| *time <= now) {
        // Later steps first, so that one act is not taken for two steps that share its event.
        for step in (0..slots.len()).rev() {
            if slots[step] != Some(slot) {
                continue;
            }
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
    for step in (0..slots.len()).rev() {
        if let Some(start) = begun[step]
            && now.since_ms(start) <= funnel.within_ms
        {
            return Progress { steps: step + 1, lapses: Some(start + (funnel.within_ms + 1)) };
        }
    }
    Progress { steps: 0, lapses: None }
}
