//! Records damage found by a command that opens the store only to read.
//!
//! Such a command changes nothing and also works where nothing can be written. **If a read ends at a damaged
//! block, the same read is repeated there with a store that may write**, which records the damage in the row
//! of the block (`graviton_core`, `engine::damage`): the next put of that content writes the block. If that
//! is not possible (a read-only disk, a user who may only read, a copy of the database), the damage is not
//! recorded; `verify` does that.

use graviton_core::BlobId;

use crate::context::Context;

/// Records damage to the block of this blob that contains the byte at `position`, if it can.
pub(crate) async fn note(context: &Context, id: &BlobId, position: u64) {
    let noting = async {
        let store = context.config.open_existing_async().await?;
        let noted = async {
            // A copy of the database is never written to, not even here.
            store.check_writes().await?;
            let mut reader = store.reader(id).await?;
            reader.seek(position);
            reader.next().await.map(drop)
        };
        let noted = noted.await;
        store.close().await;
        Ok(noted?)
    };
    // If this fails, the command still ends with the error of its read.
    let _ = context.interrupt.or(noting).await;
}
