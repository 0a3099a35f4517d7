//! Takes note of damage that a command found which opens the store only to read.
//!
//! Such a command changes nothing and works where nothing can be written. **A read that ends at a damaged
//! block is made again there by a store that may write**, which notes the damage in the row of the block
//! (`graviton_core`, `engine::damage`): the next put of that content writes the block. Where that is not
//! possible (a read-only disk, a user who may only read, a copy of the database), the note is left out:
//! `verify` is for that.

use graviton_core::BlobId;

use crate::context::Context;

/// Takes note of damage to the block of this blob that the byte at `position` is in, if it can.
pub(crate) async fn note(context: &Context, id: &BlobId, position: u64) {
    let noting = async {
        let store = context.config.open_existing_async().await?;
        let noted = async {
            // A copy of the database is not written to, not even here.
            store.check_writes().await?;
            let mut reader = store.reader(id).await?;
            reader.seek(position);
            reader.next().await.map(drop)
        };
        let noted = noted.await;
        store.close().await;
        Ok(noted?)
    };
    // The command ends with the error of its read.
    let _ = context.interrupt.or(noting).await;
}
