//! The path and the identity of the database file.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::retry_on_intr;

use super::database::SqliteDatabase;
use crate::blocking;
use crate::error::{Error, Result};
use crate::manifest::Whereabouts;
use crate::repeated::again;

impl SqliteDatabase {
    /// The path is that from `blocks`, so that it stays the same when both are moved, or mounted elsewhere.
    pub(in crate::manifest) async fn whereabouts(&self, blocks: Option<PathBuf>) -> Result<Whereabouts> {
        let file = Arc::clone(&self.0);
        blocking::run(move || {
            let failed = |error: io::Error| Error::io_at("cannot look at", file.path(), error);
            let path = again(|| std::fs::canonicalize(file.path())).map_err(failed)?;
            let wanted = StatxFlags::INO | StatxFlags::BTIME;
            let stat = retry_on_intr(|| statx(CWD, &path, AtFlags::empty(), wanted));
            let stat = stat.map_err(|error| failed(error.into()))?;
            // A copy may get the number of a file elsewhere. Where the filesystem knows when a file was made,
            // that tells them apart; to rename or to mount a file changes neither.
            let made = stat.stx_btime;
            let made = if stat.stx_mask & StatxFlags::BTIME.bits() == 0 {
                (0, 0)
            } else {
                (made.tv_sec, made.tv_nsec)
            };
            let place = blocks.map_or_else(|| path.clone(), |blocks| seen_from(&blocks, &path));
            Ok(Whereabouts {
                place: Some(place.display().to_string()),
                file: Some(format!("{}-{}.{:09}", stat.stx_ino, made.0, made.1)),
            })
        })
        .await?
    }
}

/// The relative path of a file from a directory; of both the absolute path without links.
fn seen_from(directory: &Path, file: &Path) -> PathBuf {
    let shared =
        directory.components().zip(file.components()).take_while(|(one, other)| one == other).count();
    let up = directory.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(file.components().skip(shared)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_from_the_blocks_is_the_same_wherever_both_are() {
        let seen = |directory: &str, file: &str| {
            seen_from(Path::new(directory), Path::new(file)).display().to_string()
        };
        assert_eq!(seen("/srv/blobs/cas/blocks", "/srv/blobs/manifests.db"), "../../manifests.db");
        assert_eq!(seen("/mnt/cas/blocks", "/mnt/manifests.db"), "../../manifests.db");
        assert_eq!(seen("/srv/blobs", "/srv/blobs/manifests.db"), "manifests.db");
        assert_eq!(seen("/a/b", "/c/m.db"), "../../c/m.db");
    }
}
