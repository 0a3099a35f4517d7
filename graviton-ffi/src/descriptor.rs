//! A file descriptor of the caller's as a source or a place for bytes.
//!
//! Waits for one that is in non-blocking mode. It is neither closed nor moved but by what is read or written.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use graviton_core::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::pointer::invalid;

pub(crate) struct Descriptor<'a> {
    fd: BorrowedFd<'a>,
    number: i32,
}

impl Descriptor<'_> {
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
        // SAFETY: not -1, and by the contract nobody closes it meanwhile; one that is not open is found out next.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_getfd(fd).map_err(|_| wrong())?;
        Ok(Descriptor { fd, number })
    }

    /// The size of the file behind it, if it is one, from the place that is read next.
    pub(crate) fn remaining(&self) -> Option<u64> {
        let stat = rustix::fs::fstat(self.fd).ok()?;
        if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
            return None;
        }
        let position = rustix::fs::tell(self.fd).ok()?;
        u64::try_from(stat.st_size).ok()?.checked_sub(position)
    }

    /// Waits a moment for one that is in non-blocking mode.
    fn wait(&self, flags: PollFlags) -> io::Result<()> {
        let moment = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(self.fd, flags)], Some(&moment)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn write_all(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(self.fd, bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.wait(PollFlags::OUT).map_err(|error| self.failed("write to", error))?;
                }
                Err(error) => return Err(self.failed("write to", error.into())),
            }
        }
        Ok(())
    }

    fn failed(&self, tried: &str, error: io::Error) -> Error {
        Error::io(format!("cannot {tried} file descriptor {}", self.number), error)
    }
}

impl Read for Descriptor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(self.fd, &mut *buffer) {
                Ok(count) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::IN)?,
                Err(error) => return Err(self.failed("read from", error.into()).into()),
            }
        }
    }
}
