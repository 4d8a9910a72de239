//! Where a worker goes on from: what the log says is committed against what the stored states say they hold.
//!
//! State is never trusted beyond the log: of another incarnation, past what is committed, or without a committed offset, it is built again.
//! Of another fold version it is used only if nothing has to be re-read, because two versions must not share one key's history silently.

use bytes::Bytes;

use super::Error;
use super::fold::Fold;
use super::progress::{Mark, Progress, Watermark};
use super::worker::Surroundings;
use crate::domain::Incarnation;
use crate::log::Ownership;

pub(super) struct Opened {
    pub(super) committed: Progress,
    pub(super) flushed: Progress,
}

pub(super) fn open(around: &Surroundings, fold: &mut impl Fold, owner: &Ownership, incarnation: Incarnation) -> Result<Opened, Error> {
    let what = format!("{} of {} partition {}", fold.stage(), around.topics.namespace, owner.partition.partition);
    let bounds = around.log.watermarks(owner.partition)?;
    // The committed offset lies in the log beside the outputs it covers, so it holds in every incarnation; only state outside may not.
    let mut marked = Bytes::new();
    let committed = match around.log.committed(&owner.group, owner.partition)? {
        None => None,
        Some(committed) => {
            let mark = Mark::decode(&committed.metadata)?;
            marked = mark.memo;
            Some(Progress { next: committed.offset, cursor: mark.cursor })
        }
    };
    if let Some(committed) = &committed
        && committed.next > bounds.end
    {
        return Err(Error::PastTheEnd { what, committed: committed.next.0, end: bounds.end.0 });
    }
    let stored = around.state.watermark(&fold.table(incarnation))?;
    let stored = stored.map(|bytes| Watermark::decode(&bytes)).transpose()?;
    let by_outputs = fold.recovers_from_outputs();
    // Nothing is re-read, so that two versions never share a key's history: what another one stored is built again.
    let stored = stored.filter(|stored| !by_outputs || stored.fold_version == fold.version());
    let mut usable = match (&committed, stored) {
        (Some(committed), Some(stored)) => usable(&what, fold.version(), committed, stored, incarnation, around.options.rebuild_state)?,
        (None, Some(_)) => {
            tracing::warn!(%what, "state without a committed offset is built again");
            None
        }
        (_, None) => None,
    };
    if !by_outputs && usable.as_ref().is_some_and(|stored| stored.progress.next < bounds.start) {
        usable = None;
    }
    if usable.is_none() && bounds.start.0 > 0 && !by_outputs && !fold.outlives_its_input() {
        return Err(Error::Trimmed { what, start: bounds.start.0 });
    }
    fold.restore(usable.as_ref(), &marked, incarnation)?;
    let begin = Progress::at(bounds.start);
    let committed = committed.unwrap_or_else(|| begin.clone());
    let flushed = match usable {
        _ if by_outputs => committed.clone(),
        Some(stored) => stored.progress,
        None => begin,
    };
    Ok(Opened { committed, flushed })
}

fn usable(
    what: &str,
    ours: u32,
    committed: &Progress,
    stored: Watermark,
    incarnation: Incarnation,
    rebuild: bool,
) -> Result<Option<Watermark>, Error> {
    if rebuild {
        tracing::warn!(%what, "state is built again, as asked");
        return Ok(None);
    }
    if stored.incarnation != incarnation || stored.progress > *committed {
        tracing::warn!(%what, flushed = stored.progress.next.0, committed = committed.next.0, "state of another life of the log is built again");
        return Ok(None);
    }
    if stored.fold_version != ours && stored.progress < *committed {
        let (flushed, committed) = (stored.progress.next.0, committed.next.0);
        return Err(Error::FoldVersion { what: what.to_owned(), found: stored.fold_version, ours, flushed, committed });
    }
    Ok(Some(stored))
}
