//! A file read front to back through one buffer, so that looking through a large one costs neither its size in memory nor fresh pages.
//!
//! Owns where the buffer lies. What the bytes mean is `scan`'s business.

use crate::env::fs::File;

/// Read at once; what is larger is read whole all the same.
const PIECE_BYTES: usize = 1 << 20;
/// Compared at once when looking for zeros.
const ZEROS: [u8; 256] = [0; 256];

pub(super) struct Window<'a> {
    file: &'a dyn File,
    len: u64,
    bytes: Vec<u8>,
    /// Where in the file `bytes` begins.
    from: u64,
    piece: usize,
}

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a dyn File) -> std::io::Result<Self> {
        Self::sized(file, PIECE_BYTES)
    }

    /// One that reads `piece` bytes at once.
    pub(super) fn sized(file: &'a dyn File, piece: usize) -> std::io::Result<Self> {
        Ok(Self { file, len: file.len()?, bytes: Vec::new(), from: 0, piece })
    }

    /// The file's length when the window was made.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Exactly `count` bytes at `at`; `None` where the file is shorter, also by now.
    pub(super) fn get(&mut self, at: u64, count: usize) -> std::io::Result<Option<&[u8]>> {
        if at.saturating_add(count as u64) > self.len {
            return Ok(None);
        }
        let is_here = at >= self.from && at + count as u64 <= self.from + self.bytes.len() as u64;
        if !is_here {
            match self.read(at, count.max(self.piece)) {
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
                done => done?,
            }
        }
        let begin = (at - self.from) as usize;
        Ok(Some(&self.bytes[begin..begin + count]))
    }

    /// Where `wanted` stands next in `[at, until)`, its first byte there.
    pub(super) fn find(&mut self, wanted: &[u8], mut at: u64, until: u64) -> std::io::Result<Option<u64>> {
        while at < until {
            let Some(piece) = self.rest_at(at)? else { return Ok(None) };
            if let Some(found) = memchr::memmem::find(piece, wanted) {
                let found = at + found as u64;
                return Ok((found < until).then_some(found));
            }
            // It may begin in this piece and end in the next.
            let passed = piece.len().saturating_sub(wanted.len() - 1);
            if passed == 0 {
                return Ok(None);
            }
            at += passed as u64;
        }
        Ok(None)
    }

    /// What the buffer holds from `at` on, or a new piece if that is next to nothing; `None` at the file's end.
    fn rest_at(&mut self, at: u64) -> std::io::Result<Option<&[u8]>> {
        const FEW: u64 = 64;
        let end = self.from + self.bytes.len() as u64;
        let is_here = at >= self.from && at < end && (end - at > FEW || end == self.len);
        let count = if is_here { end - at } else { (self.piece as u64).min(self.len.saturating_sub(at)) };
        self.get(at, count as usize)
    }

    /// Past the last byte that is not zero.
    pub(super) fn dirty_end(&mut self) -> std::io::Result<u64> {
        let mut end = self.len;
        while end > 0 {
            let from = end.saturating_sub(self.piece as u64);
            self.read(from, (end - from) as usize)?;
            if let Some(last) = last_dirty(&self.bytes) {
                return Ok(from + last as u64 + 1);
            }
            end = from;
        }
        Ok(0)
    }

    fn read(&mut self, at: u64, count: usize) -> std::io::Result<()> {
        let count = (count as u64).min(self.len - at) as usize;
        // What a failed reading leaves in the buffer is not taken for the file.
        self.bytes.resize(count, 0);
        self.from = at;
        self.file.read_exact_at(&mut self.bytes, at).inspect_err(|_| self.bytes.clear())
    }
}

fn last_dirty(bytes: &[u8]) -> Option<usize> {
    let mut end = bytes.len();
    while end >= ZEROS.len() && bytes[end - ZEROS.len()..end] == ZEROS {
        end -= ZEROS.len();
    }
    bytes[..end].iter().rposition(|byte| *byte != 0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::env::fs::{Fs, SimFs};

    fn file(bytes: &[u8]) -> Arc<dyn File> {
        let fs = SimFs::new(1);
        fs.create_dir_all(Path::new("log")).expect("an empty disk takes a folder");
        let file = fs.create(Path::new("log/f")).expect("and a file");
        file.write_all_at(bytes, 0).expect("there is room");
        file
    }

    #[test]
    fn it_shows_the_file_wherever_it_is_asked_and_nothing_beyond() {
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES as u32 + 17).map(|n| (n % 251) as u8).collect();
        let file = file(&bytes);
        let mut window = Window::new(&*file).expect("it has a length");
        let len = bytes.len();
        for (at, count) in [(0, 1), (5, PIECE_BYTES), (PIECE_BYTES - 3, 9), (len - 4, 4), (2, 2 * PIECE_BYTES + 1), (len, 0)] {
            assert_eq!(window.get(at as u64, count).expect("it reads"), Some(&bytes[at..at + count]), "{count} at {at}");
        }
        for (at, count) in [(len - 4, 5), (len + 1, 0), (usize::MAX, 2)] {
            assert_eq!(window.get(at as u64, count).expect("it reads"), None, "{count} at {at}");
        }
    }

    #[test]
    fn it_finds_what_lies_across_its_pieces_and_only_where_it_is_asked() {
        let mut bytes = vec![1; 3 * PIECE_BYTES];
        let places = [0, 70, PIECE_BYTES - 2, 2 * PIECE_BYTES - 66, 2 * PIECE_BYTES, 3 * PIECE_BYTES - 4];
        for at in places {
            bytes[at..at + 4].copy_from_slice(b"here");
        }
        let file = file(&bytes);
        let mut window = Window::new(&*file).expect("it has a length");
        let (mut found, mut at) = (Vec::new(), 0);
        while let Some(place) = window.find(b"here", at, u64::MAX).expect("it reads") {
            found.push(place as usize);
            at = place + 1;
        }
        assert_eq!(found, places);
        let mut between = |from: usize, until: usize| window.find(b"here", from as u64, until as u64).expect("it reads");
        assert_eq!(between(1, 70), None);
        assert_eq!(between(1, 71), Some(70));
        assert_eq!(between(71, PIECE_BYTES - 2), None);
    }

    #[test]
    fn zeros_at_the_end_are_told_from_the_rest() {
        for (dirty, zeros) in [(0, 0), (0, 700), (1, 0), (1, 255), (1, 256), (300, 257), (PIECE_BYTES, 1), (9, 2 * PIECE_BYTES + 3)] {
            let file = file(&[vec![7; dirty], vec![0; zeros]].concat());
            let found = Window::new(&*file).and_then(|mut window| window.dirty_end()).expect("it reads");
            assert_eq!(found, dirty as u64, "{zeros} zeros");
        }
    }
}
