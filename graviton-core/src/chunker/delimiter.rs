//! Blocks that end with a delimiter, or at the largest size. A delimiter belongs to the block that it ends.
//!
//! For data made of records (lines, mailboxes, log files): a changed record changes only its own block.

use super::cut::Chunker;

pub(super) struct Delimiter {
    ending: Vec<u8>,
    max: usize,
    /// No delimiter starts within this many bytes of the current block.
    scanned: usize,
}

impl Delimiter {
    pub(super) fn new(delimiter: Vec<u8>, max: usize) -> Delimiter {
        Delimiter { ending: delimiter, max, scanned: 0 }
    }

    fn end_of_block(&mut self, bytes: &[u8], end: bool) -> Option<usize> {
        let length = self.ending.len();
        let within = &bytes[..bytes.len().min(self.max)];
        let fresh = &within[self.scanned.min(within.len())..];
        if let Some(at) = memchr::memmem::find(fresh, &self.ending) {
            return Some(self.scanned + at + length);
        }
        if within.len() == self.max || (end && !within.is_empty()) {
            return Some(within.len());
        }
        self.scanned = (within.len() + 1).saturating_sub(length);
        None
    }
}

impl Chunker for Delimiter {
    fn cut(&mut self, bytes: &[u8], end: bool) -> Option<usize> {
        let size = self.end_of_block(bytes, end)?;
        self.scanned = 0;
        Some(size)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ChunkerSpec, cut_all};

    #[test]
    fn the_delimiter_ends_its_block() {
        let spec: ChunkerSpec = "delimiter:0a:8".parse().unwrap();
        let sizes = |text: &[u8]| cut_all(&spec, text).into_iter().map(|(size, _)| size).collect::<Vec<_>>();
        assert_eq!(sizes(b"one\ntwo\n\nlonger than eight\nend"), [4, 4, 1, 8, 8, 2, 3]);
        assert_eq!(sizes(b"1234567\n"), [8]);
        assert_eq!(sizes(b""), [0_usize; 0]);
    }
}
