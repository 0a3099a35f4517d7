//! The files beside the blocks that name the database that owns them: `store-id`, which never changes, and
//! `generation`, which only grows.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;

use rustix::fs::{Access, access};
use tempfile::NamedTempFile;

use super::reserve;
use super::shared::Shared;
use crate::block::parse_generation;
use crate::descriptor::{occupy_standard, open_file};
use crate::durable;
use crate::error::{Code, Error, Result};

const STORE_ID: &str = "store-id";

/// The prefix of the names of such files while they are being written.
const UNFINISHED: &str = ".store-id-";

/// More bytes than either file has.
const LONGEST_LINE: u64 = 256;

const GENERATION: &str = "generation";

impl Shared {
    pub(super) fn read_store_id(&self) -> Result<Option<String>> {
        self.read_line(STORE_ID)
    }

    pub(super) fn read_generation(&self) -> Result<u64> {
        let line = self.read_line(GENERATION)?;
        let place = || self.blocks.join(GENERATION).display().to_string();
        line.map_or(Ok(0), |line| parse_generation(line.as_bytes(), &place()))
    }

    /// The line in one of the files; `None` if there is no such file.
    fn read_line(&self, name: &str) -> Result<Option<String>> {
        let path = self.blocks.join(name);
        match open_file(&path).and_then(std::io::read_to_string) {
            Ok(line) => Ok(Some(line.trim_end().to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io_at("cannot read", &path, error)),
        }
    }

    /// Removes files that processes left when they died while writing one.
    pub(super) fn remove_unfinished(&self) -> Result<u64> {
        Ok(durable::remove_abandoned(&self.blocks, UNFINISHED, LONGEST_LINE)?
            + durable::remove_abandoned(&self.root, reserve::UNFINISHED, u64::MAX)?)
    }

    /// Writes the id under another name and renames it, so that it is never partly visible and never
    /// replaced.
    pub(super) fn write_store_id(&self, id: &str) -> Result<String> {
        let path = self.blocks.join(STORE_ID);
        let failed = |error: std::io::Error| Error::io_at("cannot write", &path, error);
        durable::create_directory(&self.blocks)?;
        if self.read_store_id()?.is_some() {
            // Checked now, and not by the first file that cannot be written.
            access(&self.blocks, Access::WRITE_OK).map_err(|error| failed(error.into()))?;
        } else {
            let file = self.unfinished(id).map_err(failed)?;
            match durable::rename_without_replacing(file.path(), &path) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => {}
            }
        }
        // Synced also for an existing id: the process that linked it may not have synced it yet.
        durable::sync_directory(&self.blocks)?;
        self.read_store_id()?.ok_or_else(|| {
            Error::new(Code::Config, format!("{} was just written and is gone", path.display()))
        })
    }

    /// A durable file with this line, without its name.
    fn unfinished(&self, line: &str) -> std::io::Result<NamedTempFile> {
        occupy_standard();
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(PermissionsExt::from_mode(0o666))
            .tempfile_in(&self.blocks)?;
        file.write_all(format!("{line}\n").as_bytes())?;
        file.as_file().sync_all()?;
        Ok(file)
    }

    pub(super) fn raise_generation(&self, to: u64) -> Result<()> {
        if self.read_generation()? >= to {
            return Ok(());
        }
        let path = self.blocks.join(GENERATION);
        let failed = |error: std::io::Error| Error::io_at("cannot write", &path, error);
        let file = self.unfinished(&to.to_string()).map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        durable::sync_directory(&self.blocks)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_old_unfinished_files_are_leftovers() {
        let directory = tempfile::tempdir().unwrap();
        let shared = Shared::new(directory.path(), "", true);
        assert_eq!(shared.write_store_id("mine").unwrap(), "mine");
        let path = |name: &str| directory.path().join(name);
        for kind in [".store-id", ".reserve"] {
            for age in ["old", "new"] {
                std::fs::write(path(&format!("{kind}-{age}")), "").unwrap();
            }
            let two_hours_ago = std::time::SystemTime::now() - Duration::from_secs(7_200);
            File::open(path(&format!("{kind}-old"))).unwrap().set_modified(two_hours_ago).unwrap();
        }
        assert_eq!(shared.remove_unfinished().unwrap(), 2);
        for kind in [".store-id", ".reserve"] {
            assert!(!path(&format!("{kind}-old")).exists() && path(&format!("{kind}-new")).exists());
        }
        assert_eq!(shared.read_store_id().unwrap().as_deref(), Some("mine"));
    }
}
