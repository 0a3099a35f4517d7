//! Blocks of one size; the last one may be shorter.

use super::cut::Chunker;

pub(super) struct Fixed {
    size: usize,
}

impl Fixed {
    pub(super) fn new(size: usize) -> Fixed {
        Fixed { size }
    }
}

impl Chunker for Fixed {
    fn cut(&mut self, bytes: &[u8], end: bool) -> Option<usize> {
        if bytes.len() >= self.size {
            return Some(self.size);
        }
        (end && !bytes.is_empty()).then_some(bytes.len())
    }
}
