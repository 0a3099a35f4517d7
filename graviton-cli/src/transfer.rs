//! `copy`, `repair` and `backup`: between this store and another place.
//!
//! The other store is opened only to read, so a wrong name never creates one.

use std::path::Path;
use std::time::Instant;

use graviton_core::{AsyncStore, Code, Config, CopyOptions, CopyReport, RepairReport};
use indicatif::HumanBytes;

use crate::arguments::{Backup, Copy, Repair};
use crate::context::Context;
use crate::failure::{Failure, Tally};
use crate::output::{Lines, count, json, seconds, summary};
use crate::progress::Extent;
use crate::{remove, verify};

pub(crate) async fn copy(context: &Context, arguments: &Copy) -> Result<u8, Failure> {
    let ids = remove::parse(&arguments.ids)?;
    let mut tally = Tally::default();
    let progress = context.progress("copying", Extent::Told, false);
    let mut report = None;
    let mut damaged = Vec::new();
    // Boxed: it holds the operations of two stores.
    let ended = Box::pin(with_other(context, &arguments.from, async |other| {
        let wanted = ids.len();
        let ids = verify::present(other, ids, &mut tally).await?;
        if wanted > 0 && ids.is_empty() {
            return Ok(());
        }
        let options = CopyOptions { ids };
        context
            .working(context.config.open_async(), async |store| {
                let copying = store.copy_from(other, &options, |so_far: &CopyReport| {
                    damaged.extend_from_slice(&so_far.damaged[damaged.len()..]);
                    report = Some(copy_counts(so_far));
                    progress.tell(|| copied(so_far));
                    context.interrupt.flow()
                });
                let whole = copying.await?;
                damaged.clone_from(&whole.damaged);
                report = Some(whole);
                Ok(())
            })
            .await
    }))
    .await;
    drop(progress);
    let end = report.map(|mut report| {
        report.damaged.clone_from(&damaged);
        let line = if context.json {
            summary(&report)
        } else {
            format!("copied {} in {}", copied(&report), seconds(report.seconds))
        };
        (report.complete, line)
    });
    let advice = "the copied blobs are there; run the same command again for the rest";
    finish(context, ("damaged", "id", &damaged), end, advice)?;
    ended?;
    Ok(if damaged.is_empty() { tally.exit_code() } else { Code::CorruptBlock.exit_code() })
}

/// The report without its list, which may be long and is passed on with every blob.
fn copy_counts(report: &CopyReport) -> CopyReport {
    let mut counts = CopyReport::default();
    counts.blobs = report.blobs;
    counts.present = report.present;
    counts.blocks = report.blocks;
    counts.bytes = report.bytes;
    counts.seconds = report.seconds;
    counts
}

fn copied(report: &CopyReport) -> String {
    let (blobs, blocks) = (count(report.blobs, "blob"), count(report.blocks, "block"));
    let moved = format!("{blobs}, {blocks}, {}", HumanBytes(report.bytes));
    match report.present {
        0 => moved,
        present => format!("{moved} ({} already here)", count(present, "blob")),
    }
}

pub(crate) async fn repair(context: &Context, arguments: &Repair) -> Result<u8, Failure> {
    let progress = context.progress("repairing", Extent::Told, false);
    let mut report = None;
    let mut lost = Vec::new();
    // Boxed: it holds the operations of two stores.
    let ended = Box::pin(with_other(context, &arguments.from, async |other| {
        context
            .changing(async |store| {
                let repairing = store.repair_from(other, |so_far: &RepairReport| {
                    lost.extend_from_slice(&so_far.lost[lost.len()..]);
                    report = Some(repair_counts(so_far));
                    progress.tell(|| repaired(so_far));
                    context.interrupt.flow()
                });
                let whole = repairing.await?;
                lost.clone_from(&whole.lost);
                report = Some(whole);
                Ok(())
            })
            .await
    }))
    .await;
    drop(progress);
    let end = report.map(|mut report| {
        report.lost.clone_from(&lost);
        let line = if context.json {
            summary(&report)
        } else {
            let lost = if lost.is_empty() {
                String::new()
            } else {
                format!("; {} lost: missing or damaged in the other store too", lost.len())
            };
            format!("{} in {}{lost}", repaired(&report), seconds(report.seconds))
        };
        (report.complete, line)
    });
    let advice = "the repaired blocks are intact; run the same command again for the rest";
    finish(context, ("lost", "key", &lost), end, advice)?;
    ended?;
    Ok(if lost.is_empty() { 0 } else { Code::CorruptBlock.exit_code() })
}

/// The report without its list, which may be long and is passed on with every block.
fn repair_counts(report: &RepairReport) -> RepairReport {
    let mut counts = RepairReport::default();
    counts.checked = report.checked;
    counts.repaired = report.repaired;
    counts.bytes = report.bytes;
    counts.seconds = report.seconds;
    counts
}

fn repaired(report: &RepairReport) -> String {
    format!(
        "checked {}, repaired {} ({})",
        count(report.checked, "block"),
        report.repaired,
        HumanBytes(report.bytes)
    )
}

/// Prints one line for each of `things`, and then the last line. A kind comes with the name of the JSON field
/// that holds a thing's name; the last line comes with a flag for complete work. An interruption is an error
/// with this advice, after the lines.
fn finish(
    context: &Context,
    (kind, field, things): (&str, &str, &[impl ToString]),
    end: Option<(bool, String)>,
    advice: &str,
) -> Result<(), Failure> {
    let complete = end.as_ref().is_none_or(|(complete, _)| *complete);
    let interrupted = context.interrupt.of_unfinished(complete);
    let mut lines = Lines::new(&context.interrupt);
    for thing in things {
        let name = thing.to_string();
        lines.add(&if context.json {
            json(&[("kind", kind.into()), (field, name.into())])
        } else {
            format!("{kind} {name}")
        })?;
    }
    if let Some((_, line)) = end {
        lines.add(&line)?;
    }
    lines.flush()?;
    interrupted.map_or(Ok(()), |interrupted| Err(interrupted.advising(advice)))
}

/// Runs something with the other store, opened only to read.
async fn with_other<T>(
    context: &Context,
    path: &Path,
    work: impl AsyncFnOnce(&AsyncStore) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let config = Config::for_other(path)?;
    let opening = async {
        config.open_read_only_async().await.map_err(|error| {
            let missing = error.code() == Code::NotFound;
            let error = error.within(format!("cannot use {}", path.display()));
            if missing {
                error.with_advice("name the directory of a store, or a file with its settings")
            } else {
                error
            }
        })
    };
    context.working(opening, work).await
}

pub(crate) async fn backup(context: &Context, arguments: &Backup) -> Result<u8, Failure> {
    let (to, started) = (&arguments.file, Instant::now());
    let progress = context.progress("backing up", Extent::Unknown, false);
    context.reading(async |store| store.backup(to).await.map_err(Failure::outside)).await?;
    drop(progress);
    let bytes = std::fs::metadata(to)
        .map_err(|error| Failure::io(format!("cannot look at {}", to.display()), error))?
        .len();
    let mut lines = Lines::new(&context.interrupt);
    let took = started.elapsed().as_secs_f64();
    lines.add(&if context.json {
        json(&[("file", to.to_string_lossy().into()), ("bytes", bytes.into()), ("seconds", took.into())])
    } else {
        format!("wrote {}, {}, in {}", to.display(), HumanBytes(bytes), seconds(took))
    })?;
    lines.flush()?;
    Ok(0)
}
