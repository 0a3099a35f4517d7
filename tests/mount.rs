//! Real mounts, for tests of full and read-only disks.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mount, until it is dropped.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// `None` only where mounts were left out on purpose.
    pub(crate) fn new(place: PathBuf, arguments: &[&str]) -> Option<Mount> {
        if std::env::var_os("GRAVITON_TEST_NO_MOUNT").is_some() {
            // Not `eprintln!`, which the test harness hides.
            let message =
                format!("\nLEFT OUT: GRAVITON_TEST_NO_MOUNT is set; not tested: {}\n", place.display());
            let _ = std::io::stderr().write_all(message.as_bytes());
            return None;
        }
        if !place.exists() {
            std::fs::create_dir_all(&place).unwrap();
        }
        let output = Command::new("mount").args(arguments).arg(&place).output().unwrap();
        assert!(
            output.status.success(),
            "this test must mount a filesystem: run it as root, or set GRAVITON_TEST_NO_MOUNT=1 to leave \
             it out: {}",
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

/// Leaves no room there.
pub(crate) fn fill(disk: &Path) {
    let mut file = std::fs::File::create(disk.join("fill")).unwrap();
    assert!(std::io::copy(&mut std::io::repeat(1), &mut file).is_err());
}
