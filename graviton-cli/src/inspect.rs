//! `stat`, `ls`, `manifest` and `stats`: the contents of the store, for people or as one JSON object per
//! line.
//!
//! Listings of any length are read and printed a page at a time.

use std::io::Write;

use graviton_core::report::{self, Report};
use graviton_core::{BlobId, BlobStat, Code, Error, NEARLY_FULL_DIRECTORY};
use indicatif::HumanBytes;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Lines, fields, json, rfc3339};
use crate::progress::Extent;

const PAGE: usize = 1000;

const WARNING: &str = "\
warning: a directory of blocks is nearly full, however much space is free
  help: let ext4 make its index larger (tune2fs -O large_dir, on the unmounted filesystem), use another filesystem, or \
larger blocks (GRAVITON_CHUNKER)
";

pub(crate) async fn stat(context: &Context, id: &str) -> Result<(), Failure> {
    let id: BlobId = id.parse()?;
    let stat = context.reading(async |store| Ok(store.stat(&id).await?)).await?;
    let mut lines = Lines::new(&context.interrupt);
    if context.json {
        lines.add(&stat_as_json(&stat))?;
    } else {
        lines.add(&format!("id       {}", stat.id))?;
        lines.add(&format!("size     {}", bytes_in_words(stat.id.size())))?;
        lines.add(&format!("blocks   {}", stat.blocks))?;
        lines.add(&format!("chunker  {}", stat.chunker))?;
        lines.add(&format!("created  {}", rfc3339(stat.created_at_ms)))?;
    }
    lines.flush()
}

pub(crate) async fn list(context: &Context, after: Option<&str>, limit: Option<u64>) -> Result<(), Failure> {
    let mut after: Option<BlobId> = after.map(str::parse).transpose()?;
    let mut left = limit.unwrap_or(u64::MAX);
    let mut lines = Lines::new(&context.interrupt);
    context
        .reading(async |store| {
            while left > 0 && !lines.closed() {
                let wanted = usize::try_from(left).unwrap_or(PAGE).min(PAGE);
                let page = store.list(after.as_ref(), wanted).await?;
                for stat in &page {
                    lines.add(&if context.json { stat_as_json(stat) } else { stat_as_line(stat) })?;
                }
                lines.flush()?;
                if page.len() < wanted {
                    break;
                }
                left -= page.len() as u64;
                after = page.last().map(|stat| stat.id);
            }
            Ok(())
        })
        .await
}

pub(crate) async fn manifest(context: &Context, id: &str) -> Result<(), Failure> {
    let id: BlobId = id.parse()?;
    let mut lines = Lines::new(&context.interrupt);
    let width = id.size().to_string().len();
    context
        .reading(async |store| {
            let mut end = 0;
            loop {
                let page = store.manifest(&id, end, PAGE).await?;
                for entry in &page {
                    if entry.offset != end {
                        return Err(hole(&id, end).into());
                    }
                    end = entry.end();
                    let (offset, size, key) = (entry.offset, entry.key.size(), entry.key);
                    lines.add(&if context.json {
                        json(&[
                            ("offset", offset.into()),
                            ("size", size.into()),
                            ("key", key.to_string().into()),
                        ])
                    } else {
                        format!("{offset:>width$}  {size:>8}  {key}")
                    })?;
                }
                lines.flush()?;
                if lines.closed() || end >= id.size() {
                    return Ok(());
                }
                if page.is_empty() {
                    return Err(hole(&id, end).into());
                }
            }
        })
        .await
}

fn hole(id: &BlobId, offset: u64) -> Error {
    let message =
        format!("the manifest of blob {id} has a gap at byte {offset}: a row was removed or changed");
    Error::new(Code::MissingBlock, message)
        .with_advice("restore the database from a backup, or put the blob again")
}

pub(crate) async fn stats(context: &Context) -> Result<(), Failure> {
    let waiting = context.progress("counting", Extent::Unknown, false);
    let stats = context.reading(async |store| Ok(store.stats().await?)).await?;
    drop(waiting);
    let mut lines = Lines::new(&context.interrupt);
    if context.json {
        lines.add(&json(&fields(&stats)))?;
    } else {
        for (field, value) in stats.entries() {
            let text = match value {
                report::Value::Bytes(bytes) => bytes_in_words(bytes),
                report::Value::Ratio(ratio) => format!("{ratio:.2}"),
                report::Value::Count(number) => number.to_string(),
                other => format!("{other:?}"),
            };
            lines.add(&format!("{:<19}{text}", field.name.replace('_', " ")))?;
        }
    }
    lines.flush()?;
    if stats.directory_share >= NEARLY_FULL_DIRECTORY {
        // If standard error is closed, nobody reads it.
        let _ = std::io::stderr().write_all(WARNING.as_bytes());
    }
    Ok(())
}

fn stat_as_json(stat: &BlobStat) -> String {
    json(&fields(stat))
}

/// The id comes first, for `cut`. The rest is for people, in columns for sizes of up to ten digits.
fn stat_as_line(stat: &BlobStat) -> String {
    let (id, created) = (stat.id.to_string(), rfc3339(stat.created_at_ms));
    let size = HumanBytes(stat.id.size()).to_string();
    let blocks = format!("{} block{}", stat.blocks, if stat.blocks == 1 { "" } else { "s" });
    format!("{id:<82}  {size:>11}  {blocks:>12}  {created}  {}", stat.chunker)
}

fn bytes_in_words(bytes: u64) -> String {
    if bytes < 1024 { bytes.to_string() } else { format!("{bytes} ({})", HumanBytes(bytes)) }
}
