//! How full the index of a directory is: a filesystem can run out of room for names long before it runs out
//! of space.
//!
//! ext4 finds a name through a tree of two levels (<https://docs.kernel.org/filesystems/ext4/directory.html>,
//! "Hash Tree Directories"). A full node is split, so that nodes are 69 % full on average. A name finds no
//! room when one node is full and the root is full too. Measured with names of blocks, that happens first at
//! 0.61 of the largest directory with filesystem blocks of 1 KiB (79,020 names), and at 0.55 with blocks of 4
//! KiB (5,073,837 names). The feature `large_dir` adds a level; here it shows only in a directory that is
//! larger than two levels allow.

use std::path::Path;

use rustix::fs::statfs;

use crate::repeated::again;

/// The number of ext4 in `linux/magic.h`.
const EXT4: u32 = 0xEF53;

/// The share of the largest directory at which a name may find no room.
const FULL: f64 = 0.55;

/// How full the index of this directory is, from 0 to 1; 0 where no limit is known.
pub(super) fn share(directory: &Path) -> f64 {
    let (Ok(filesystem), Ok(metadata)) = (statfs(directory), again(|| std::fs::metadata(directory))) else {
        return 0.0;
    };
    if filesystem.f_type as u32 != EXT4 {
        return 0.0;
    }
    share_of(filesystem.f_bsize as u64, metadata.len())
}

/// The same, for blocks and a directory of these sizes in bytes.
fn share_of(block: u64, size: u64) -> f64 {
    // A block of the index contains entries of 8 bytes each, after a head and before a checksum.
    let (in_root, in_node) = (block.saturating_sub(40) / 8, block.saturating_sub(16) / 8);
    let largest = ((in_root * in_node + in_root + 1) * block) as f64;
    let share = size as f64 / (largest * FULL);
    // Two levels cannot be that large: there is a third.
    if size as f64 > largest { 0.0 } else { share.min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_full_where_it_was_found_full() {
        // The sizes at which the first of random names of blocks found no room.
        for (block, size) in [(1_024, 9_651_200), (4_096, 587_063_296)] {
            assert!((0.98..=1.0).contains(&share_of(block, size)));
            assert!((0.48..=0.56).contains(&share_of(block, size / 2)));
        }
        assert!(share_of(4_096, 9_651_200) < 0.02);
        assert!(share_of(4_096, 4_096) < 0.001);
        // With three levels.
        assert!(share_of(1_024, 20_000_000) == 0.0);
        assert!((0.0..0.01).contains(&share(Path::new("/"))));
        assert!(share(Path::new("/nowhere")) == 0.0);
    }
}
