//! The owner of the blocks: the id of its database, and the number that distinguishes that database from its
//! copies (`engine::owner`).

use async_trait::async_trait;

use crate::error::{Code, Error, Result};

/// The place of the blocks, and the id and the generation that stand beside them.
#[async_trait]
pub trait Identity: Send + Sync {
    /// Where the blocks are, for messages and for the `store` row: the same text from every process that
    /// opens the same place, without secrets.
    fn location(&self) -> String;

    /// The id of the database that these blocks belong to, if one was written.
    async fn store_id(&self) -> Result<Option<String>>;

    /// Writes the id durably if there is none, and returns the one that is there afterwards.
    async fn create_store_id(&self, id: &str) -> Result<String>;

    /// The generation that stands beside the blocks; 0 if none does.
    async fn generation(&self) -> Result<u64>;

    /// Writes the generation durably, unless a larger one stands there. Of two calls at once the smaller one
    /// may stay.
    async fn raise_generation(&self, to: u64) -> Result<()>;

    /// Whether any block is stored here.
    async fn has_blocks(&self) -> Result<bool>;
}

/// Reads what stands in the generation's file or object, at `place`.
pub(crate) fn parse_generation(text: &[u8], place: &str) -> Result<u64> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.trim_end().parse().ok());
    number.ok_or_else(|| {
        Error::new(Code::Config, format!("{place} holds no number: it is damaged")).with_advice(
            "make sure that the database is the one that these blocks were last written with; then remove the file, and \
             open the store once with take over (on the command line: graviton verify --take-over)",
        )
    })
}
