//! `gc`: deletes blocks that nothing refers to or, with `--dry-run`, prints them.

use std::ops::ControlFlow;
use std::time::Duration;

use graviton_core::{AsyncStore, GcOptions, GcReport};
use indicatif::HumanBytes;

use crate::arguments::Collect;
use crate::context::{Context, Tell};
use crate::failure::Failure;
use crate::output::{Lines, count, json, seconds, summary};
use crate::progress::Extent;

pub(crate) async fn collect(context: &Context, arguments: &Collect) -> Result<u8, Failure> {
    let options = GcOptions {
        grace: arguments.grace,
        dry_run: arguments.dry_run,
        max_time: arguments.max_seconds.map(Duration::from_secs),
        max_blocks: arguments.max_blocks,
        max_bytes: arguments.max_bytes,
        blocks_per_second: arguments.blocks_per_second,
    };
    if options.dry_run {
        let progress = context.progress("planning", Extent::Unknown, false);
        let plan = context
            .reading(async |store| Ok(store.gc(&options, |_| ControlFlow::Continue(())).await?))
            .await?;
        drop(progress);
        print_plan(context, &plan)?;
        return Ok(0);
    }
    let run = async |store: &AsyncStore, tell: &mut Tell<'_, GcReport>| store.gc(&options, tell).await;
    let (report, ended) = context.reporting("collecting", amount, run).await;
    let complete = report.as_ref().is_some_and(|report| report.complete);
    let interrupted = context.interrupt.of_unfinished(complete);
    if let Some(report) = report {
        let has_limit = options.max_time.is_some() || options.max_blocks.or(options.max_bytes).is_some();
        print(context, &report, has_limit && interrupted.is_none() && ended.is_ok())?;
    }
    if let Some(interrupted) = interrupted {
        return Err(interrupted.advising("the next gc continues from there"));
    }
    ended.map(|()| 0)
}

fn amount(report: &GcReport) -> String {
    format!(
        "{}, {}, {}",
        count(report.blobs, "blob"),
        count(report.blocks, "block"),
        HumanBytes(report.bytes)
    )
}

fn print_plan(context: &Context, plan: &GcReport) -> Result<(), Failure> {
    let mut lines = Lines::new(&context.interrupt);
    for id in &plan.named {
        let id = id.to_string();
        lines.add(&if context.json {
            json(&[("kind", "blob".into()), ("id", id.into())])
        } else {
            format!("would delete {id}")
        })?;
    }
    if context.json {
        lines.add(&summary(plan))?;
    } else {
        let unnamed = plan.blobs.saturating_sub(plan.named.len() as u64);
        if unnamed > 0 {
            lines.add(&format!("would delete {unnamed} more, including leftovers of failed puts"))?;
        }
        lines.add(&format!("would free {}", amount(plan)))?;
    }
    lines.flush()
}

fn print(context: &Context, report: &GcReport, limited: bool) -> Result<(), Failure> {
    let mut lines = Lines::new(&context.interrupt);
    if context.json {
        lines.add(&summary(report))?;
    } else {
        for line in text(report, limited) {
            lines.add(&line)?;
        }
    }
    lines.flush()
}

/// `limited`: if something is left, a limit of the command line may be the reason.
fn text(report: &GcReport, limited: bool) -> Vec<String> {
    let mut lines = vec![format!("freed {} in {}", amount(report), seconds(report.seconds))];
    for (number, what, why) in [
        (report.abandoned_puts, "put", "abandoned: its process is gone"),
        (report.kept_referenced, "block", "kept: still needed by other blobs"),
        (
            report.kept_doomed,
            "block",
            "kept: a deletion is under way or got no answer; run gc again in half an hour",
        ),
        (report.kept_failed, "block", "kept: could not be deleted; the next gc tries again"),
        (report.leftovers, "file", "removed: left by a dead process"),
        (report.future_times, "time", "brought back from the future: a clock was ahead"),
    ] {
        if number > 0 {
            lines.push(format!("{} {why}", count(number, what)));
        }
    }
    // If the whole collection failed, its error is printed on standard error instead.
    if !report.failure.is_empty() && report.blocks > 0 {
        lines.push(format!("why the first block was kept: {}", report.failure));
    }
    if report.unreferenced > 0 {
        lines.push(format!(
            "{} ({}) that the database does not know: of running puts, or left by killed ones; \
             graviton verify --adopt hands them to the next gc",
            count(report.unreferenced, "file"),
            HumanBytes(report.unreferenced_bytes)
        ));
    }
    if !report.complete && limited {
        lines.push("stopped by a limit; the next gc continues from there".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_that_could_not_delete_some_blocks_speaks_of_no_limit() {
        let mut report = GcReport::default();
        (report.blocks, report.kept_failed) = (30, 32);
        report.failure = "permission denied".to_owned();
        let lines = text(&report, false);
        assert_eq!(lines[1], "32 blocks kept: could not be deleted; the next gc tries again");
        assert_eq!(lines[2..], ["why the first block was kept: permission denied"]);
        report.kept_failed = 0;
        report.failure.clear();
        assert_eq!(text(&report, true)[1..], ["stopped by a limit; the next gc continues from there"]);
    }
}
