//! `rm` and `restore`: delete blobs, and bring them back as long as no collection has taken them.
//!
//! Ids are parsed before anything is done. An id that is not found is an error of its own, and the other
//! blobs are still processed.

use graviton_core::{AsyncStore, BlobId, Code, Error};

use crate::context::Context;
use crate::failure::{Failure, Tally};
use crate::output::{Lines, json};

pub(crate) async fn remove(context: &Context, ids: &[String]) -> Result<u8, Failure> {
    each(context, ids, "deleted", async |store, id| store.delete(id).await).await
}

pub(crate) async fn restore(context: &Context, ids: &[String]) -> Result<u8, Failure> {
    each(context, ids, "live", async |store, id| store.restore(id).await).await
}

pub(crate) fn parse(ids: &[String]) -> Result<Vec<BlobId>, Error> {
    ids.iter().map(|id| id.parse()).collect()
}

async fn each(
    context: &Context,
    ids: &[String],
    state: &str,
    change: impl AsyncFn(&AsyncStore, &BlobId) -> Result<(), Error>,
) -> Result<u8, Failure> {
    let ids = parse(ids)?;
    let mut lines = Lines::new(&context.interrupt);
    let mut tally = Tally::default();
    context
        .changing(async |store| {
            for id in ids {
                context.interrupt.check()?;
                match change(store, &id).await {
                    Ok(()) => {
                        let id = id.to_string();
                        lines.add(&if context.json {
                            json(&[("id", id.into()), ("state", state.into())])
                        } else {
                            id
                        })?;
                        // A printed id is final, even if a later one fails.
                        lines.flush()?;
                    }
                    Err(error) if error.code() == Code::NotFound => tally.report(&error.into()),
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })
        .await?;
    Ok(tally.exit_code())
}
