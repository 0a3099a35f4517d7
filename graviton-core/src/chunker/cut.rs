//! The interface of a running chunker.

/// Finds the ends of blocks in one stream.
pub trait Chunker: Send {
    /// The size of the block that starts at `bytes[0]`, or `None` if more bytes are needed to know.
    ///
    /// After `None` the next call must show the same bytes again with more behind them, or with `end`
    /// set; after `Some(size)` it must start at `bytes[size]`. `end` says that nothing comes behind
    /// `bytes`: the answer is then never `None` unless `bytes` is empty. A size is never 0 and never
    /// more than [`ChunkerSpec::max_size`](crate::ChunkerSpec::max_size).
    fn cut(&mut self, bytes: &[u8], end: bool) -> Option<usize>;
}
