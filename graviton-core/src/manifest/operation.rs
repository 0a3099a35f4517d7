//! Runs an operation of the repository, and reports it to its observers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::sql::Tables;
use crate::error::Result;

/// How an operation runs on the database.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    /// The name of its method.
    name: &'static str,
    pub(super) access: Access,
    /// The tables of the database that it runs on.
    pub(super) tables: Tables,
    /// Whether its commit survives a power cut once the operation has returned.
    pub(super) synced: bool,
    /// How long it may take before the database counts as gone.
    pub(super) patience: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// It only reads.
    Read,
    /// It only reads, right before its caller runs a transaction that writes.
    ReadBeforeWrite,
    /// It is one statement that writes, and needs no transaction around it where each statement is one.
    Statement,
    /// It is several statements that take effect together or not at all.
    Transaction,
    /// It is the statement that renews a lease, which must not wait for other operations of this process.
    Renewal,
}

impl Operation {
    const fn new(name: &'static str, access: Access) -> Operation {
        let patience = Duration::from_secs(60);
        Operation { name, access, tables: Tables::Packs, synced: false, patience }
    }

    pub(super) const fn read(name: &'static str) -> Operation {
        Operation::new(name, Access::Read)
    }

    pub(super) const fn read_before_write(name: &'static str) -> Operation {
        Operation::new(name, Access::ReadBeforeWrite)
    }

    pub(super) const fn statement(name: &'static str) -> Operation {
        Operation::new(name, Access::Statement)
    }

    pub(super) const fn transaction(name: &'static str) -> Operation {
        Operation::new(name, Access::Transaction)
    }

    pub(super) const fn renewal(name: &'static str) -> Operation {
        Operation::new(name, Access::Renewal)
    }

    pub(super) const fn on(self, tables: Tables) -> Operation {
        Operation { tables, ..self }
    }

    pub(super) const fn synced(self, synced: bool) -> Operation {
        Operation { synced, ..self }
    }

    pub(super) const fn patience(self, patience: Duration) -> Operation {
        Operation { patience, ..self }
    }

    pub(super) fn only_reads(&self) -> bool {
        matches!(self.access, Access::Read | Access::ReadBeforeWrite)
    }
}

/// Watches every operation that writes, so that a test can make it fail or kill the process in it. The
/// `number` tells the operations of a process apart.
pub trait TransactionHook: Send + Sync {
    /// Before the operation begins. On an error nothing is done, and the caller gets that error.
    fn before_begin(&self, operation: &'static str, number: u64) -> Result<()>;

    /// Before the transaction commits; before the statement, if it is only one. On an error nothing is
    /// changed, and the caller gets that error. Called again if the transaction is run again, and not if it
    /// has nothing to commit.
    fn before_commit(&self, operation: &'static str, number: u64) -> Result<()>;

    /// After the operation has ended, with a commit or without. On an error the caller gets that instead of
    /// the answer.
    fn after_end(&self, operation: &'static str, number: u64) -> Result<()>;
}

/// The hook for one run of an operation.
#[derive(Clone)]
pub(super) struct Watch(Option<(Arc<dyn TransactionHook>, &'static str, u64)>);

impl Watch {
    pub(super) fn new(hook: Option<&Arc<dyn TransactionHook>>, operation: Operation) -> Watch {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let hook = hook.filter(|_| !operation.only_reads());
        Watch(hook.map(|hook| (Arc::clone(hook), operation.name, NUMBER.fetch_add(1, Ordering::Relaxed))))
    }

    pub(super) fn before_begin(&self) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |(hook, operation, number)| hook.before_begin(operation, *number))
    }

    pub(super) fn before_commit(&self) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |(hook, operation, number)| hook.before_commit(operation, *number))
    }

    pub(super) fn after_end(&self) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |(hook, operation, number)| hook.after_end(operation, *number))
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch")
            .field(&self.0.as_ref().map(|(_, operation, number)| (operation, number)))
            .finish()
    }
}
