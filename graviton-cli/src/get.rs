//! `get`: a blob, or a part of it, to standard output or to a file.
//!
//! The blob is found before the destination is touched. Blocks are written from the memory in which they were
//! verified. If the reader closes the pipe early, that is success.

use graviton_core::{BlobId, BlobReader, Code, Error};

use crate::arguments::Get;
use crate::context::Context;
use crate::damage;
use crate::destination::Destination;
use crate::failure::Failure;
use crate::output::Reader;
use crate::progress::Extent;
use graviton_core::ByteRange;

pub(crate) async fn get(context: &Context, arguments: Get) -> Result<(), Failure> {
    let id: BlobId = arguments.id.parse()?;
    let mut ended_at = 0;
    let result = context
        .reading(async |store| {
            let mut reader = store.reader(&id).await?;
            let range = arguments.range.unwrap_or(ByteRange::Suffix(u64::MAX));
            let range = range.of(id.size()).ok_or_else(|| not_satisfiable(&id))?;
            reader.seek(range.start);
            reader.limit(range.end);
            let destination = Destination::open(arguments.output.as_deref())?;
            let copied = copy(context, &mut reader, range.end - range.start, &destination).await;
            ended_at = reader.position();
            copied?;
            destination.finish()
        })
        .await;
    if result.as_ref().is_err_and(Failure::is_damage) {
        damage::note(context, &id, ended_at).await;
    }
    result
}

async fn copy(
    context: &Context,
    reader: &mut BlobReader,
    mut left: u64,
    destination: &Destination,
) -> Result<(), Failure> {
    let progress = context.progress("reading", Extent::Bytes(left), destination.is_stdout());
    while left > 0 {
        let Some(bytes) = reader.next().await? else { break };
        if destination.write(&bytes, &context.interrupt)? == Reader::Gone {
            break;
        }
        context.interrupt.check()?;
        left -= bytes.len() as u64;
        progress.add(bytes.len() as u64);
    }
    Ok(())
}

fn not_satisfiable(id: &BlobId) -> Error {
    Error::new(Code::RangeNotSatisfiable, format!("blob {id} has no bytes in that range"))
        .with_advice(format!("it has {} bytes, counted from 0", id.size()))
}
