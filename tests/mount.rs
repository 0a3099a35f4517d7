//! Real mounts, for tests of full and read-only disks.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::left_out::leave_out;

/// A mount, until it is dropped.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// `None` if mounts are impossible or not wanted; prints the reason.
    pub(crate) fn new(place: PathBuf, arguments: &[&str]) -> Option<Mount> {
        let what = place.display().to_string();
        if std::env::var_os("GRAVITON_TEST_NO_MOUNT").is_some() {
            leave_out(&what, "GRAVITON_TEST_NO_MOUNT is set");
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            leave_out(&what, "only root may mount");
            return None;
        }
        if !place.exists() {
            std::fs::create_dir_all(&place).unwrap();
        }
        let output = Command::new("mount").args(arguments).arg(&place).output().unwrap();
        assert!(
            output.status.success(),
            "this test must mount a filesystem; GRAVITON_TEST_NO_MOUNT=1 leaves it out: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Some(Mount(place))
    }

    /// An empty disk of this size in memory.
    pub(crate) fn small(place: PathBuf, size: &str) -> Option<Mount> {
        Mount::new(place, &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Fills the disk.
pub(crate) fn fill(disk: &Path) {
    let mut file = std::fs::File::create(disk.join("fill")).unwrap();
    assert!(std::io::copy(&mut std::io::repeat(1), &mut file).is_err());
}
