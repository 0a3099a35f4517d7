//! A copy of the database, made while it is in use.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::connect::Reader;
use super::database::{File, SqliteDatabase};
use super::failure::{self, repeated};
use crate::blocking;
use crate::durable;
use crate::error::{Code, Error, Result};
use crate::manifest::connection::Problem;
use crate::repeated::again;

impl SqliteDatabase {
    /// `VACUUM INTO`: a copy of one moment, made while others write. It gets its name when it is whole and
    /// durable.
    pub(in crate::manifest) async fn backup(&self, to: &Path) -> Result<()> {
        let directory = match to.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let failed = |error: io::Error| Error::io_at("cannot write", to, error);
        let make = || tempfile::Builder::new().prefix(".backup-").tempdir_in(directory);
        let work = again(make).map_err(failed)?;
        let copy = work.path().join("copy");
        let Some(name) = copy.to_str().map(str::to_owned) else {
            return Err(Error::new(Code::InvalidArgument, format!("{} is not Unicode text", to.display()))
                .with_advice("choose another name"));
        };
        let (file, to, directory) = (Arc::clone(&self.0), to.to_owned(), directory.to_owned());
        blocking::run_waiting(move || file.unless_it_waits(repeated(|| copy_into(&file, &name)))).await??;
        blocking::run(move || {
            let failed = |error: io::Error| match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    Error::new(Code::InvalidArgument, format!("{} is there already", to.display()))
                        .with_advice("name a file that does not exist yet")
                }
                _ => Error::io_at("cannot write", &to, error),
            };
            repeated(|| mark(&copy)).map_err(|problem| failure::failed(&to, problem))?;
            std::fs::File::open(&copy).and_then(|file| file.sync_all()).map_err(failed)?;
            durable::rename_without_replacing(&copy, &to).map_err(failed)?;
            drop(work);
            durable::sync_directory(&directory)
        })
        .await?
    }
}

/// Says in the copy that it is one, so that it does not pass for the database that owns the blocks. A store
/// that an older version wrote, and that is only read, has no place for it.
fn mark(copy: &Path) -> Result<(), Problem> {
    let connection = Connection::open(copy)?;
    let sql = "SELECT count(*) FROM pragma_table_info('store') WHERE name = 'is_backup'";
    if connection.query_row(sql, [], |row| row.get::<_, i64>(0))? == 1 {
        connection.execute("UPDATE store SET is_backup = TRUE", [])?;
    }
    connection.close().map_err(|(_, error)| error.into())
}

/// Over a connection of its own: those that read refuse everything that writes, even to another file.
fn copy_into(file: &File, name: &str) -> Result<(), Problem> {
    file.check_open()?;
    let Reader { connection, .. } = Reader::connect(&file.files)?;
    connection.pragma_update(None, "query_only", false)?;
    // Of a run that a signal ended.
    let _ = std::fs::remove_file(name);
    connection.execute("VACUUM INTO ?1", [name])?;
    Ok(())
}
