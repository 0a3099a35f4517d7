//! Packs that fail or kill their process on purpose: the parts of [`FaultyBlockStore`] and
//! [`CrashingBlockStore`](super::CrashingBlockStore) for packs.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::crashing::{Crash, Moment, die};
use super::faulty::{Fault, FaultyBlockStore, Operation, failure};
use crate::block::{OpenPack, Packs};
use crate::error::Result;
use crate::place::PackName;

pub(super) struct CrashingPacks {
    pub(super) crash: Arc<Crash>,
    pub(super) inner: Arc<dyn Packs>,
}

impl fmt::Debug for CrashingPacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CrashingPacks").field(&self.inner).finish()
    }
}

#[async_trait]
impl Packs for CrashingPacks {
    async fn create(&self, name: &PackName, header: Bytes) -> Result<Arc<dyn OpenPack>> {
        let inner = self.crash.around(self.inner.create(name, header)).await?;
        Ok(Arc::new(CrashingPack { crash: Arc::clone(&self.crash), inner }))
    }

    async fn read(&self, name: &PackName, range: Range<u64>) -> Result<Option<Bytes>> {
        self.inner.read(name, range).await
    }

    async fn length(&self, name: &PackName) -> Result<Option<u64>> {
        self.inner.length(name).await
    }

    async fn sync(&self, name: &PackName) -> Result<()> {
        self.crash.around(self.inner.sync(name)).await
    }

    async fn cut(&self, name: &PackName, bytes: u64) -> Result<()> {
        self.crash.around(self.inner.cut(name, bytes)).await
    }

    async fn punch(&self, name: &PackName, ranges: &[Range<u64>]) -> Result<bool> {
        let moment = self.crash.begin();
        let ranges = match moment {
            Some(Moment::Before) => die(),
            Some(Moment::Middle) => &ranges[..ranges.len() / 2],
            Some(Moment::After) | None => ranges,
        };
        let punched = self.inner.punch(name, ranges).await;
        if moment.is_some() {
            die();
        }
        punched
    }

    async fn remove(&self, names: &[PackName]) -> Result<()> {
        let moment = self.crash.begin();
        let names = match moment {
            Some(Moment::Before) => die(),
            Some(Moment::Middle) => &names[..names.len() / 2],
            Some(Moment::After) | None => names,
        };
        let removed = self.inner.remove(names).await;
        if moment.is_some() {
            die();
        }
        removed
    }

    async fn list(&self) -> Result<Vec<(PackName, u64)>> {
        self.inner.list().await
    }

    fn place(&self, name: &PackName) -> String {
        self.inner.place(name)
    }
}

struct CrashingPack {
    crash: Arc<Crash>,
    inner: Arc<dyn OpenPack>,
}

impl fmt::Debug for CrashingPack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CrashingPack").field(&self.inner).finish()
    }
}

#[async_trait]
impl OpenPack for CrashingPack {
    async fn write(&self, offset: u64, mut parts: Vec<Bytes>) -> Result<()> {
        let moment = self.crash.begin();
        match moment {
            Some(Moment::Before) => die(),
            Some(Moment::Middle) => parts.truncate(parts.len() / 2),
            Some(Moment::After) | None => {}
        }
        let written = self.inner.write(offset, parts).await;
        if moment.is_some() {
            die();
        }
        written
    }

    async fn sync(&self) -> Result<()> {
        self.crash.around(self.inner.sync()).await
    }
}

#[derive(Debug)]
pub(super) struct FaultyPacks {
    pub(super) store: FaultyBlockStore,
    pub(super) inner: Arc<dyn Packs>,
}

#[async_trait]
impl Packs for FaultyPacks {
    async fn create(&self, name: &PackName, header: Bytes) -> Result<Arc<dyn OpenPack>> {
        self.store.fail(Operation::CreatePack)?;
        let inner = self.inner.create(name, header).await?;
        Ok(Arc::new(FaultyPack { store: self.store.clone(), inner }))
    }

    async fn read(&self, name: &PackName, range: Range<u64>) -> Result<Option<Bytes>> {
        let fault = self.store.next(Operation::ReadPack);
        if let Some(Fault::Fail(code) | Fault::FailAfter(code)) = fault {
            return Err(failure(code));
        }
        let Some(bytes) = self.inner.read(name, range).await? else { return Ok(None) };
        Ok(match fault {
            Some(Fault::Missing) => None,
            Some(Fault::Short) => Some(bytes.slice(..bytes.len().saturating_sub(1))),
            Some(Fault::Flip) => {
                let mut flipped = bytes.to_vec();
                if let Some(byte) = flipped.last_mut() {
                    *byte ^= 1;
                }
                Some(flipped.into())
            }
            _ => Some(bytes),
        })
    }

    async fn length(&self, name: &PackName) -> Result<Option<u64>> {
        self.store.fail(Operation::Look)?;
        self.inner.length(name).await
    }

    async fn sync(&self, name: &PackName) -> Result<()> {
        self.store.fail(Operation::SyncPack)?;
        self.inner.sync(name).await
    }

    async fn cut(&self, name: &PackName, bytes: u64) -> Result<()> {
        self.inner.cut(name, bytes).await
    }

    async fn punch(&self, name: &PackName, ranges: &[Range<u64>]) -> Result<bool> {
        match self.store.next(Operation::Punch) {
            // Some filesystems cannot do it.
            Some(Fault::Fail(_)) => Ok(false),
            _ => self.inner.punch(name, ranges).await,
        }
    }

    async fn remove(&self, names: &[PackName]) -> Result<()> {
        self.store.fail(Operation::Remove)?;
        self.inner.remove(names).await
    }

    async fn list(&self) -> Result<Vec<(PackName, u64)>> {
        self.store.fail(Operation::Look)?;
        self.inner.list().await
    }

    fn place(&self, name: &PackName) -> String {
        self.inner.place(name)
    }
}

#[derive(Debug)]
struct FaultyPack {
    store: FaultyBlockStore,
    inner: Arc<dyn OpenPack>,
}

#[async_trait]
impl OpenPack for FaultyPack {
    /// A failure writes the first half before.
    async fn write(&self, offset: u64, mut parts: Vec<Bytes>) -> Result<()> {
        match self.store.next(Operation::WritePack) {
            Some(Fault::Fail(code)) => {
                parts.truncate(parts.len() / 2);
                self.inner.write(offset, parts).await?;
                Err(failure(code))
            }
            Some(Fault::FailAfter(code)) => {
                self.inner.write(offset, parts).await?;
                Err(failure(code))
            }
            Some(Fault::Stall) => {
                self.store.stall().await;
                self.inner.write(offset, parts).await
            }
            _ => self.inner.write(offset, parts).await,
        }
    }

    async fn sync(&self) -> Result<()> {
        match self.store.next(Operation::SyncPack) {
            Some(Fault::Fail(code) | Fault::FailAfter(code)) => return Err(failure(code)),
            Some(Fault::Stall) => self.store.stall().await,
            _ => {}
        }
        self.inner.sync().await
    }
}
