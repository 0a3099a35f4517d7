//! `.doomed`: files that a collection has set aside until it is known whether a put relies on them.
//!
//! One `rename` moves a file there, to a name that no other file ever gets. The file leaves in one of two
//! ways: it is unlinked, or one `rename` gives it its block's name again. The engine decides that by the
//! block's row (`engine::remove`). A reader that misses a file looks here. The model is
//! `tests/model/src/files`.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};

use super::shared::Shared;
use crate::block::{Aside, Removed};
use crate::collection::Collection;
use crate::descriptor::open_at;
use crate::digest::Algo;
use crate::durable;
use crate::error::{Code, Error, Result};
use crate::key::BlockKey;
use crate::repeated::names_in;

const ASIDE: &str = ".doomed";

/// `<collection>-<number>-<algo>-<name of the block>`.
fn name_of(aside: &Aside) -> String {
    let Aside { by, number, key } = aside;
    format!("{:016x}-{number}-{}", by.0, tail_of(key))
}

fn tail_of(key: &BlockKey) -> String {
    format!("{}-{}", key.algo().name(), key.name())
}

/// The reverse of [`name_of`]; `None` for any name that does not have this exact form.
fn parse(name: &str) -> Option<Aside> {
    let mut parts = name.splitn(4, '-');
    let by = Collection(i64::from_str_radix(parts.next()?, 16).ok()?);
    let number = parts.next()?.parse().ok()?;
    let algo = parts.next()?.parse::<Algo>().ok()?;
    let aside = Aside { by, number, key: BlockKey::from_name(algo, parts.next()?).ok()? };
    (name_of(&aside) == name).then_some(aside)
}

impl Shared {
    fn aside_path(&self) -> PathBuf {
        self.blocks.join(ASIDE)
    }

    /// Sets the files of these blocks aside.
    pub(super) fn set_aside(&self, asides: &[Aside]) -> Vec<Removed> {
        let path = self.aside_path();
        let directory = match durable::create_directory(&path).and_then(|()| durable::open_existing(&path)) {
            Ok(directory) => directory,
            Err(error) => return asides.iter().map(|_| Removed::Kept(error.clone())).collect(),
        };
        let sources = Algo::ALL.map(|algo| self.directory(algo));
        let mut touched = [false; Algo::ALL.len()];
        let mut removed: Vec<Removed> = asides
            .iter()
            .map(|aside| {
                let key = &aside.key;
                let from = match &sources[key.algo() as usize] {
                    Ok(Some(from)) => from,
                    Ok(None) => return Removed::Absent,
                    Err(error) => return Removed::Kept(error.clone()),
                };
                let moved =
                    retry_on_intr(|| rustix::fs::renameat(from, key.name(), &directory, name_of(aside)));
                match moved {
                    Ok(()) => {
                        touched[key.algo() as usize] = true;
                        Removed::Gone
                    }
                    Err(Errno::NOENT) => {
                        // It may have been moved a moment ago, and the move may not be durable yet.
                        touched[key.algo() as usize] = true;
                        Removed::Absent
                    }
                    Err(error) => {
                        let tried = format!("cannot move {} to {}", self.path(key).display(), path.display());
                        Removed::Kept(Error::io(tried, error.into()))
                    }
                }
            })
            .collect();
        if !self.durable {
            return removed;
        }
        // Synced before a row is deleted: a file must not reappear under its name without one.
        let arrived = durable::sync_directory(&path);
        for algo in Algo::ALL.into_iter().filter(|algo| touched[*algo as usize]) {
            let left = || durable::sync_directory(&self.blocks.join(algo.name()));
            let Err(error) = arrived.clone().and_then(|()| left()) else { continue };
            for (aside, removed) in asides.iter().zip(&mut removed) {
                if aside.key.algo() == algo && matches!(removed, Removed::Gone | Removed::Absent) {
                    *removed = Removed::Kept(error.clone());
                }
            }
        }
        removed
    }

    /// Everything in `.doomed` that was set aside. Other files stay there.
    pub(super) fn asides(&self) -> Result<Vec<Aside>> {
        let path = self.aside_path();
        let failed = |error| Error::io_at("cannot list", &path, error);
        match names_in(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            names => Ok(names.map_err(failed)?.iter().filter_map(|name| parse(name.to_str()?)).collect()),
        }
    }

    /// Opens the file of a block that was set aside, if there is one.
    pub(super) fn open_aside(&self, key: &BlockKey) -> std::io::Result<Option<File>> {
        let path = self.aside_path();
        let names = match names_in(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            names => names?,
        };
        let tail = tail_of(key);
        for name in names {
            if !name.to_str().is_some_and(|name| name.ends_with(&tail)) {
                continue;
            }
            let directory = durable::open_directory(&path)?;
            match open_at(directory.as_fd(), &name, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(file) => return Ok(Some(file.into())),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Unlinks the files of `gone`, and moves those of `back` back.
    pub(super) fn end_removal(&self, gone: &[Aside], back: &[Aside]) -> Result<()> {
        let path = self.aside_path();
        let directory = match durable::open_directory(&path) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(Error::io_at("cannot open", &path, error.into())),
        };
        let delete = |aside: &Aside| {
            let name = name_of(aside);
            let failed = |error: Errno| Error::io_at("cannot remove", path.join(&name), error.into());
            unlink(directory.as_fd(), &name).map_err(failed)
        };
        // A failure of one does not affect the others.
        let ended = gone.iter().map(delete);
        let ended = ended.chain(back.iter().map(|aside| self.take_back(aside, directory.as_fd())));
        ended.fold(Ok(()), Result::and)
    }

    /// One rename replaces whatever has the name by now: linking and unlinking would lose the block if it was
    /// put, deleted and set aside again in between. Only a damaged file replaces nothing.
    fn take_back(&self, aside: &Aside, directory: BorrowedFd<'_>) -> Result<()> {
        let (name, key) = (name_of(aside), &aside.key);
        let Some(to) = self.directory(key.algo())? else {
            return Err(Error::new(
                Code::Io,
                format!("the directory {} was removed", self.blocks.join(key.algo().name()).display()),
            ));
        };
        let is_whole = open_at(directory, &name, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty())
            .map_err(std::io::Error::from)
            .and_then(|file| read_up_to(&File::from(file), key.size() + 1))
            .map(|bytes| bytes.len() == key.size() && key.algo().digest(&bytes) == *key.digest());
        let flags = match is_whole {
            Ok(true) => RenameFlags::empty(),
            Ok(false) => RenameFlags::NOREPLACE,
            // It is already gone, or cannot be read now: readers look here, and the next collection tries
            // again.
            Err(_) => return Ok(()),
        };
        let moved = if flags.is_empty() {
            retry_on_intr(|| rustix::fs::renameat(directory, &name, &*to, key.name()))
        } else {
            retry_on_intr(|| rustix::fs::renameat_with(directory, &name, &*to, key.name(), flags))
        };
        match moved {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::EXIST) => unlink(directory, &name).map_err(|error| self.cannot_move_back(key, error)),
            // Some filesystems cannot rename without replacing. The file is damaged, and stays where readers
            // look for it.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if !flags.is_empty() => Ok(()),
            Err(error) => Err(self.cannot_move_back(key, error)),
        }
    }

    fn cannot_move_back(&self, key: &BlockKey, error: Errno) -> Error {
        let from = self.aside_path();
        let tried = format!("cannot move {} back from {}", self.path(key).display(), from.display());
        Error::io(tried, error.into())
    }
}

/// Removes a name that may already be gone.
fn unlink(directory: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
    match retry_on_intr(|| rustix::fs::unlinkat(directory, name, AtFlags::empty())) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

fn read_up_to(file: &File, most: usize) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    file.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(directory: &tempfile::TempDir) -> Shared {
        let shared = Shared::new(directory.path(), "", true);
        std::fs::create_dir_all(shared.blocks.join("blake3")).unwrap();
        shared
    }

    fn aside(number: u64, bytes: &[u8]) -> Aside {
        Aside { by: Collection(7), number, key: BlockKey::of(Algo::Blake3, bytes).unwrap() }
    }

    #[test]
    fn names_are_read_back_letter_for_letter() {
        let one = Aside { by: Collection(i64::MAX), ..aside(12, b"x") };
        let name = name_of(&one);
        assert_eq!(parse(&name), Some(one));
        for wrong in [format!("0{name}"), name.replace("-12-", "-012-"), name[1..].to_owned(), "x".into()] {
            assert_eq!(parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_set_aside_is_found_and_goes_either_way() {
        let directory = tempfile::tempdir().unwrap();
        let shared = shared(&directory);
        let [one, other] = [aside(1, b"one"), aside(2, b"other")];
        for (aside, bytes) in [(&one, "one"), (&other, "other")] {
            std::fs::write(shared.path(&aside.key), bytes).unwrap();
        }
        let absent = aside(3, b"absent");
        let removed = shared.set_aside(&[one, other, absent]);
        assert!(matches!(removed[..], [Removed::Gone, Removed::Gone, Removed::Absent]), "{removed:?}");
        assert!(!shared.path(&one.key).exists());
        assert_eq!(shared.read(&one.key, None).unwrap(), "one");
        let mut asides = shared.asides().unwrap();
        asides.sort_unstable();
        assert_eq!(asides, [one, other]);
        shared.end_removal(&[one], &[other]).unwrap();
        assert!(shared.asides().unwrap().is_empty());
        assert_eq!(shared.read(&one.key, None).unwrap_err().code(), Code::MissingBlock);
        assert_eq!(std::fs::read(shared.path(&other.key)).unwrap(), b"other");
        // Late, once more.
        shared.end_removal(&[one], &[other]).unwrap();
    }

    #[test]
    fn a_damaged_file_comes_back_only_where_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let shared = shared(&directory);
        let one = aside(1, b"good");
        std::fs::write(shared.path(&one.key), "baad").unwrap();
        shared.set_aside(&[one]);
        shared.end_removal(&[], &[one]).unwrap();
        assert_eq!(std::fs::read(shared.path(&one.key)).unwrap(), b"baad");
        shared.set_aside(&[one]);
        std::fs::write(shared.path(&one.key), "good").unwrap();
        shared.end_removal(&[], &[one]).unwrap();
        assert_eq!(std::fs::read(shared.path(&one.key)).unwrap(), b"good");
        assert!(shared.asides().unwrap().is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_moved_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let shared = shared(&directory);
        let one = aside(1, b"one");
        std::fs::write(shared.path(&one.key), "one").unwrap();
        std::fs::write(shared.aside_path(), "in the way").unwrap();
        assert!(matches!(shared.set_aside(&[one])[..], [Removed::Kept(_)]));
        assert_eq!(shared.read(&one.key, None).unwrap(), "one");
    }
}
