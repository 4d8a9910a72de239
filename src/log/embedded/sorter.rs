//! The background: prepares the next write-ahead file and sorts full ones into segments, while appends go on.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::shared::Shared;
use super::wal::{make_spare, take_number};

#[derive(Default)]
struct State {
    wants_spare: bool,
    /// Write-ahead files below this number are full.
    full_below: u64,
    is_closed: bool,
}

/// What the sorter is asked to do.
#[derive(Default)]
pub(super) struct Sorting {
    state: Mutex<State>,
    changed: Condvar,
}

impl Sorting {
    pub(super) fn ask_for_spare(&self) {
        self.state.lock().wants_spare = true;
        self.changed.notify_all();
    }

    pub(super) fn file_filled(&self, active: u64) {
        self.state.lock().full_below = active;
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_all();
    }
}

/// The sorter's thread.
pub(super) fn run(shared: &Arc<Shared>) {
    loop {
        let mut state = shared.sorting.state.lock();
        while !state.wants_spare {
            if state.is_closed {
                return;
            }
            shared.sorting.changed.wait(&mut state);
        }
        state.wants_spare = false;
        drop(state);
        prepare_spare(shared);
    }
}

fn prepare_spare(shared: &Shared) {
    if shared.spares.lock().ready.is_some() {
        return;
    }
    let number = take_number(&shared.spares);
    match make_spare(&*shared.fs, &shared.dir, number, shared.options.wal_bytes) {
        Ok(spare) => shared.spares.lock().ready = Some(spare),
        Err(error) => tracing::warn!(%error, "cannot prepare the next write-ahead file"),
    }
}
