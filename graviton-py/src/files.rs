//! Many files at once. Commits that arrive together share a transaction and a sync, so many files are in
//! flight at once, as many as their memory allows. Ids are returned in the order of the paths.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};

use futures_util::{StreamExt, TryStreamExt, stream};
use graviton_core::{AsyncStore, BlobId, Code, Error, PutOptions, PutReceipt, Result};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use tokio::sync::Semaphore;

use crate::call::{Interrupts, PATIENCE, call};
use crate::reports::values;
use crate::store::Store;
use crate::text::Text;

/// The most files in flight: each is open, and so are the blocks made of it.
const AT_ONCE: usize = 64;

/// The memory of all puts in flight, in pages; the most that one put may take of it; and the overhead beside
/// a file's bytes.
const PAGE: u64 = 4 << 10;
const PAGES: u32 = 32 << 10;
const PAGES_OF_A_PUT: u64 = 16 << 10;
const PAGES_BESIDE: u64 = 4;

#[pymethods]
impl Store {
    /// Stores files; fails if an id is given and a file has another. `progress` gets the bytes of each stored
    /// file. The first failure is raised and ends the running puts; files that were stored before stay.
    #[pyo3(signature = (paths, expect=None, progress=None))]
    fn put_files<'py>(
        &self,
        py: Python<'py>,
        paths: Vec<PathBuf>,
        expect: Option<Text>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let puts = call(py, |interrupts| {
            let expected: Option<BlobId> = expect.as_deref().map(str::parse).transpose()?;
            // Checked here: a store of the parent process must be refused before this waits for one of its
            // threads.
            if paths.is_empty() {
                return Ok(Vec::new());
            }
            put_all(&self.store, paths, expected, progress.as_ref(), interrupts)
        })?;
        puts.iter().map(|put| values(py, put)).collect()
    }
}

fn put_all(
    store: &graviton_core::Store,
    paths: Vec<PathBuf>,
    expected: Option<BlobId>,
    progress: Option<&Py<PyAny>>,
    interrupts: &Interrupts,
) -> Result<Vec<PutReceipt>> {
    let engine = store.as_async().clone();
    let (stored, sizes) = channel();
    let task = graviton_core::runtime()?.spawn(async move {
        let memory = Arc::new(Semaphore::new(PAGES as usize));
        let puts = paths.into_iter().map(|path| {
            let (engine, memory, stored) = (engine.clone(), Arc::clone(&memory), stored.clone());
            async move {
                let put = put_one(&engine, &memory, path, expected).await?;
                // If the call was interrupted, there is no receiver.
                let _ = stored.send(put.id.size());
                Ok(put)
            }
        });
        stream::iter(puts).buffered(AT_ONCE).try_collect::<Vec<PutReceipt>>().await
    });
    // The channel closes when the task has released everything, whether it finished or was ended.
    let mut result = Ok(());
    loop {
        let told = match sizes.recv_timeout(PATIENCE) {
            Ok(size) => match progress {
                Some(progress) if result.is_ok() => {
                    interrupts.python(|py| progress.call1(py, (size,)).map(drop))
                }
                _ => interrupts.check(),
            },
            Err(RecvTimeoutError::Timeout) => interrupts.check(),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if result.is_ok() && told.is_err() {
            task.abort();
            result = told;
        }
    }
    result?;
    let ended = graviton_core::runtime()?.block_on(task);
    ended.unwrap_or_else(|_| Err(Error::new(Code::Internal, "the task that stores files has ended early")))
}

async fn put_one(
    engine: &AsyncStore,
    memory: &Semaphore,
    path: PathBuf,
    expected: Option<BlobId>,
) -> Result<PutReceipt> {
    // If there is no metadata, the put reports the error. A device has no size, and may be endless.
    let size =
        std::fs::metadata(&path).map_or(0, |found| if found.is_file() { found.len() } else { u64::MAX });
    let pages = (size / PAGE + PAGES_BESIDE).min(PAGES_OF_A_PUT);
    // Never closed, so this always gets a permit.
    let _memory = memory.acquire_many(pages as u32).await;
    engine.put_with(&PutOptions::new().expect(expected)).file(&path).await
}
