//! Checks whether the bytes of a block are those that were put, and marks a block that is bad.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::pack::read::{self, Run};
use crate::blocking::{self, Task};
use crate::error::{Code, Error, Result};
use crate::key::BlockKey;
use crate::manifest::{BlockRecord, BlockRow, LookAgain};
use crate::place::{Located, Place};

/// For how long a block may be read from over a network while its row is locked.
const UNDER_LOCK: Duration = Duration::from_secs(10);

/// The longest that the error of a read waits for its note.
const NOTING: Duration = Duration::from_secs(5);

/// The kinds of damage to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// It is not there.
    Missing,
    /// It has another length than its key says.
    WrongLength {
        /// That length in bytes.
        length: u64,
    },
    /// Its bytes are others than those that were put.
    Corrupt,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Missing => f.write_str("missing"),
            Damage::WrongLength { length } => write!(f, "has {length} bytes"),
            Damage::Corrupt => f.write_str("corrupt"),
        }
    }
}

/// Whether the error says that this user may not read a file.
pub(super) fn is_unreadable(core: &Core, error: &Error) -> bool {
    core.blocks.is_local() && error.code() == Code::Forbidden
}

/// Whether the error of a read says that the block is not right where it is. A file that this user may not
/// read counts, and a sector that cannot be read.
pub(super) fn is_damage(core: &Core, error: &Error) -> bool {
    match error.code() {
        Code::MissingBlock | Code::CorruptBlock => true,
        Code::Io | Code::Forbidden => core.blocks.is_local(),
        _ => false,
    }
}

/// Looks for damage: at the length only, or with `deep` at every byte.
pub(super) async fn look(
    core: &Arc<Core>,
    key: BlockKey,
    located: Option<Located>,
    deep: bool,
) -> Result<Option<Damage>> {
    if let Some(located) = located {
        return look_in_pack(core, key, &located, deep).await;
    }
    if !deep {
        return Ok(match core.blocks.length(&key).await? {
            None => Some(Damage::Missing),
            Some(length) if length == key.size() as u64 => None,
            Some(length) => Some(Damage::WrongLength { length }),
        });
    }
    let bytes = match core.blocks.get(&key, None).await {
        Ok(bytes) => bytes,
        Err(error) if error.code() == Code::MissingBlock => return Ok(Some(Damage::Missing)),
        Err(error) if error.code() == Code::CorruptBlock => {
            return Ok(Some(match core.blocks.length(&key).await? {
                None => Damage::Missing,
                Some(length) => Damage::WrongLength { length },
            }));
        }
        // A sector that cannot be read is damage like any other, and so is a file that this user may not
        // read.
        Err(error) if core.blocks.is_local() && matches!(error.code(), Code::Io | Code::Forbidden) => {
            return Ok(Some(Damage::Corrupt));
        }
        Err(error) => return Err(error),
    };
    // Where a lock is held, on the thread that holds it: all others may be waiting for it.
    let same = blocking::run(move || key.algo().digest(&bytes) == *key.digest()).await?;
    Ok((!same).then_some(Damage::Corrupt))
}

/// The same for blocks that are neighbours in an object, by one request; or for one block.
pub(super) async fn look_together(
    core: &Arc<Core>,
    blocks: &[BlockRecord],
    deep: bool,
) -> Result<Vec<Option<Damage>>> {
    let placed: Vec<(BlockKey, Place)> =
        blocks.iter().filter_map(|record| Some((record.key, record.located?.place))).collect();
    let (Some((_, first)), Some((_, last)), true) = (placed.first(), placed.last(), blocks.len() > 1) else {
        let mut found = Vec::with_capacity(blocks.len());
        for record in blocks {
            found.push(look(core, record.key, record.located, deep).await?);
        }
        return Ok(found);
    };
    let packs = core.packs(&placed[0].0)?;
    if !deep {
        let length = packs.length(&first.name).await?;
        let damage = |(_, place): &(BlockKey, Place)| match length {
            None => Some(Damage::Missing),
            Some(length) => (length < read::end_of(place)).then_some(Damage::Corrupt),
        };
        return Ok(placed.iter().map(damage).collect());
    }
    let run = Run::read(packs, first, last).await?;
    let is_local = core.blocks.is_local();
    let each =
        move || placed.iter().map(|(key, place)| damage_of(run.verified(key, place), is_local)).collect();
    blocking::run::<Result<_>>(each).await?
}

/// The damage that a read of a record has found.
fn damage_of<T>(read: Result<T>, is_local: bool) -> Result<Option<Damage>> {
    match read {
        Ok(_) => Ok(None),
        Err(error) if error.code() == Code::MissingBlock => Ok(Some(Damage::Missing)),
        Err(error) if error.code() == Code::CorruptBlock => Ok(Some(Damage::Corrupt)),
        // A sector that cannot be read. A pack that this user may not read is no damage: it has many blocks.
        Err(error) if is_local && error.code() == Code::Io => Ok(Some(Damage::Corrupt)),
        Err(error) => Err(error),
    }
}

/// The same for a block in a pack; without `deep` at its record's header and length.
async fn look_in_pack(
    core: &Arc<Core>,
    key: BlockKey,
    located: &Located,
    deep: bool,
) -> Result<Option<Damage>> {
    let packs = core.packs(&key)?;
    let looked = if deep {
        read::verified(&**packs, &key, &located.place).await.map(drop)
    } else {
        read::look(&**packs, &key, &located.place).await
    };
    damage_of(looked, core.blocks.is_local())
}

/// Notes damage that a read found, in the row of the block: the next put of the block, by any process, writes
/// it again. Reads and collections do not go by the note, so that an unmounted disk makes nothing less
/// readable. A store that was opened only to be read notes nothing.
pub(super) async fn note(core: &Arc<Core>, key: BlockKey, error: &Error) {
    if !is_damage(core, error) || core.read_only {
        return;
    }
    let noting = Arc::clone(core);
    let noted = Task::spawn(async move {
        let records = noting.manifests.blocks_by_key(vec![key]).await?;
        for record in records.into_iter().filter(|record| record.stored) {
            recheck(&noting, record.row).await?;
        }
        Ok::<(), Error>(())
    });
    // The caller gets the error of the read, also if there is no note.
    let _ = tokio::time::timeout(NOTING, noted.join()).await;
}

/// Looks at a block again while nobody else can write it; true if it is bad, and marked so.
pub(super) async fn recheck(core: &Arc<Core>, row: BlockRow) -> Result<bool> {
    let looking = Arc::clone(core);
    let again: Arc<LookAgain> = Arc::new(move |key, located| {
        let core = Arc::clone(&looking);
        Box::pin(async move {
            let looking = look(&core, key, located, true);
            if core.blocks.is_local() {
                return Ok(looking.await?.is_none());
            }
            // Others wait for the lock.
            let looked = tokio::time::timeout(UNDER_LOCK, looking).await.map_err(|_| {
                let why = format!(
                    "{} was not read within {} s",
                    core.place(&key, located.as_ref()),
                    UNDER_LOCK.as_secs()
                );
                Error::new(Code::BackendUnavailable, why).with_advice("try again later")
            })?;
            Ok(looked?.is_none())
        })
    });
    core.manifests.recheck(row, again).await
}
