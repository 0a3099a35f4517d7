//! `put`: many files at once, their ids in the order in which they were given.
//!
//! Commits that come together share a transaction and a sync, so many small files are in flight at once;
//! what bounds them is memory and open files. Streams use a window of memory each, so only a few run.
//! Workers take sources in order and send results, which wait here for their turn. A line is written only
//! after its blob is committed, and as soon as every earlier one is settled; lines that are ready at the
//! same moment are one write.
//!
//! A reader of the ids that goes away does not end the storing, which is what was asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use graviton_core::{AsyncStore, BlobId, Code, Error, PutOptions, PutReceipt};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::arguments::Put;
use crate::context::Context;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::{Lines, fields, json};
use crate::progress::{Extent, Progress};
use crate::source::{Kind, Source};

/// Small files in flight, and their bytes.
const SMALL_AT_ONCE: usize = 512;
const SMALL_BYTES_AT_ONCE: usize = 32 << 20;

/// Streams in flight: each may use 64 MiB.
const STREAMS_AT_ONCE: usize = 2;

/// The unit in which memory is counted, and what a file takes beside its bytes.
const PAGE: usize = 4 << 10;
const PAGES_OF_A_FILE: usize = 4;

type Outcome = Result<Stored, Failure>;

struct Stored {
    receipt: PutReceipt,
    elapsed: Duration,
}

/// Stores what the arguments name; the exit code.
pub(crate) async fn put(context: &Context, arguments: Put) -> Result<u8, Failure> {
    let expected = arguments.expect.as_deref().map(str::parse::<BlobId>).transpose()?;
    let mut report = Report::new(context, &arguments.paths);
    let mut sources = Vec::new();
    for (index, path) in arguments.paths.iter().enumerate() {
        match Source::look(path) {
            Ok(source) => sources.push((index, source)),
            Err(failure) => report.outcomes[index] = Some(Err(failure)),
        }
    }
    if sources.is_empty() {
        // A store is not created for nothing.
        report.print_what_is_settled()?;
        report.lines.flush()?;
        return Ok(report.exit_code);
    }
    let total: Option<u64> = sources.iter().map(|(_, source)| source.size()).sum();
    report.progress =
        Arc::new(context.progress("storing", total.map_or(Extent::OpenEnd, Extent::Bytes), false));
    let opening = async { context.config.open_async().await.map_err(Failure::outside) };
    let store = context.interrupt.or(opening).await?;
    let (results, settled) = mpsc::unbounded_channel();
    let workers = Workers::start(
        Work {
            store: store.clone(),
            expected,
            interrupt: context.interrupt.clone(),
            progress: Arc::clone(&report.progress),
            memory: Semaphore::new(SMALL_BYTES_AT_ONCE / PAGE),
            small: Queue::default(),
            streams: Queue::default(),
            results,
        },
        sources,
    );
    let result = context.interrupt.or(report.receive(settled)).await;
    if result.is_err() {
        workers.stop().await;
    }
    store.close().await;
    result.map(|()| report.exit_code)
}

/// What the workers share.
struct Work {
    store: AsyncStore,
    expected: Option<BlobId>,
    interrupt: Interrupt,
    progress: Arc<Progress>,
    /// In pages.
    memory: Semaphore,
    small: Queue,
    streams: Queue,
    results: mpsc::UnboundedSender<(usize, Outcome)>,
}

/// Sources of one kind with their places among the arguments, taken in order.
#[derive(Default)]
struct Queue {
    sources: Vec<(usize, Source)>,
    taken: AtomicUsize,
}

impl Queue {
    fn take(&self) -> Option<(usize, &Source)> {
        let (index, source) = self.sources.get(self.taken.fetch_add(1, Ordering::Relaxed))?;
        Some((*index, source))
    }
}

impl Work {
    /// Stores small files until there are no more.
    async fn store_small(self: Arc<Self>) {
        let options = PutOptions::new().expect(self.expected);
        while let Some((index, source)) = self.small.take() {
            let size = source.size().unwrap_or(0);
            let pages = size as usize / PAGE + PAGES_OF_A_FILE;
            // Never closed, so never without a permit.
            let _memory = self.memory.acquire_many(pages as u32).await;
            let started = Instant::now();
            let put = self.store.put_with(&options).file(&source.path).await;
            self.progress.add(size);
            self.send(index, source, put.map_err(Failure::outside), started);
        }
    }

    /// Stores streams until there are no more. Blocks its thread.
    fn store_streams(&self, runtime: &Handle) {
        while let Some((index, source)) = self.streams.take() {
            let started = Instant::now();
            let put = source.stream(&self.store, self.expected.as_ref(), &self.interrupt, &self.progress);
            self.send(index, source, runtime.block_on(put), started);
        }
    }

    fn send(&self, index: usize, source: &Source, put: Result<PutReceipt, Failure>, started: Instant) {
        let outcome = match put {
            Ok(receipt) => Ok(Stored { receipt, elapsed: started.elapsed() }),
            // With an expected id there is only one path, and the error names the id.
            Err(failure) if self.expected.is_some() => Err(failure),
            Err(failure) => Err(failure.naming(&source.path)),
        };
        // Without a receiver, the command has failed already.
        let _ = self.results.send((index, outcome));
    }
}

/// The workers, which hold the only senders of results.
struct Workers {
    small: JoinSet<()>,
    streams: JoinSet<()>,
}

impl Workers {
    fn start(mut work: Work, sources: Vec<(usize, Source)>) -> Workers {
        for (index, source) in sources {
            let queue =
                if matches!(source.kind, Kind::Small(_)) { &mut work.small } else { &mut work.streams };
            queue.sources.push((index, source));
        }
        let small_at_once = work.small.sources.len().min(files_at_once());
        let streams_at_once = work.streams.sources.len().min(STREAMS_AT_ONCE);
        let work = Arc::new(work);
        let mut workers = Workers { small: JoinSet::new(), streams: JoinSet::new() };
        for _ in 0..small_at_once {
            workers.small.spawn(Arc::clone(&work).store_small());
        }
        for _ in 0..streams_at_once {
            let (work, runtime) = (Arc::clone(&work), Handle::current());
            workers.streams.spawn_blocking(move || work.store_streams(&runtime));
        }
        workers
    }

    /// Ends small puts where they are, and waits until streams have seen the interrupt.
    async fn stop(mut self) {
        self.small.shutdown().await;
        while self.streams.join_next().await.is_some() {}
    }
}

/// Small files in flight: each is open, and so are the blocks made of it.
fn files_at_once() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(SMALL_AT_ONCE, |limit| (limit / 4).clamp(4, SMALL_AT_ONCE as u64) as usize)
}

/// Outcomes in the order of the arguments: lines on standard output, errors on standard error.
struct Report<'a> {
    paths: &'a [PathBuf],
    json: bool,
    /// What is not printed yet.
    outcomes: Vec<Option<Outcome>>,
    printed: usize,
    lines: Lines,
    progress: Arc<Progress>,
    exit_code: u8,
}

impl Report<'_> {
    fn new<'a>(context: &Context, paths: &'a [PathBuf]) -> Report<'a> {
        Report {
            paths,
            json: context.json,
            outcomes: paths.iter().map(|_| None).collect(),
            printed: 0,
            lines: Lines::new(&context.interrupt),
            progress: Arc::new(Progress::none()),
            exit_code: 0,
        }
    }

    /// Prints results as they come until there are no more.
    async fn receive(
        &mut self,
        mut results: mpsc::UnboundedReceiver<(usize, Outcome)>,
    ) -> Result<(), Failure> {
        self.print_what_is_settled()?;
        loop {
            let result = if let Ok(result) = results.try_recv() {
                Some(result)
            } else {
                self.flush()?;
                results.recv().await
            };
            let Some((index, outcome)) = result else { break };
            self.outcomes[index] = Some(outcome);
            self.print_what_is_settled()?;
        }
        if self.printed < self.paths.len() {
            let message = format!("the put of {} ended without a result", self.paths[self.printed].display());
            return Err(Error::new(Code::Internal, message)
                .with_advice("please report this as a bug")
                .into());
        }
        Ok(())
    }

    fn print_what_is_settled(&mut self) -> Result<(), Failure> {
        while let Some(outcome) = self.outcomes.get_mut(self.printed).and_then(Option::take) {
            match outcome {
                Ok(stored) => {
                    let line = self.line(&self.paths[self.printed], &stored);
                    self.lines.add(&line)?;
                }
                Err(failure) => {
                    self.flush()?;
                    self.progress.pause(|| failure.report());
                    // Of several, no single code says more than that not all went well.
                    self.exit_code = if self.paths.len() == 1 { failure.exit_code() } else { 1 };
                }
            }
            self.printed += 1;
        }
        Ok(())
    }

    fn line(&self, path: &Path, stored: &Stored) -> String {
        let receipt = &stored.receipt;
        if !self.json {
            return receipt.id.to_string();
        }
        // Microseconds are as exact as it makes sense.
        let seconds = stored.elapsed.as_micros() as f64 / 1e6;
        let mut line = vec![("path", path.to_string_lossy().into())];
        // A receipt has no `created` here: `fresh_blocks` is what people ask for.
        line.extend(fields(receipt).into_iter().filter(|(name, _)| *name != "created"));
        line.push(("seconds", seconds.into()));
        json(&line)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if !self.lines.is_waiting() {
            return Ok(());
        }
        let lines = &mut self.lines;
        self.progress.pause(|| lines.flush())
    }
}
