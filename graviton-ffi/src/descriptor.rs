//! File descriptors as sources and destinations of bytes.
//!
//! A descriptor is never closed, and its position moves only by the bytes that are read or written. For a
//! descriptor that is not a file (a pipe, a socket, a device), each step first polls with a time-out, and
//! steps are small enough not to block. The cancel callback is therefore asked even if the other end is
//! silent, in blocking mode too. One case remains: two readers of one pipe, where the other reader takes the
//! available bytes.

use std::cell::Cell;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use graviton_core::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::net::SendFlags;

use crate::pointer::invalid;
use crate::session::{PERIOD, Waiting};

/// The number of bytes that a pipe accepts without blocking once it accepts any (PIPE_BUF).
const PIECE: usize = 4096;

pub(crate) struct Descriptor<'a> {
    fd: BorrowedFd<'a>,
    /// For messages.
    name: String,
    kind: Kind,
    mode: OFlags,
    /// Whether a write may wait for the other end, which must be prevented.
    blocks: bool,
    /// Whether the system can write without waiting on request: to pipes, since Linux 6.5.
    writes_at_once: Cell<bool>,
    /// The remaining bytes of a file.
    remaining: Option<u64>,
}

#[derive(PartialEq)]
enum Kind {
    File,
    Socket,
    /// A pipe, a terminal, a device.
    Other,
}

impl Descriptor<'_> {
    /// The caller's descriptor with this number.
    ///
    /// # Safety
    /// Nobody closes it for as long as the result is used. It need not be open.
    pub(crate) unsafe fn new<'a>(number: i32) -> Result<Descriptor<'a>> {
        let wrong = || {
            invalid(format!("{number} is not an open file descriptor"))
                .with_advice("pass one that is open for this call")
        };
        if number < 0 {
            return Err(wrong());
        }
        // SAFETY: the number is not -1, and by the contract nobody closes it meanwhile; the next call detects
        // one that is not open.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_getfd(fd).map_err(|_| wrong())?;
        Descriptor::of(fd, format!("file descriptor {number}"))
    }

    /// A descriptor of ours.
    pub(crate) fn of(fd: BorrowedFd<'_>, name: String) -> Result<Descriptor<'_>> {
        let failed = |error: Errno| Error::io(format!("cannot look at {name}"), error.into());
        let stat = rustix::fs::fstat(fd).map_err(failed)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => {
                return Err(invalid(format!("cannot use {name}: it is a directory")));
            }
            FileType::Socket => Kind::Socket,
            _ => Kind::Other,
        };
        let mode = rustix::fs::fcntl_getfl(fd).map_err(failed)?;
        let blocks = kind == Kind::Other && !mode.contains(OFlags::NONBLOCK);
        let remaining = if kind == Kind::File { left(fd, &stat) } else { None };
        Ok(Descriptor { fd, name, kind, mode, blocks, writes_at_once: Cell::new(true), remaining })
    }

    /// The number of bytes from the current position to the end, if the descriptor is a file.
    pub(crate) fn remaining(&self) -> Option<u64> {
        self.remaining
    }

    /// Waits until the descriptor is ready.
    fn wait(&self, flags: PollFlags, waiting: &Waiting<'_>) -> Result<()> {
        loop {
            waiting.go_on()?;
            if self.kind == Kind::File {
                return Ok(());
            }
            let moment = Timespec { tv_sec: 0, tv_nsec: PERIOD.subsec_nanos().into() };
            match rustix::event::poll(&mut [PollFd::from_borrowed_fd(self.fd, flags)], Some(&moment)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(self.failed("wait for", error)),
            }
        }
    }

    /// Whether it is open only in the other direction; poll would then wait until everything is closed.
    fn is(&self, other: OFlags) -> bool {
        self.mode & OFlags::RWMODE == other
    }

    pub(crate) fn write_all(&self, mut bytes: &[u8], waiting: &Waiting<'_>) -> Result<()> {
        if self.is(OFlags::RDONLY) {
            return Err(self.failed("write to", Errno::BADF));
        }
        while !bytes.is_empty() {
            self.wait(PollFlags::OUT, waiting)?;
            match self.write_some(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(self.failed("write to", error)),
            }
        }
        Ok(())
    }

    /// Writes the bytes that it accepts without waiting, now that it is ready.
    fn write_some(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        if self.kind == Kind::Socket {
            return rustix::net::send(self.fd, bytes, SendFlags::DONTWAIT);
        }
        if !self.blocks {
            return rustix::io::write(self.fd, bytes);
        }
        if self.writes_at_once.get() {
            // The offset -1 means the current position.
            let written =
                rustix::io::pwritev2(self.fd, &[IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT);
            match written {
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => self.writes_at_once.set(false),
                written => return written,
            }
        }
        rustix::io::write(self.fd, &bytes[..bytes.len().min(PIECE)])
    }

    pub(crate) fn read(&self, buffer: &mut [u8], waiting: &Waiting<'_>) -> Result<usize> {
        if self.is(OFlags::WRONLY) {
            return Err(self.failed("read from", Errno::BADF));
        }
        loop {
            self.wait(PollFlags::IN, waiting)?;
            match rustix::io::read(self.fd, &mut *buffer) {
                Ok(count) => return Ok(count),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(self.failed("read from", error)),
            }
        }
    }

    fn failed(&self, tried: &str, error: Errno) -> Error {
        Error::io(format!("cannot {tried} {}", self.name), error.into())
    }
}

fn left(fd: BorrowedFd<'_>, stat: &Stat) -> Option<u64> {
    let position = rustix::fs::tell(fd).ok()?;
    u64::try_from(stat.st_size).ok()?.checked_sub(position)
}
