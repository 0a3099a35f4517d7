//! Packs: operations of their makers and of the collector. The rules are in `engine::pack`.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::batch::Batch;
use super::connection::{Columns, Connection, Ending, Problem, Value, text};
use super::operation::Operation;
use super::put::{held, lock_blocks};
use super::repo::only;
use super::{BlockRecord, BlockRow, HeldPack, ManifestRepo, Mark, WriterId, sql};
use crate::error::Result;
use crate::place::{DOUBT, HEADER, PackName, PackRow, Place, record_size};

use Ending::{Commit as Keep, RollBack};
use Value::Number;

/// States of a pack's row.
const WRITING: i64 = 0;
const FOUND: i64 = 1;
const SEALED: i64 = 2;
const DROPPED: i64 = 3;

/// The outcome of [`ManifestRepo::release`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Released {
    /// Blocks whose rows are gone.
    pub blocks: u64,
    /// The bytes of their payloads.
    pub bytes: u64,
    /// Candidates that were referenced again.
    pub referenced: u64,
}

/// Bytes of a pack that were released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The pack.
    pub pack: PackRow,
    /// Its name.
    pub name: PackName,
    /// Where they begin.
    pub offset: u64,
    /// How many they are.
    pub bytes: u64,
}

/// A sealed pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedPack {
    /// Its row.
    pub pack: PackRow,
    /// Its name.
    pub name: PackName,
    /// Its bytes up to the end of the last record.
    pub bytes: u64,
    /// The bytes of records that no row points at.
    pub dead: u64,
    /// Those of the dead bytes that take no space any more.
    pub punched: u64,
}

impl SealedPack {
    /// The bytes of records that rows point at.
    pub fn live(&self) -> u64 {
        self.bytes.saturating_sub(HEADER + self.dead)
    }

    /// Dead bytes that take space.
    pub fn waste(&self) -> u64 {
        self.dead.saturating_sub(self.punched)
    }
}

/// The sums over a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackSums {
    /// Its name.
    pub name: PackName,
    /// Its state.
    pub phase: PackPhase,
    /// Bytes of records that rows point at.
    pub live: u64,
    /// Bytes of records that were released, and not yet given back.
    pub released: u64,
}

/// The states of a pack, as far as they matter for sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackPhase {
    /// It is written to, or was found: the database does not know its length.
    Open,
    /// It is sealed.
    Sealed {
        /// Bytes of records that no row points at, but for those that were released.
        dead: u64,
        /// Those of them that take no space any more.
        punched: u64,
        /// Whether it waits for the end of the grace period, or for its file to go.
        goes: bool,
    },
}

impl ManifestRepo {
    /// All packs.
    pub async fn pack_sums(&self) -> Result<Vec<PackSums>> {
        let operation = Operation::read("pack_sums").patience(Duration::from_secs(3_600));
        self.rows(operation, sql::PACK_SUMS, [], |row| {
            let sum = |column| row.number(column).map(|number: i64| number.max(0) as u64);
            let sealed = PackPhase::Sealed { dead: sum(2)?, punched: sum(3)?, goes: row.number(4)? != 0 };
            Ok(PackSums {
                name: row.text(0)?.parse()?,
                phase: if row.number(1)? < SEALED { PackPhase::Open } else { sealed },
                live: sum(5)?,
                released: sum(6)?,
            })
        })
        .await
    }

    /// Inserts a pack that this writer is going to create, durably in every mode: no pack exists without a
    /// row. `None` if the writer is gone.
    pub async fn insert_pack(&self, writer: WriterId, name: &PackName) -> Result<Option<PackRow>> {
        let values = [text(name.to_string()), Number(writer.0)];
        let operation = Operation::statement("insert_pack").synced(true);
        Ok(only(self.rows(operation, sql::INSERT_PACK, values, |row| row.number(0)).await?).map(PackRow))
    }

    /// Whether this writer is still the one that writes the pack.
    pub async fn is_held(&self, held: HeldPack) -> Result<bool> {
        let values = [Number(held.pack.0), Number(held.writer.0)];
        let counts = self.rows(Operation::read("is_held"), sql::IS_HELD, values, |row| row.number(0));
        Ok(only(counts.await?) == Some(1))
    }

    /// Gives up a pack whose file could not be created: the next collection forgets it.
    pub async fn give_up_pack(&self, pack: PackRow) -> Result<()> {
        let operation = Operation::statement("give_up_pack");
        self.execute(operation, sql::GIVE_UP_PACK, [Number(pack.0)]).await.map(drop)
    }

    /// Seals a pack that its maker has written and synced up to `bytes`, durably. False if it does not hold
    /// it any more. For as long as it is in doubt it is not dropped.
    pub async fn seal_own(&self, held: HeldPack, bytes: u64, in_doubt: Duration) -> Result<bool> {
        self.seal(held.pack, (WRITING, Some(held.writer.0)), bytes, in_doubt).await
    }

    /// Seals a pack that is in this state, and has this maker. Its row is locked before it is looked up how
    /// many of its bytes are dead.
    async fn seal(
        &self,
        pack: PackRow,
        is: (i64, Option<i64>),
        bytes: u64,
        in_doubt: Duration,
    ) -> Result<bool> {
        let operation = Operation::transaction("seal").synced(true);
        let arguments = (pack, is, bytes, in_doubt);
        self.run(operation, arguments, |mut connection, (pack, (state, maker), bytes, in_doubt)| {
            Box::pin(async move {
                let read = |row: &Columns<'_>| Ok((row.number(0)?, row.number(1)?));
                let found = only(connection.rows(sql::LOCK_TO_SEAL, &[Number(pack.0)], read).await?);
                if found.is_none_or(|(is, of)| is != *state || maker.is_some_and(|maker| maker != of)) {
                    return Ok(RollBack(false));
                }
                let values = [Number(*bytes as i64), Value::milliseconds(*in_doubt), Number(pack.0)];
                connection.execute(sql::SEAL, &values).await?;
                Ok(Keep(true))
            })
        })
        .await
    }

    /// Those of the packs that have a row; for each, whether records may be in it that no row points at.
    pub async fn known_packs(&self, names: &[PackName]) -> Result<HashMap<PackName, bool>> {
        let batch = Batch::new().rows("packs", names, |row, name| row.text(&name.to_string()));
        let found =
            self.rows(Operation::read("known_packs"), sql::KNOWN_PACKS, [text(batch.finish())], |row| {
                Ok((row.text(0)?.parse()?, row.number(1)? != 0))
            });
        Ok(found.await?.into_iter().collect())
    }

    /// Inserts rows for packs of this length that have none, as sealed ones that no row points at: they are
    /// dropped when they have been that for the grace.
    pub async fn adopt_packs(&self, packs: &[(PackName, u64)]) -> Result<u64> {
        let batch = Batch::new().rows("packs", packs, |row, (name, bytes)| {
            row.text(&name.to_string());
            row.number(*bytes as i64);
        });
        self.execute(Operation::statement("adopt_packs"), sql::ADOPT_PACKS, [text(batch.finish())]).await
    }

    /// Up to `limit` packs behind `after` that were found and are to be sealed.
    pub async fn found_packs(&self, after: PackRow, limit: usize) -> Result<Vec<(PackRow, PackName)>> {
        self.packs_in_state(FOUND, after, limit).await
    }

    /// Up to `limit` packs behind `after` that were dropped, and whose files are to go.
    pub async fn dropped_packs(&self, after: PackRow, limit: usize) -> Result<Vec<(PackRow, PackName)>> {
        self.packs_in_state(DROPPED, after, limit).await
    }

    async fn packs_in_state(
        &self,
        state: i64,
        after: PackRow,
        limit: usize,
    ) -> Result<Vec<(PackRow, PackName)>> {
        let values = [Number(state), Number(after.0), Value::limit(limit)];
        self.rows(Operation::read("packs_in_state"), sql::PACKS_IN_STATE, values, |row| {
            Ok((PackRow(row.number(0)?), row.text(1)?.parse()?))
        })
        .await
    }

    /// Seals a pack that was found, durably. For as long as it is in doubt it is not dropped.
    pub async fn seal_found(&self, pack: PackRow, bytes: u64, in_doubt: Duration) -> Result<bool> {
        self.seal(pack, (FOUND, None), bytes, in_doubt).await
    }

    /// Up to `limit` blocks of a pack behind this offset, in the order of their records. Whether a live blob
    /// refers to them is not looked at.
    pub async fn pack_blocks(&self, pack: PackRow, after: u64, limit: usize) -> Result<Vec<BlockRecord>> {
        let values = [Number(pack.0), Number(after as i64), Value::limit(limit)];
        self.rows(Operation::read("pack_blocks"), sql::PACK_BLOCKS, values, super::verify::record).await
    }

    /// Marks a block as not stored, durably, if its row still has this place: the next put writes it again.
    pub async fn clear_placed(&self, block: BlockRow, place: &Place) -> Result<bool> {
        let values = [Number(block.0), Number(place.pack.0), Number(place.offset as i64)];
        let operation = Operation::statement("clear_placed").synced(true);
        Ok(self.execute(operation, sql::CLEAR_PLACED, values).await? > 0)
    }

    /// Up to `limit` candidates in packs behind `after`, ordered by row, and the bytes that they take.
    pub async fn packed_candidates(&self, after: BlockRow, limit: usize) -> Result<Vec<(BlockRow, u64)>> {
        let values = [Number(after.0), Value::limit(limit)];
        let operation = Operation::read("packed_candidates");
        self.rows(operation, sql::PACKED_CANDIDATES, values, packed_candidate).await
    }

    /// Looks at these candidates again. The rows of those that nothing refers to go, and their places become
    /// holes, in any case durably: before that no byte of them is given up. Those that something refers to
    /// are no candidates any more.
    pub async fn release(&self, rows: &[BlockRow]) -> Result<Released> {
        let operation = Operation::transaction("release").synced(true);
        let rows = Batch::new().numbers("rows", rows.iter().map(|row| row.0)).finish();
        self.run(operation, rows, |mut connection, rows| {
            Box::pin(async move { release(&mut connection, rows).await })
        })
        .await
    }

    /// Up to `limit` holes, those of a pack one behind the other.
    pub async fn holes(&self, limit: usize) -> Result<Vec<Hole>> {
        self.rows(Operation::read("holes"), sql::HOLES, [Value::limit(limit)], |row| {
            Ok(Hole {
                pack: PackRow(row.number(0)?),
                name: row.text(1)?.parse()?,
                offset: row.number(2)? as u64,
                bytes: row.number(3)? as u64,
            })
        })
        .await
    }

    /// Forgets holes of one pack, of whose bytes so many were punched: the others are dead until the pack
    /// goes.
    pub async fn forget_holes(&self, pack: PackRow, holes: &[Hole], punched: u64) -> Result<()> {
        let batch = Batch::new().numbers("rows", [pack.0]).rows("holes", holes, |row, hole| {
            row.number(hole.pack.0);
            row.number(hole.offset as i64);
        });
        let arguments = (pack, batch.finish(), punched);
        let operation = Operation::transaction("forget_holes");
        self.run(operation, arguments, |mut connection, (pack, batch, punched)| {
            Box::pin(async move {
                connection.rows(sql::LOCK_SEALED, &[text(batch)], |row| row.number(0)).await?;
                let bytes = connection.rows(sql::FORGET_HOLES, &[text(batch)], |row| row.number(1)).await?;
                // Another collection may have forgotten them, and counted them, a moment ago.
                if !bytes.is_empty() {
                    let values = [Number(bytes.iter().sum()), Number(*punched as i64), Number(pack.0)];
                    connection.execute(sql::ADD_DEAD, &values).await?;
                }
                Ok(Keep(()))
            })
        })
        .await
    }

    /// All sealed packs that a row points at.
    pub async fn sealed_packs(&self) -> Result<Vec<SealedPack>> {
        self.rows(Operation::read("sealed_packs"), sql::SEALED_PACKS, [], |row| {
            Ok(SealedPack {
                pack: PackRow(row.number(0)?),
                name: row.text(1)?.parse()?,
                bytes: row.number(2)? as u64,
                dead: row.number(3)?.max(0) as u64,
                punched: row.number(4)?.max(0) as u64,
            })
        })
        .await
    }

    /// Gives blocks of one pack the places to which they were copied, those that are still where they were
    /// (`found` of each mark). `None` if one of the new packs is not held; otherwise how many have moved. The
    /// old bytes are dead, and stay as they are.
    pub async fn move_blocks(
        &self,
        from: PackRow,
        marks: &[Mark],
        packs: &[HeldPack],
    ) -> Result<Option<u64>> {
        let sizes: HashMap<i64, u64> = marks
            .iter()
            .filter_map(|mark| Some((mark.row.0, record_size(mark.found?.stored_size))))
            .collect();
        let operation = Operation::transaction("move_blocks");
        let arguments = (from, Batch::of_marks(marks), packs.to_vec(), sizes);
        self.run(operation, arguments, |mut connection, (from, batch, packs, sizes)| {
            Box::pin(async move {
                if held(&mut connection, packs).await?.len() < packs.len() {
                    return Ok(RollBack(None));
                }
                lock_blocks(&mut connection, batch).await?;
                let moved = connection.rows(sql::MOVE, &[text(batch)], |row| row.number(0)).await?;
                let dead: u64 = moved.iter().filter_map(|row| sizes.get(row)).sum();
                let values = [Number(dead as i64), Number(0), Number(from.0)];
                connection.execute(sql::ADD_DEAD, &values).await?;
                Ok(Keep(Some(moved.len() as u64)))
            })
        })
        .await
    }

    /// Notes which sealed packs are empty since now, up to `limit` of them. Returns how many.
    pub async fn note_empty_packs(&self, limit: usize) -> Result<u64> {
        self.execute(Operation::statement("future_empty_packs"), sql::FUTURE_EMPTY_PACKS, []).await?;
        let operation = Operation::statement("note_empty_packs");
        self.execute(operation, sql::NOTE_EMPTY_PACKS, [Value::limit(limit)]).await
    }

    /// Drops up to `limit` of the packs that have been empty for the grace: until then a restored database
    /// and readers may go there. Not those that are in doubt, which may come back. Durably: a file goes only
    /// behind that.
    pub async fn drop_packs(&self, grace: Duration, limit: usize) -> Result<u64> {
        let operation = Operation::transaction("drop_packs").synced(true);
        self.run(operation, (grace, limit), |mut connection, (grace, limit)| {
            Box::pin(async move {
                let values = [Value::milliseconds(*grace), Value::milliseconds(DOUBT), Value::limit(*limit)];
                let mut packs = connection.rows(sql::EMPTY_PACKS, &values, |row| row.number(0)).await?;
                let batch = numbers(&packs);
                // Looked up while they are locked.
                let used = connection.rows(sql::POINTED_AT, &[text(&batch)], |row| row.number(0)).await?;
                let used: HashSet<i64> = used.into_iter().collect();
                packs.retain(|pack| !used.contains(pack));
                let batch = numbers(&packs);
                connection.execute(sql::DROP_HOLES, &[text(&batch)]).await?;
                connection.execute(sql::DROP_PACKS, &[text(&batch)]).await?;
                Ok(Keep(packs.len() as u64))
            })
        })
        .await
    }

    /// Forgets packs that were dropped, and whose files are gone for good.
    pub async fn forget_packs(&self, packs: &[PackRow]) -> Result<()> {
        let batch = numbers(&packs.iter().map(|pack| pack.0).collect::<Vec<_>>());
        self.execute(Operation::statement("forget_packs"), sql::FORGET_PACKS, [text(batch)]).await.map(drop)
    }
}

fn numbers(rows: &[i64]) -> String {
    Batch::new().numbers("rows", rows.iter().copied()).finish()
}

fn packed_candidate(row: &Columns<'_>) -> Result<(BlockRow, u64), Problem> {
    Ok((BlockRow(row.number(0)?), row.number(1)? as u64))
}

async fn release(connection: &mut Connection<'_>, rows: &str) -> Result<Ending<Released>, Problem> {
    let mut blocks = connection.rows(sql::PACKED_CANDIDATES_AGAIN, &[text(rows)], packed_candidate).await?;
    let locked = numbers(&blocks.iter().map(|(row, _)| row.0).collect::<Vec<_>>());
    // Looked up while they are locked: a put that refers to one of them from now on waits for that lock
    // first.
    let referenced = connection.rows(sql::REFERENCED, &[text(&locked)], |row| row.number(0)).await?;
    if !referenced.is_empty() {
        connection.execute(sql::UNMARK_PACKED, &[text(numbers(&referenced))]).await?;
    }
    let found: HashSet<i64> = referenced.into_iter().collect();
    blocks.retain(|(row, _)| !found.contains(&row.0));
    if !blocks.is_empty() {
        let rows = numbers(&blocks.iter().map(|(row, _)| row.0).collect::<Vec<_>>());
        connection.execute(sql::INSERT_HOLES, &[text(&rows)]).await?;
        connection.execute(sql::RELEASE, &[text(&rows)]).await?;
    }
    Ok(Keep(Released {
        blocks: blocks.len() as u64,
        bytes: blocks.iter().map(|(_, bytes)| bytes).sum(),
        referenced: found.len() as u64,
    }))
}
