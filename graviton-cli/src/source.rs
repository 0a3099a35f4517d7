//! The sources of `put`: examined in advance, and read here if the engine does not read them itself.
//!
//! Small regular files are left to the engine, which groups them. Everything else is a stream: long files,
//! because their progress can be shown, and pipes, devices and standard input, because a read from them may
//! take for ever and must end with Ctrl-C. A stream is read on a thread that may block.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use graviton_core::{AsyncStore, BlobId, Code, Error, PutOptions, PutReceipt};
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::wait;
use crate::progress::Progress;

/// The largest small file. The engine holds small files in memory as a whole.
const SMALL: u64 = 2 << 20;

/// One argument of `put`.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// A regular file of about this size.
    Small(u64),
    /// A larger regular file.
    Large(u64),
    /// A named pipe.
    Pipe,
    /// Standard input or a device.
    Endless,
}

impl Source {
    /// Examines the path. Fails already if it cannot be stored.
    pub(crate) fn look(path: &Path) -> Result<Source, Failure> {
        let source = |kind| Source { path: path.to_owned(), kind };
        if path.as_os_str() == "-" {
            return Ok(source(Kind::Endless));
        }
        let metadata = std::fs::metadata(path)
            .map_err(|error| Failure::io(format!("cannot read {}", path.display()), error))?;
        if metadata.is_dir() {
            let message = format!("cannot put {}: it is a directory", path.display());
            let error = Error::new(Code::InvalidArgument, message)
                .with_advice("name the files in it, or store an archive: tar c DIRECTORY | graviton put -");
            return Err(error.into());
        }
        Ok(source(match metadata.len() {
            _ if metadata.file_type().is_fifo() => Kind::Pipe,
            _ if !metadata.is_file() => Kind::Endless,
            size if size <= SMALL => Kind::Small(size),
            size => Kind::Large(size),
        }))
    }

    /// The number of bytes to come, if it is known.
    pub(crate) fn size(&self) -> Option<u64> {
        match self.kind {
            Kind::Small(size) | Kind::Large(size) => Some(size),
            Kind::Pipe | Kind::Endless => None,
        }
    }

    fn open(&self) -> Result<Input, Failure> {
        if self.path.as_os_str() == "-" {
            return Ok(Input { file: None, name: "standard input".into() });
        }
        let name = self.path.display().to_string();
        let mut options = File::options();
        options.read(true);
        if matches!(self.kind, Kind::Pipe) {
            // Opened at once, even without a writer: a program that opens several pipes waits until each has
            // a reader. The first poll waits for the writer.
            options.custom_flags(OFlags::NONBLOCK.bits() as i32);
        }
        let opened = options.open(&self.path);
        let file = opened.map_err(|error| Failure::io(format!("cannot read {name}"), error))?;
        Ok(Input { file: Some(file), name })
    }

    /// The content of a small file; `None` if it has grown since, and is not small any more. Blocks.
    pub(crate) fn read(&self) -> Result<Option<Vec<u8>>, Failure> {
        let failed = |error| Failure::io(format!("cannot read {}", self.path.display()), error);
        let file = File::open(&self.path).map_err(failed)?;
        // One byte more than it had, so that its end is seen.
        let mut content = Vec::with_capacity(self.size().unwrap_or(0) as usize + 1);
        file.take(SMALL + 1).read_to_end(&mut content).map_err(failed)?;
        Ok((content.len() as u64 <= SMALL).then_some(content))
    }

    /// Stores a stream. The calling thread blocks in reads, and runs the rest on its tokio runtime.
    pub(crate) async fn stream(
        &self,
        store: &AsyncStore,
        expected: Option<&BlobId>,
        interrupt: &Interrupt,
        progress: &Progress,
    ) -> Result<PutReceipt, Failure> {
        let input = self.open()?;
        let writing = async {
            let mut writer = store.put_with(&PutOptions::new().expect(expected.copied())).writer().await?;
            loop {
                let spare = writer.spare().await?;
                let room = spare.len();
                let count = input.fill(spare, interrupt)?;
                progress.add(count as u64);
                writer.advance(count).await?;
                if count < room {
                    return Ok(writer);
                }
            }
        };
        let writer = interrupt.or(writing).await?;
        // Waits for a running commit, because its id must be printed.
        interrupt.or_soon(async { Ok(writer.finish().await?) }).await
    }
}

/// An open source.
struct Input {
    /// `None` is standard input.
    file: Option<File>,
    name: String,
}

impl Input {
    fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.file {
            Some(file) => file.as_fd(),
            None => rustix::stdio::stdin(),
        }
    }

    /// Reads until the buffer is full or the source ends.
    fn fill(&self, buffer: &mut [u8], interrupt: &Interrupt) -> Result<usize, Failure> {
        let mut filled = 0;
        while filled < buffer.len() {
            wait(self.descriptor(), PollFlags::IN, interrupt)?;
            match rustix::io::read(self.descriptor(), &mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(Failure::io(format!("cannot read {}", self.name), error.into())),
            }
        }
        Ok(filled)
    }
}
