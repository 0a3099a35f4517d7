//! Detects whether this database owns the blocks, or is a copy of the owner.
//!
//! A copy and the original database come to reference different blocks: the original may reference what the
//! copy collects. So the row of the store records three facts: where the database is, whether a backup wrote
//! it, and its generation. The generation is a number that grows and is also stored beside the blocks. The
//! number beside the blocks is never larger than that of the database that owns them, because it is raised
//! only after the new number is committed and synced.
//!
//! A database that takes over is the exception: its number goes beside the blocks first. If its process dies
//! in between, no database owns the blocks until one takes over, which is better than two. The number is far
//! above all that were in use, and partly random. So no copy reaches it by raising its own, and of two that
//! take over at once one is refused.

use std::path::PathBuf;
use std::time::Duration;

use super::connection::{Columns, Connection, Ending, Problem, Value, text};
use super::operation::Operation;
#[cfg(feature = "postgres")]
use super::postgres;
use super::read::record;
use super::repo::{Database, the_only};
use super::{ManifestRepo, StoreRecord, sql};
use crate::error::Result;

use Value::Number;

/// The lower bits of a generation count how often it was raised since a database took over; those above, how
/// often one did.
pub(crate) const EPOCH_BITS: u32 = 32;

/// Where a database is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// Of SQLite the path, as it is seen from the blocks if they are files; of PostgreSQL the cluster, its
    /// timeline and the database in it. `None` if the server does not say.
    pub place: Option<String>,
    /// Of SQLite, what stays the same if the file is renamed or mounted elsewhere, and not if it is copied.
    pub file: Option<String>,
}

/// The record of a database about its ownership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// The rest of the row.
    pub store: StoreRecord,
    /// How often it was raised.
    pub generation: u64,
    /// For how long it has not been; negative times are none.
    pub age: Duration,
    place: String,
    file: String,
    is_backup: bool,
    /// A new database, and one of an older version, has never been asked where it is.
    is_recorded: bool,
}

/// Why a database does not own the blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// `backup` wrote it.
    Backup,
    /// It is another file, in another place, or in another cluster or database.
    Elsewhere {
        /// Where it was.
        was: String,
    },
    /// A copy of it was used since.
    Behind {
        /// Its own.
        generation: u64,
        /// The one beside the blocks.
        beside: u64,
    },
}

/// The surroundings of a database that is about to be written to.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Where it is.
    pub at: Whereabouts,
    /// Where the blocks are.
    pub location: String,
    /// The generation beside the blocks, read before this is sent.
    pub beside: u64,
    /// Its generation if it becomes the owner whatever it is; that stands beside the blocks already.
    pub take_over: Option<u64>,
    /// Whether puts rely on its rows for which blocks are there, and look at none of them.
    pub relies_on_rows: bool,
    /// Its generation is raised if that was so long ago.
    pub interval: Duration,
}

/// The answer to a [`Claim`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owned {
    /// It owns the blocks, and has this generation.
    Owner(u64),
    /// It does not. Nothing was changed.
    Refused(Refusal),
}

impl Ownership {
    fn from_row(row: &Columns<'_>) -> Result<Ownership, Problem> {
        Ok(Ownership {
            store: record(row)?,
            generation: row.number(3)? as u64,
            // A time that has not come yet is of a clock that was ahead: nobody knows how long ago it was.
            age: row.number(4)?.try_into().map_or(Duration::MAX, Duration::from_millis),
            place: row.text(5)?,
            file: row.text(6)?,
            is_backup: row.truth(7)?,
            is_recorded: row.truth(8)?,
        })
    }

    /// Why this database does not own the blocks; `None` if it does.
    pub fn refusal(&self, at: &Whereabouts, beside: u64) -> Option<Refusal> {
        if self.is_backup {
            return Some(Refusal::Backup);
        }
        let is_in_place = self.place.is_empty() || at.place.as_ref().is_none_or(|place| *place == self.place);
        let is_the_file = at.file.as_ref().is_some_and(|file| *file == self.file);
        if !is_in_place && !is_the_file {
            return Some(Refusal::Elsewhere { was: self.place.clone() });
        }
        (self.generation < beside).then_some(Refusal::Behind { generation: self.generation, beside })
    }

    /// A generation to take over with: above this one and that beside the blocks, whatever their databases
    /// raise them to.
    pub fn above(&self, beside: u64, random: u32) -> u64 {
        (((self.generation.max(beside) >> EPOCH_BITS) + 1) << EPOCH_BITS) | u64::from(random >> 1)
    }

    /// Whether everything is as it was, so that nothing has to be written.
    pub fn stands(&self, claim: &Claim) -> bool {
        let Claim { at, location, beside, take_over, relies_on_rows: _, interval } = claim;
        let same = |found: &Option<String>, known: &String| found.as_ref().is_none_or(|found| found == known);
        take_over.is_none()
            && self.is_recorded
            && !self.is_backup
            && same(&at.place, &self.place)
            && same(&at.file, &self.file)
            && self.store.block_location == *location
            && self.generation == *beside
            && self.age < *interval
    }
}

impl ManifestRepo {
    /// Where the database is. If the blocks are files, `blocks` is their directory.
    pub async fn whereabouts(&self, blocks: Option<PathBuf>) -> Result<Whereabouts> {
        match &self.database {
            Database::Sqlite(database) => database.whereabouts(blocks).await,
            #[cfg(feature = "postgres")]
            Database::Postgres(_) => {
                let operation = Operation::read("whereabouts");
                let place = self.run(operation, (), |mut connection, ()| {
                    Box::pin(async move {
                        match connection.rows(sql::WHEREABOUTS, &[], |row| row.text(0)).await {
                            Ok(places) => Ok(Ending::Commit(places.into_iter().next())),
                            Err(problem) if postgres::keeps_to_itself(&problem) => Ok(Ending::Commit(None)),
                            Err(problem) => Err(problem),
                        }
                    })
                });
                Ok(Whereabouts { place: place.await?, file: None })
            }
            #[cfg(all(test, feature = "postgres"))]
            Database::Stepped(_) => Ok(Whereabouts::default()),
        }
    }

    /// The record of this database about its ownership.
    pub async fn ownership(&self) -> Result<Ownership> {
        the_only(self.rows(Operation::read("ownership"), sql::OWNERSHIP, [], Ownership::from_row).await?)
    }

    /// Records where the database and its blocks are, and raises its generation where that is due. Durable in
    /// every mode: what is written beside the blocks afterwards must not be ahead of it.
    pub async fn own(&self, claim: Claim) -> Result<Owned> {
        let arguments = (claim, self.has_packs());
        self.run(
            Operation::transaction("own").synced(true),
            arguments,
            |mut connection, (claim, has_packs)| {
                Box::pin(async move { own(&mut connection, claim, *has_packs).await })
            },
        )
        .await
    }
}

async fn own(
    connection: &mut Connection<'_>,
    claim: &Claim,
    has_packs: bool,
) -> Result<Ending<Owned>, Problem> {
    if connection.is_shared() {
        connection.rows(sql::LOCK_STORE, &[], |row| row.text(0)).await?;
    }
    let ownership = the_only(connection.rows(sql::OWNERSHIP, &[], Ownership::from_row).await?)?;
    if claim.take_over.is_none()
        && let Some(refusal) = ownership.refusal(&claim.at, claim.beside)
    {
        return Ok(Ending::RollBack(Owned::Refused(refusal)));
    }
    // A collection ends the present generation also of a database of an older version, of which there may be
    // copies.
    let is_due = claim.interval.is_zero() || ownership.is_recorded && ownership.age >= claim.interval;
    let generation = match claim.take_over {
        Some(generation) => ownership.generation.max(generation),
        None if is_due => ownership.generation + 1,
        None => ownership.generation,
    };
    let known = |found: &Option<String>, known: String| text(found.clone().unwrap_or(known));
    let is_new = generation != ownership.generation || !ownership.is_recorded;
    let values = [
        text(&claim.location),
        Number(generation as i64),
        known(&claim.at.place, ownership.place),
        known(&claim.at.file, ownership.file),
        Number(i64::from(is_new)),
    ];
    connection.execute(sql::OWN, &values).await?;
    if claim.take_over.is_some() && claim.relies_on_rows {
        // The other database may have deleted blocks of which this one says that they are there.
        connection.execute(sql::FORGET_STORED, &[]).await?;
    }
    if claim.take_over.is_some() && has_packs && !claim.relies_on_rows {
        // It may have punched holes into packs: a record's header proves nothing until all are verified.
        connection.execute(sql::FIND_SEALED_PACKS, &[]).await?;
    }
    Ok(Ending::Commit(Owned::Owner(generation)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Durability;

    fn at(place: &str, file: Option<&str>) -> Whereabouts {
        Whereabouts { place: Some(place.to_owned()), file: file.map(str::to_owned) }
    }

    fn ownership(place: &str, file: &str) -> Ownership {
        let store =
            StoreRecord { id: "id".into(), block_location: "here".into(), durability: Durability::Full };
        Ownership {
            store,
            generation: 5,
            age: Duration::ZERO,
            place: place.to_owned(),
            file: file.to_owned(),
            is_backup: false,
            is_recorded: !place.is_empty(),
        }
    }

    #[test]
    fn a_database_stays_the_owner_if_its_path_or_its_file_is_the_same() {
        let owner = ownership("../m.db", "7");
        assert_eq!(owner.refusal(&at("../m.db", Some("7")), 5), None);
        assert_eq!(
            owner.refusal(&at("../m.db", Some("8")), 5),
            None,
            "restored to another disk with its blocks"
        );
        assert_eq!(owner.refusal(&at("/mounted/m.db", Some("7")), 5), None);
        let was = "../m.db".to_owned();
        assert_eq!(
            owner.refusal(&at("../b.db", Some("8")), 5),
            Some(Refusal::Elsewhere { was: was.clone() })
        );
        assert_eq!(owner.refusal(&at("../b.db", None), 5), Some(Refusal::Elsewhere { was }));
        assert_eq!(owner.refusal(&Whereabouts::default(), 5), None, "a server that does not say where it is");
        assert_eq!(ownership("", "").refusal(&at("../b.db", Some("8")), 5), None, "it was never asked");
    }

    #[test]
    fn a_database_that_is_behind_the_blocks_does_not_own_them() {
        for owner in [ownership("../m.db", "7"), ownership("", "")] {
            let at = at("../m.db", Some("7"));
            assert_eq!(owner.refusal(&at, 6), Some(Refusal::Behind { generation: 5, beside: 6 }));
            assert_eq!(owner.refusal(&at, 4), None, "its process died before it wrote beside the blocks");
            let backup = Ownership { is_backup: true, ..owner };
            assert_eq!(backup.refusal(&at, 0), Some(Refusal::Backup));
        }
    }
}
