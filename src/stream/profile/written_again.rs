//! After a hole was declared in `profiles`, or in what they are made of: states are built again from what is there, and everyone is written
//! once more, so that SQL is not without the people whose newest record was lost until they happen to come back.
//!
//! In key order, a page with each commit, once what was built again is stored: the way through is the store's key order. How far it is,
//! is kept with the states; a page may be written twice.

use super::ProfileFold;
use crate::stream::Error;
use crate::stream::outputs::Outputs;

impl ProfileFold {
    pub(super) fn write_again(&mut self, out: &mut Outputs) -> Result<(), Error> {
        let Some(after) = self.memo.written_again() else { return Ok(()) };
        let room = self.output_bytes_max.saturating_sub(out.bytes());
        let at_most = room / self.record_bytes + 1;
        let page = self.store.scan(&self.table, Some(&after), at_most)?;
        let is_last = page.len() < at_most;
        let mut done = None;
        let count = page.len();
        for (at, (key, state)) in page.into_iter().enumerate() {
            let slot = self.load(&key, Some(&state))?;
            self.write_or_skip(slot, out)?;
            done = Some(key);
            if out.bytes() >= self.output_bytes_max && at + 1 < count {
                self.memo.write_again_after(done);
                return Ok(());
            }
        }
        self.memo.write_again_after(done.filter(|_| !is_last));
        Ok(())
    }
}
