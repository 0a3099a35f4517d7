//! `verify`: checks that everything is there and intact. Prints a line for each finding as it is made, and a
//! summary.
//!
//! A user who may only read a store can verify it; bad blocks are then printed but not marked.

use std::ops::ControlFlow;

use graviton_core::{
    AsyncStore, BlobId, Code, Damage, Error, Finding, VerifyCursor, VerifyEvent, VerifyOptions, VerifyReport,
};
use indicatif::HumanBytes;
use serde_json::Value;

use crate::arguments::Verify;
use crate::context::Context;
use crate::failure::{Failure, Tally};
use crate::output::{Lines, count, json, seconds, summary};
use crate::progress::{Extent, Progress};
use crate::remove;

pub(crate) async fn verify(context: &Context, arguments: &Verify) -> Result<u8, Failure> {
    let ids = remove::parse(&arguments.ids)?;
    let from = arguments.from.as_deref().map(str::parse::<VerifyCursor>).transpose()?;
    let mut listener = Listener::new(context);
    let mut tally = Tally::default();
    let ended = context
        .working(open(context, arguments), async |store| {
            let wanted = ids.len();
            let ids = present(store, ids, &mut tally).await?;
            if wanted > 0 && ids.is_empty() {
                return Ok(());
            }
            let options = VerifyOptions {
                deep: arguments.deep,
                ids,
                bytes_per_second: arguments.rate,
                from,
                adopt: arguments.adopt,
                rebuild: arguments.rebuild,
            };
            let report = store.verify(&options, |event| listener.hear(event)).await?;
            listener.report = Some(report);
            Ok(())
        })
        .await;
    drop(std::mem::replace(&mut listener.progress, Progress::none()));
    listener.lines.flush()?;
    listener.failed.take().map_or(Ok(()), Err)?;
    let interrupted = context.interrupt.of_unfinished(!listener.told_to_end);
    let stopped = interrupted.is_some() || ended.is_err();
    if let Some(report) = &listener.report {
        print(context, report, arguments.deep, stopped)?;
    }
    let damaged = listener.report.as_ref().is_some_and(|report| !report.is_clean());
    if let Some(interrupted) = interrupted {
        let cursor = listener.report.and_then(|report| report.cursor);
        return Err(interrupted.advising(match cursor {
            Some(cursor) => format!("continue with --from {cursor}"),
            None => "run the same command again".to_owned(),
        }));
    }
    ended?;
    Ok(if damaged { Code::CorruptBlock.exit_code() } else { tally.exit_code() })
}

/// Opens the store for writing, so that bad blocks are marked, or only to read if the user may not write.
async fn open(context: &Context, arguments: &Verify) -> Result<AsyncStore, Error> {
    let config = context.config.clone().adopt(arguments.adopt).take_over(arguments.take_over);
    match config.open_existing_async().await {
        Err(error) if error.code() == Code::Forbidden && !arguments.take_over && !arguments.rebuild => {
            context.config.open_read_only_async().await
        }
        opened => opened,
    }
}

/// The blobs that exist; missing ones are reported.
pub(crate) async fn present(
    store: &AsyncStore,
    ids: Vec<BlobId>,
    tally: &mut Tally,
) -> Result<Vec<BlobId>, Failure> {
    let mut present = Vec::with_capacity(ids.len());
    for id in ids {
        match store.stat(&id).await {
            Ok(_) => present.push(id),
            Err(error) if error.code() == Code::NotFound => tally.report(&error.into()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(present)
}

/// Receives findings and prints them.
struct Listener<'a> {
    context: &'a Context,
    lines: Lines,
    progress: Progress,
    report: Option<VerifyReport>,
    told_to_end: bool,
    failed: Option<Failure>,
}

impl Listener<'_> {
    fn new(context: &Context) -> Listener<'_> {
        Listener {
            context,
            lines: Lines::new(&context.interrupt),
            progress: context.progress("verifying", Extent::Told, false),
            report: None,
            told_to_end: false,
            failed: None,
        }
    }

    fn hear(&mut self, event: VerifyEvent<'_>) -> ControlFlow<()> {
        let printed = match event {
            VerifyEvent::Found(finding) => self.add(&finding),
            VerifyEvent::Progress(report) => {
                self.report = Some(report.clone());
                self.progress.tell(|| amount(report));
                let lines = &mut self.lines;
                if lines.is_waiting() { self.progress.pause(|| lines.flush()) } else { Ok(()) }
            }
        };
        self.failed = printed.err();
        let flow = if self.failed.is_some() { ControlFlow::Break(()) } else { self.context.interrupt.flow() };
        self.told_to_end |= flow.is_break();
        flow
    }

    fn add(&mut self, finding: &Finding) -> Result<(), Failure> {
        if self.context.json {
            return self.lines.add(&as_json(finding));
        }
        match finding {
            Finding::Block { key, damage, blobs } => {
                self.lines.add(&match damage {
                    Damage::Missing => format!("missing {key}"),
                    Damage::WrongLength { length } => format!("corrupt {key} (it has {length} bytes)"),
                    Damage::Corrupt => format!("corrupt {key}"),
                })?;
                for blob in blobs {
                    self.lines.add(&format!("  in blob {blob}"))?;
                }
                Ok(())
            }
            Finding::Manifest { id, why } => self.lines.add(&format!("manifest {id}: {why}")),
            Finding::Database(why) => self.lines.add(&format!("database: {why}")),
            Finding::Unreferenced(listed) => self.lines.add(&format!("unreferenced {}", listed.key)),
            Finding::Pack { name, bytes } => {
                self.lines.add(&format!("unreferenced pack {name} ({bytes} bytes)"))
            }
            Finding::Record { pack, offset, key, why } => {
                let of = key.map(|key| format!(" (of {key})")).unwrap_or_default();
                self.lines.add(&format!("unusable record at {offset} of pack {pack}{of}: {why}"))
            }
            other => self.lines.add(&format!("{other:?}")),
        }
    }
}

fn as_json(finding: &Finding) -> String {
    match finding {
        Finding::Block { key, damage, blobs } => {
            let kind = if *damage == Damage::Missing { "missing" } else { "corrupt" };
            let length = match damage {
                Damage::Missing => Value::Null,
                Damage::WrongLength { length } => (*length).into(),
                Damage::Corrupt => key.size().into(),
            };
            let blobs: Vec<String> = blobs.iter().map(BlobId::to_string).collect();
            json(&[
                ("kind", kind.into()),
                ("key", key.to_string().into()),
                ("length", length),
                ("blobs", blobs.into()),
            ])
        }
        Finding::Manifest { id, why } => {
            json(&[("kind", "manifest".into()), ("id", id.to_string().into()), ("why", why.as_str().into())])
        }
        Finding::Database(why) => json(&[("kind", "database".into()), ("why", why.as_str().into())]),
        Finding::Unreferenced(listed) => json(&[
            ("kind", "unreferenced".into()),
            ("key", listed.key.to_string().into()),
            ("length", listed.length.into()),
        ]),
        Finding::Pack { name, bytes } => {
            json(&[("kind", "pack".into()), ("name", name.to_string().into()), ("length", (*bytes).into())])
        }
        Finding::Record { pack, offset, key, why } => json(&[
            ("kind", "record".into()),
            ("name", pack.to_string().into()),
            ("offset", (*offset).into()),
            ("key", key.map(|key| key.to_string()).into()),
            ("why", why.as_str().into()),
        ]),
        other => json(&[("kind", "other".into()), ("why", format!("{other:?}").into())]),
    }
}

fn amount(report: &VerifyReport) -> String {
    let looked = format!("{}, {}", count(report.blobs, "blob"), count(report.blocks, "block"));
    if report.bytes == 0 { looked } else { format!("{looked}, {}", HumanBytes(report.bytes)) }
}

fn print(context: &Context, report: &VerifyReport, deep: bool, stopped: bool) -> Result<(), Failure> {
    let mut lines = Lines::new(&context.interrupt);
    let cursor = report.cursor.as_ref().filter(|_| stopped);
    if context.json {
        lines.add(&summary(report))?;
        return lines.flush();
    }
    let found: Vec<String> = [
        (report.missing, "missing block"),
        (report.corrupt, "corrupt block"),
        (report.broken_manifests, "broken manifest"),
        (report.database_problems, "problem of the database"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, what)| count(number, what))
    .collect();
    let found = match (found.is_empty(), report.complete) {
        (true, true) => "no damage".to_owned(),
        (true, false) => "no damage so far".to_owned(),
        (false, _) => found.join(", "),
    };
    let how = if deep { "every byte of " } else { "" };
    lines.add(&format!("verified {how}{} in {}: {found}", amount(report), seconds(report.seconds)))?;
    if report.rebuilt > 0 {
        lines.add(&format!(
            "rebuilt {} ({}) from packs",
            count(report.rebuilt, "block"),
            HumanBytes(report.rebuilt_bytes)
        ))?;
    }
    if report.unreferenced > 0 {
        lines.add(&format!(
            "{} ({}) that no blob needs: of running puts, or garbage that verify --adopt hands to gc",
            count(report.unreferenced, "block"),
            HumanBytes(report.unreferenced_bytes)
        ))?;
    }
    if let Some(cursor) = cursor {
        lines.add(&format!("cursor {cursor}"))?;
    }
    lines.flush()
}
