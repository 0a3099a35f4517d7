//! `put`: many files at once, their ids in the order of the arguments.
//!
//! Commits that arrive together share a transaction and a sync, so many small files are in flight at once;
//! memory and open files bound their number. A few threads read them, one file after the other: to hand each
//! file to a thread of the store takes longer than to read it. Long files use a window of memory each, so
//! only a few run. All pipes run at once: a program that feeds several of them would wait for ever for one
//! that is not read. Each stream has a thread of its own, because the store's threads must not wait for each
//! other.
//!
//! Workers take sources in order and send results, which wait here for their turn. A line is written only
//! after its blob is committed, and as soon as every earlier one is settled; lines that are ready at the same
//! moment are one write. With `--json`, where each line names its path, no line waits for another.
//!
//! However the run ends, the lines of all committed blobs are written: workers that were asked to end have a
//! moment to finish their commits.
//!
//! If the reader of the ids closes the pipe, storing continues.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use graviton_core::{AsyncStore, BlobId, Code, Error, PutOptions, PutReceipt};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::arguments::Put;
use crate::context::Context;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::{Lines, fields, json};
use crate::progress::{Extent, Progress};
use crate::source::{Kind, Source};

/// Threads that read small files: enough to keep a disk busy.
const READERS: usize = 8;

/// Small files in flight, and their bytes. A batch writes each page of an index of the database once, however
/// many of its blobs are there.
const SMALL_AT_ONCE: usize = 2_048;
const SMALL_BYTES_AT_ONCE: usize = 32 << 20;

/// Long files in flight: each may use 64 MiB.
const LARGE_AT_ONCE: usize = 2;

/// Pipes, devices and standard input; all of them are in flight.
const MOST_PIPES: usize = 64;

/// Memory of each stream, and memory that streams share if many are in flight.
const SMALL_WINDOW: usize = 8 << 20;
const SHARED_WINDOW: usize = 64 << 20;

/// The time that workers have to end. A stream can be stuck in a system call, and then the process does not
/// wait for it.
const MOMENT: Duration = Duration::from_secs(2);

/// The unit in which memory is counted, and the overhead of a file beside its bytes.
const PAGE: usize = 4 << 10;
const PAGES_OF_A_FILE: usize = 4;

type Outcome = Result<Stored, Failure>;

struct Stored {
    receipt: PutReceipt,
    elapsed: Duration,
}

/// Stores the paths in the arguments. Returns the exit code.
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
        // If no source is usable, no store is created.
        report.print_what_is_settled()?;
        report.lines.flush()?;
        return Ok(report.exit_code);
    }
    let pipes = sources.iter().filter(|(_, source)| source.size().is_none()).count();
    if pipes > MOST_PIPES {
        let message =
            format!("cannot put {pipes} pipes at once: at most {MOST_PIPES} are read beside each other");
        let error = Error::new(Code::InvalidArgument, message);
        return Err(error.with_advice("put some of them with another command").into());
    }
    let total: Option<u64> = sources.iter().map(|(_, source)| source.size()).sum();
    report.progress =
        Arc::new(context.progress("storing", total.map_or(Extent::OpenEnd, Extent::Bytes), false));
    let mut config = context.config.clone();
    if pipes > LARGE_AT_ONCE {
        config = config.put_window(SMALL_WINDOW).shared_put_window(SHARED_WINDOW);
    }
    let opening = async { config.open_async().await.map_err(Failure::outside) };
    let store = context.interrupt.or(opening).await?;
    let (results, mut settled) = mpsc::unbounded_channel();
    let workers = Workers::start(
        Work {
            store: store.clone(),
            expected,
            interrupt: context.interrupt.clone(),
            progress: Arc::clone(&report.progress),
            files: Arc::new(Semaphore::new(files_at_once())),
            memory: Arc::new(Semaphore::new(SMALL_BYTES_AT_ONCE / PAGE)),
            small: Queue::default(),
            large: Queue::default(),
            pipes: Queue::default(),
            ending: Arc::default(),
            results,
        },
        sources,
    )?;
    let result = context.interrupt.or(report.receive(&mut settled)).await;
    if result.is_err() {
        workers.stop().await;
        // If this fails, the run has still ended for another reason.
        let _ = report.print_what_was_committed(&mut settled);
    }
    store.close().await;
    result.map(|()| report.exit_code)
}

/// The state that the workers share.
struct Work {
    store: AsyncStore,
    expected: Option<BlobId>,
    interrupt: Interrupt,
    progress: Arc<Progress>,
    /// Small files that may still begin.
    files: Arc<Semaphore>,
    /// Memory that is left for them, in pages.
    memory: Arc<Semaphore>,
    small: Queue,
    large: Queue,
    pipes: Queue,
    /// Set when no more sources must be started.
    ending: Arc<AtomicBool>,
    results: mpsc::UnboundedSender<(usize, Outcome)>,
}

/// Sources of one kind with their indices among the arguments, taken in order.
#[derive(Default)]
struct Queue {
    sources: Vec<(usize, Arc<Source>)>,
    taken: AtomicUsize,
}

impl Queue {
    fn take(&self) -> Option<(usize, &Arc<Source>)> {
        let (index, source) = self.sources.get(self.taken.fetch_add(1, Ordering::Relaxed))?;
        Some((*index, source))
    }
}

impl Work {
    fn take<'a>(&self, queue: &'a Queue) -> Option<(usize, &'a Arc<Source>)> {
        if self.ending.load(Ordering::Relaxed) { None } else { queue.take() }
    }

    /// Reads small files until none are left, and waits until they are stored. Blocks its thread.
    fn store_small(self: &Arc<Self>, runtime: &Handle) {
        let mut puts = JoinSet::new();
        while let Some((index, source)) = self.take(&self.small) {
            let pages = source.size().unwrap_or(0) as usize / PAGE + PAGES_OF_A_FILE;
            // Never closed, so these always get their permits.
            let file = runtime.block_on(Arc::clone(&self.files).acquire_owned());
            let memory = runtime.block_on(Arc::clone(&self.memory).acquire_many_owned(pages as u32));
            let started = Instant::now();
            let read = source.read();
            let (work, source) = (Arc::clone(self), Arc::clone(source));
            puts.spawn_on(
                async move {
                    let put = match read {
                        Ok(content) => work.put(&source, content).await,
                        Err(failure) => Err(failure),
                    };
                    work.progress.add(source.size().unwrap_or(0));
                    work.send(index, &source, put, started);
                    drop((file, memory));
                },
                runtime,
            );
            while puts.try_join_next().is_some() {}
        }
        runtime.block_on(async { while puts.join_next().await.is_some() {} });
    }

    /// `content` is missing if the file is not as small as it was.
    async fn put(&self, source: &Source, content: Option<Vec<u8>>) -> Result<PutReceipt, Failure> {
        let options = PutOptions::new().expect(self.expected);
        let put = self.store.put_with(&options);
        let receipt = match content {
            Some(content) => put.bytes(content).await,
            None => put.file(&source.path).await,
        };
        receipt.map_err(Failure::outside)
    }

    /// Stores streams until none are left. Blocks its thread.
    fn store_streams(&self, queue: &Queue, runtime: &Handle) {
        while let Some((index, source)) = self.take(queue) {
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
        // If there is no receiver, the command has already failed.
        let _ = self.results.send((index, outcome));
    }
}

/// The workers, which hold the only senders of results.
struct Workers {
    ending: Arc<AtomicBool>,
    all: JoinSet<()>,
}

impl Workers {
    fn start(mut work: Work, sources: Vec<(usize, Source)>) -> Result<Workers, Failure> {
        for (index, source) in sources {
            let queue = match source.kind {
                Kind::Small(_) => &mut work.small,
                Kind::Large(_) => &mut work.large,
                Kind::Pipe | Kind::Endless => &mut work.pipes,
            };
            queue.sources.push((index, Arc::new(source)));
        }
        let (work, mut all) = (Arc::new(work), JoinSet::new());
        let of_small = work.small.sources.len().min(READERS);
        spawn_some(of_small, &mut all, &work, Work::store_small)?;
        let of_large = work.large.sources.len().min(LARGE_AT_ONCE);
        spawn_some(of_large, &mut all, &work, |work, runtime| work.store_streams(&work.large, runtime))?;
        for _ in 0..work.pipes.sources.len() {
            spawn(&mut all, &work, |work, runtime| work.store_streams(&work.pipes, runtime))?;
        }
        Ok(Workers { ending: Arc::clone(&work.ending), all })
    }

    /// Starts nothing more, and gives running work a moment to end.
    async fn stop(mut self) {
        self.ending.store(true, Ordering::Relaxed);
        let ending = async { while self.all.join_next().await.is_some() {} };
        // Remaining small puts are dropped. The threads of streams are not waited for.
        let _ = tokio::time::timeout(MOMENT, ending).await;
    }
}

type Job = fn(&Arc<Work>, &Handle);

/// Runs a job on so many threads. The first does the work of those that cannot start.
fn spawn_some(threads: usize, all: &mut JoinSet<()>, work: &Arc<Work>, job: Job) -> Result<(), Failure> {
    for place in 0..threads {
        match spawn(all, work, job) {
            Err(_) if place > 0 => break,
            spawned => spawned?,
        }
    }
    Ok(())
}

/// Runs a job on a thread of its own.
fn spawn(all: &mut JoinSet<()>, work: &Arc<Work>, job: Job) -> Result<(), Failure> {
    let (ended, ending) = oneshot::channel::<()>();
    let (work, runtime) = (Arc::clone(work), Handle::current());
    let thread = std::thread::Builder::new().name("put".into()).spawn(move || {
        job(&work, &runtime);
        drop(ended);
    });
    thread.map_err(|error| Error::no_thread("cannot start a thread that reads", error))?;
    all.spawn(async move { drop(ending.await) });
    Ok(())
}

/// Small files in flight: the blocks of each may be open until it is committed. The usual soft limit on open
/// files is meant for programs with `select`, so this raises it.
fn files_at_once() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(4 * SMALL_AT_ONCE as u64);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        // If it fails, fewer files are in flight.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(SMALL_AT_ONCE, |limit| (limit / 4).clamp(4, SMALL_AT_ONCE as u64) as usize)
}

/// Outcomes in the order of the arguments: lines on standard output, errors on standard error.
struct Report<'a> {
    paths: &'a [PathBuf],
    json: bool,
    /// The outcomes that are not printed yet.
    outcomes: Vec<Option<Outcome>>,
    /// The index of the first outcome that is not printed, if they are printed in order.
    next: usize,
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
            next: 0,
            printed: 0,
            lines: Lines::new(&context.interrupt),
            progress: Arc::new(Progress::none()),
            exit_code: 0,
        }
    }

    /// Prints results as they arrive until there are no more.
    async fn receive(
        &mut self,
        results: &mut mpsc::UnboundedReceiver<(usize, Outcome)>,
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
            if self.json {
                self.print(index, outcome)?;
            } else {
                self.outcomes[index] = Some(outcome);
                self.print_what_is_settled()?;
            }
        }
        if self.printed < self.paths.len() {
            let message = format!("{} puts ended without a result", self.paths.len() - self.printed);
            return Err(Error::new(Code::Internal, message)
                .with_advice("please report this as a bug")
                .into());
        }
        Ok(())
    }

    /// In the order of the arguments; with `--json`, everything that has arrived.
    fn print_what_is_settled(&mut self) -> Result<(), Failure> {
        for index in self.next..self.outcomes.len() {
            match self.outcomes[index].take() {
                Some(outcome) => {
                    self.print(index, outcome)?;
                    self.next = index + 1;
                }
                None if self.json => {}
                None => break,
            }
        }
        Ok(())
    }

    fn print(&mut self, index: usize, outcome: Outcome) -> Result<(), Failure> {
        match outcome {
            Ok(stored) => {
                let line = self.line(&self.paths[index], &stored);
                self.lines.add(&line)?;
            }
            Err(failure) => {
                self.flush()?;
                self.progress.pause(|| failure.report());
                // With several paths, no single code says more than that something failed.
                self.exit_code = if self.paths.len() == 1 { failure.exit_code() } else { 1 };
            }
        }
        self.printed += 1;
        Ok(())
    }

    /// After an early end: in the order of the arguments, without missing outcomes.
    fn print_what_was_committed(
        &mut self,
        results: &mut mpsc::UnboundedReceiver<(usize, Outcome)>,
    ) -> Result<(), Failure> {
        while let Ok((index, outcome)) = results.try_recv() {
            self.outcomes[index] = Some(outcome);
        }
        for index in 0..self.outcomes.len() {
            if let Some(Ok(stored)) = self.outcomes[index].take() {
                self.print(index, Ok(stored))?;
            }
        }
        self.flush()
    }

    fn line(&self, path: &Path, stored: &Stored) -> String {
        let receipt = &stored.receipt;
        if !self.json {
            return receipt.id.to_string();
        }
        // Microseconds are precise enough.
        let seconds = stored.elapsed.as_micros() as f64 / 1e6;
        let mut line = vec![("path", path.to_string_lossy().into())];
        if path.to_str().is_none() {
            // Different paths that are not valid text may look the same.
            line.push(("path_base64", STANDARD.encode(path.as_os_str().as_encoded_bytes()).into()));
        }
        // A receipt has no `created` here: `fresh_blocks` is the number that people ask for.
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
