//! `repack`: the blocks of a store move into packs, or out of them.

use graviton_core::{AsyncStore, Code, RepackReport};
use indicatif::HumanBytes;

use crate::arguments::Repack;
use crate::context::{Context, Tell};
use crate::failure::Failure;
use crate::output::{Lines, count, seconds, summary};

pub(crate) async fn repack(context: &Context, arguments: &Repack) -> Result<u8, Failure> {
    let line = |so_far: &RepackReport| format!("{}, {} to go", moved(so_far), so_far.remaining);
    let run =
        async |store: &AsyncStore, tell: &mut Tell<'_, RepackReport>| store.repack(arguments.to, tell).await;
    let (report, ended) = context.reporting("repacking", line, run).await;
    let complete = report.as_ref().is_some_and(|report| report.complete);
    let interrupted = context.interrupt.of_unfinished(complete);
    let damaged = report.as_ref().is_some_and(|report| report.damaged > 0);
    if let Some(report) = report {
        print(context, &report, interrupted.is_none() && ended.is_ok())?;
    }
    if let Some(interrupted) = interrupted {
        return Err(interrupted.advising("run the same command again for the rest"));
    }
    ended?;
    Ok(if damaged { Code::CorruptBlock.exit_code() } else { 0 })
}

fn moved(report: &RepackReport) -> String {
    format!("{}, {}", count(report.blocks, "block"), HumanBytes(report.bytes))
}

/// `ended`: the repack was not interrupted.
fn print(context: &Context, report: &RepackReport, ended: bool) -> Result<(), Failure> {
    let mut lines = Lines::new(&context.interrupt);
    if context.json {
        lines.add(&summary(report))?;
        return lines.flush();
    }
    lines.add(&format!("moved {} in {}", moved(report), seconds(report.seconds)))?;
    for (number, what, why) in [
        (report.present, "block", "already there"),
        (report.damaged, "block", "damaged: put the content again, or run repair"),
        (report.leftovers, "file", "removed: left by an earlier repack"),
        (report.kept_failed, "file", "kept: it could not be removed; run gc, in S3 half an hour later"),
    ] {
        if number > 0 {
            lines.add(&format!("{} {why}", count(number, what)))?;
        }
    }
    if !report.failure.is_empty() {
        lines.add(&format!("why the first file was kept: {}", report.failure))?;
    }
    if report.remaining > 0 && ended {
        let left = count(report.remaining, "block");
        lines.add(&format!("{left} left: in use by a put, put meanwhile, or being deleted; run it again"))?;
    }
    lines.flush()
}
