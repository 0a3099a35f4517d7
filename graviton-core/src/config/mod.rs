//! The settings, which have the same names in every language and in the environment.
//!
//! A [`Config`] is plain data: names and texts, checked when they are set and again together when the store
//! is opened. The library reads the environment only in [`Config::from_env`], and, if blocks are in AWS, the
//! standard `AWS_*` variables at open.

mod database;
mod other;
mod s3;
mod values;

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_recursion::async_recursion as boxed;

use crate::block::pack::Compression;
use crate::block::pack::compress::LEVELS;
use crate::block::{BlockStore, FsBlockStore};
use crate::blocking;
use crate::chunker::ChunkerSpec;
use crate::digest::Algo;
use crate::engine::{AsyncStore, BlockLayout, Seen, Settings, Timing};
use crate::error::{Code, Error, Result};
use crate::manifest::{Durability, ManifestRepo, Opening, check_local};
use crate::quantity;
use database::Manifests;
use values::{Values, left_out};

pub use values::{SETTINGS, Setting};

/// The location and the settings of a store.
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # let directory = directory.path().to_str().unwrap();
/// use graviton_core::Config;
/// let store = Config::new()
///     .set("GRAVITON_FS_ROOT", directory)?
///     .set("GRAVITON_HASH", "sha256")?
///     .open()?;
/// assert!(Config::new().set("GRAVITON_HUSH", "sha256").is_err());
/// # Ok::<(), graviton_core::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Config {
    values: Values,
    /// A directory that came as a path, which need not be text; it goes before `GRAVITON_FS_ROOT`.
    directory: Option<PathBuf>,
    adopt: bool,
    take_over: bool,
    window: Option<usize>,
    shared_window: usize,
    timing: Option<Timing>,
}

impl Config {
    /// The defaults: a store in `./.graviton`.
    pub fn new() -> Config {
        Config::default()
    }

    /// The defaults, with the store in this directory.
    pub fn for_directory(directory: impl AsRef<Path>) -> Config {
        Config { directory: Some(directory.as_ref().to_owned()), ..Config::new() }
    }

    /// Sets `GRAVITON_FS_ROOT` to this directory, whose name need not be text.
    pub fn in_directory(self, directory: impl AsRef<Path>) -> Result<Config> {
        let directory = directory.as_ref();
        match directory.to_str() {
            Some(text) => self.set("GRAVITON_FS_ROOT", text),
            None => Ok(Config { directory: Some(directory.to_owned()), ..self }),
        }
    }

    /// Reads the settings from the environment; the others have their defaults. Other variables are ignored.
    pub fn from_env() -> Result<Config> {
        let mut config = Config::new();
        for setting in SETTINGS {
            let Some(value) = std::env::var_os(setting.name).filter(|value| !value.is_empty()) else {
                continue;
            };
            match value.to_str() {
                // They may be another program's, and are checked when they are used.
                Some(text) if s3::is_unused(&config.values, setting.name) => config.values.set(setting, text),
                _ => config = config.set_os(setting.name, &value)?,
            }
        }
        Ok(config)
    }

    /// The same as [`set`](Config::set) for a value as the system gives it. `GRAVITON_FS_ROOT` need not be
    /// Unicode; any other value that is not is `config`.
    pub fn set_os(self, name: &str, value: &OsStr) -> Result<Config> {
        match value.to_str() {
            Some(text) => self.set(name, text),
            None if name == "GRAVITON_FS_ROOT" => self.in_directory(value),
            None if SETTINGS.iter().all(|setting| setting.name != name) => Err(unknown(name)),
            None => Err(Error::new(Code::Config, format!("{name} is not Unicode text"))
                .with_advice("set it to plain text")),
        }
    }

    /// Sets one of [`SETTINGS`]. An unknown name or an invalid value is `config`.
    pub fn set(mut self, name: &str, value: &str) -> Result<Config> {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            return Err(unknown(name));
        };
        check(setting.name, value)?;
        if name == "GRAVITON_FS_ROOT" {
            self.directory = None;
        }
        self.values.set(setting, value);
        Ok(self)
    }

    /// The value of a setting, or its default. A secret reads `…`.
    pub fn get(&self, name: &str) -> Result<String> {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            return Err(unknown(name));
        };
        if name == "GRAVITON_FS_ROOT" {
            return Ok(self.root().display().to_string());
        }
        if name == "GRAVITON_MANIFEST_URL" && self.values.get(name).is_none() {
            return Ok(format!("sqlite:{}", self.root().join("manifests.db").display()));
        }
        match self.values.get(setting.name) {
            Some(value) if is_secret(name, value) => Ok("…".to_owned()),
            Some(value) => Ok(value.to_owned()),
            None => Ok(setting.default.to_owned()),
        }
    }

    /// Adopts blocks that are already there without a `store-id`, as the first Graviton server left them.
    /// Only for blocks that belong to this database.
    #[must_use]
    pub fn adopt(mut self, adopt: bool) -> Config {
        self.adopt = adopt;
        self
    }

    /// Makes a copy of the database the one that owns the blocks, when the store is opened for writing: a
    /// restored backup, a copy in another place, a standby that was promoted. Everything that uses the other
    /// database has to be ended before: from then on it is the one that is refused. Not for every opening.
    ///
    /// ```
    /// # let directory = tempfile::tempdir().unwrap();
    /// use graviton_core::{Code, Config, Store};
    /// let (root, backup) = (directory.path().join("blobs"), directory.path().join("backup.db"));
    /// let store = Store::open(&root)?;
    /// let put = store.put(&b"content"[..])?;
    /// store.backup(&backup)?;
    /// store.close();
    ///
    /// let url = format!("sqlite:{}", backup.display());
    /// let of_the_backup = Config::for_directory(&root).set("GRAVITON_MANIFEST_URL", &url)?;
    /// let copy = of_the_backup.open()?;
    /// assert!(copy.exists(&put.id)?);
    /// assert_eq!(copy.delete(&put.id).unwrap_err().code(), Code::Config);
    /// of_the_backup.take_over(true).open()?.delete(&put.id)?;
    /// # Ok::<(), graviton_core::Error>(())
    /// ```
    #[must_use]
    pub fn take_over(mut self, take_over: bool) -> Config {
        self.take_over = take_over;
        self
    }

    /// Limits the memory of one put, in bytes, whatever the blob's size. The default is 64 MiB; a program
    /// with many puts at once may set less. The minimum is about three of the largest blocks plus 3 MiB.
    #[must_use]
    pub fn put_window(mut self, bytes: usize) -> Config {
        self.window = Some(bytes);
        self
    }

    /// Sets additional memory in bytes that all puts share, for those that find it unused; by default none.
    /// With a small window for each of many puts, it makes a single put as fast as a large window would.
    #[must_use]
    pub fn shared_put_window(mut self, bytes: usize) -> Config {
        self.shared_window = bytes;
        self
    }

    /// Sets other durations for leases and dooms, for tests. The same in every process that shares the store.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Config {
        self.timing = Some(timing);
        self
    }

    /// Like [`open`](Config::open), on the tokio runtime of the caller.
    pub async fn open_async(&self) -> Result<AsyncStore> {
        self.open_as(Opening::Create).await
    }

    /// Like [`open_existing`](Config::open_existing), on the tokio runtime of the caller.
    pub async fn open_existing_async(&self) -> Result<AsyncStore> {
        self.open_as(Opening::Existing).await
    }

    /// Like [`open_read_only`](Config::open_read_only), on the tokio runtime of the caller.
    pub async fn open_read_only_async(&self) -> Result<AsyncStore> {
        self.open_as(Opening::ToRead).await
    }

    /// Like [`upgrade`](Config::upgrade), on the tokio runtime of the caller.
    pub async fn upgrade_async(&self) -> Result<bool> {
        let manifests = self.manifests(&self.root(), Durability::Full, Opening::Existing, None).await?;
        let upgraded = manifests.upgrade().await;
        manifests.close().await;
        upgraded
    }

    #[boxed]
    async fn open_as(&self, opening: Opening) -> Result<AsyncStore> {
        let root = self.root();
        let durability = durability(&self.get("GRAVITON_DURABILITY")?)?;
        let usual = Settings::default();
        let settings = Settings {
            algo: algo(&self.get("GRAVITON_HASH")?)?,
            chunker: self.get("GRAVITON_CHUNKER")?.parse()?,
            layout: layout(&self.get("GRAVITON_BLOCK_LAYOUT")?)?,
            compression: compression(&self.get("GRAVITON_COMPRESSION")?)?,
            durability,
            verify_reads: truth(&self.get("GRAVITON_VERIFY_READS")?)?,
            read_only: opening == Opening::ToRead,
            adopt: self.adopt,
            take_over: self.take_over,
            grace: duration(&self.get("GRAVITON_GC_GRACE")?)?,
            timing: self.timing.unwrap_or(Timing::USUAL),
            window: self.window.unwrap_or(usual.window),
            shared_window: self.shared_window,
        };
        check_root(&root)?;
        if root.exists() && !root.is_dir() {
            return Err(Error::new(
                Code::Config,
                format!("cannot open a store in {}: it is a file, not a directory", root.display()),
            )
            .with_advice("name a directory with GRAVITON_FS_ROOT"));
        }
        let blocks = if let Some(blocks) = s3::block_store(&self.values)? {
            blocks
        } else {
            let prefix = self.get("GRAVITON_FS_BLOCK_PREFIX")?;
            Arc::new(FsBlockStore::new(&root, &prefix, durability == Durability::Full)) as Arc<dyn BlockStore>
        };
        let manifests = self.manifests(&root, durability, opening, Some(&*blocks));
        // Beside each other: that each is patient with a server that does not answer must not add up.
        let (manifests, seen) = tokio::try_join!(manifests, blocks.store_id())?;
        let seen = seen.map_or(Seen::Nothing, Seen::StoreId);
        AsyncStore::join(blocks, Arc::new(manifests), settings, seen).await
    }

    async fn manifests(
        &self,
        root: &Path,
        durability: Durability,
        opening: Opening,
        blocks: Option<&dyn BlockStore>,
    ) -> Result<ManifestRepo> {
        // Boxed: what they do on the way would make every future around them large.
        match database::manifests(&self.values, root)? {
            Manifests::Sqlite(path) => {
                if self.get("GRAVITON_SQLITE_NETWORK")? == "refuse" {
                    let place = path.clone();
                    blocking::run(move || check_local(&place)).await??;
                }
                if let (Opening::Create, Some(blocks)) = (opening, blocks) {
                    not_lost(&path, blocks).await?;
                }
                Box::pin(ManifestRepo::open_sqlite(&path, durability, opening)).await
            }
            #[cfg(not(feature = "postgres"))]
            Manifests::Postgres(address) => match *address {},
            #[cfg(feature = "postgres")]
            Manifests::Postgres(address) => {
                Box::pin(ManifestRepo::open_postgres(&address, durability, opening)).await
            }
        }
    }

    fn root(&self) -> PathBuf {
        let text = || self.values.get("GRAVITON_FS_ROOT").unwrap_or("./.graviton");
        self.directory.clone().unwrap_or_else(|| PathBuf::from(text()))
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directory = self.directory.iter().map(|path| ("GRAVITON_FS_ROOT", path.to_str().unwrap_or("…")));
        let shown =
            self.values.iter().map(|(name, value)| (name, if is_secret(name, value) { "…" } else { value }));
        f.debug_map().entries(directory).entries(shown).finish()
    }
}

/// Fails if it is the address of something else: a directory of that name would be made.
fn check_root(root: &Path) -> Result<()> {
    let text = root.to_string_lossy();
    if text == ":memory:" || database::is_address(&text) {
        let why = format!("cannot open a store in {text}: it is an address, not a directory");
        return Err(Error::new(Code::Config, why)
            .with_advice("name a directory (one of that name with ./ before it); blocks in S3 and manifests in PostgreSQL are settings"));
    }
    Ok(())
}

/// Fails if the database is not there, and there are files of blocks that belong to one. It would be made,
/// and be another one, of which nobody would know later that it is new.
async fn not_lost(path: &Path, blocks: &dyn BlockStore) -> Result<()> {
    // A database is made before its id is written beside the blocks.
    if !blocks.is_local() || path.exists() || blocks.store_id().await?.is_none() || path.exists() {
        return Ok(());
    }
    let why = format!(
        "the blocks in {} belong to another database: {} does not exist",
        blocks.location(),
        path.display()
    );
    Err(Error::new(Code::Config, why).with_advice(
        "open them with the database that they were written with (GRAVITON_MANIFEST_URL), restore it from a backup, \
         or choose another place for the blocks",
    ))
}

/// Whether the value must not be shown.
fn is_secret(name: &str, value: &str) -> bool {
    match name {
        // URLs may hold a password.
        "GRAVITON_MANIFEST_URL" => !value.starts_with("sqlite:"),
        "PG_JDBC_URL" | "PG_PASSWORD" => true,
        name => s3::is_secret(name, value),
    }
}

fn unknown(name: &str) -> Error {
    let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
    Error::new(Code::Config, format!("{name:?} is not a setting"))
        .with_advice(format!("the settings are {}", known.join(", ")))
}

/// Whether the value is possible for that setting by itself.
fn check(name: &str, value: &str) -> Result<()> {
    match name {
        "GRAVITON_BLOB_BACKEND" => match value {
            "fs" => Ok(()),
            "s3" | "minio" if cfg!(feature = "s3") => Ok(()),
            "s3" | "minio" => Err(left_out(&format!("{name}={value}"), "s3")),
            _ => Err(wrong(name, value, "there is no such backend", "use fs, s3 or minio")),
        },
        _ if s3::NAMES.contains(&name) => s3::check(name, value),
        "GRAVITON_FS_ROOT" if value.is_empty() => Err(wrong(name, value, "it is empty", "name a directory")),
        "GRAVITON_FS_BLOCK_PREFIX" => prefix(value).map(drop),
        "GRAVITON_MANIFEST_URL" => database::check_url(value),
        "PG_JDBC_URL" => database::check_jdbc(value),
        database::CONNECTIONS => database::connections(value).map(drop),
        "GRAVITON_SQLITE_NETWORK" if matches!(value, "refuse" | "one-host") => Ok(()),
        "GRAVITON_SQLITE_NETWORK" => {
            Err(wrong(name, value, "there is no such choice", "use refuse or one-host"))
        }
        "GRAVITON_BLOCK_LAYOUT" => layout(value).map(drop),
        "GRAVITON_COMPRESSION" => compression(value).map(drop),
        "GRAVITON_HASH" => algo(value).map(drop),
        "GRAVITON_CHUNKER" => value.parse::<ChunkerSpec>().map(drop),
        "GRAVITON_DURABILITY" => durability(value).map(drop),
        "GRAVITON_VERIFY_READS" => truth(value).map(drop),
        "GRAVITON_GC_GRACE" => duration(value).map(drop),
        _ => Ok(()),
    }
}

fn wrong(name: &str, value: &str, why: &str, advice: &str) -> Error {
    Error::new(Code::Config, format!("{name} cannot be {value:?}: {why}")).with_advice(advice)
}

fn prefix(value: &str) -> Result<&str> {
    let inside = Path::new(value).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if inside {
        return Ok(value);
    }
    Err(wrong(
        "GRAVITON_FS_BLOCK_PREFIX",
        value,
        "it leads out of the root",
        "use a relative path without . and ..",
    ))
}

fn algo(value: &str) -> Result<Algo> {
    value
        .parse()
        .map_err(|_| wrong("GRAVITON_HASH", value, "there is no such algorithm", "use blake3 or sha256"))
}

fn layout(value: &str) -> Result<BlockLayout> {
    value
        .parse()
        .map_err(|_| wrong("GRAVITON_BLOCK_LAYOUT", value, "there is no such layout", "use files or packs"))
}

fn compression(value: &str) -> Result<Compression> {
    const NAME: &str = "GRAVITON_COMPRESSION";
    let wrong = |why| wrong(NAME, value, why, "use none, zstd, or zstd:<level> with a level of 1 to 19");
    if value == "none" {
        return Ok(Compression::None);
    }
    let level = match value.strip_prefix("zstd") {
        Some("") => 1,
        Some(level) => {
            let digits =
                level.strip_prefix(':').filter(|level| level.bytes().all(|byte| byte.is_ascii_digit()));
            let level = digits.and_then(|level| level.parse().ok()).filter(|level| LEVELS.contains(level));
            level.ok_or_else(|| wrong("there is no such level"))?
        }
        None => return Err(wrong("there is no such compression")),
    };
    if cfg!(feature = "zstd") {
        Ok(Compression::Zstd(level))
    } else {
        Err(left_out(&format!("{NAME}={value}"), "zstd"))
    }
}

fn durability(value: &str) -> Result<Durability> {
    match value {
        "full" => Ok(Durability::Full),
        "relaxed" => Ok(Durability::Relaxed),
        _ => Err(wrong("GRAVITON_DURABILITY", value, "it is not a durability", "use full or relaxed")),
    }
}

fn truth(value: &str) -> Result<bool> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(wrong("GRAVITON_VERIFY_READS", value, "it is not a boolean", "use true or false")),
    }
}

fn duration(value: &str) -> Result<Duration> {
    quantity::duration(value).map_err(|form| wrong("GRAVITON_GC_GRACE", value, "it is not a duration", form))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_possible_value() {
        for setting in SETTINGS {
            assert!(
                setting.default.is_empty() || check(setting.name, setting.default).is_ok(),
                "{}",
                setting.name
            );
        }
        assert_eq!(Config::new().get("GRAVITON_MANIFEST_URL").unwrap(), "sqlite:./.graviton/manifests.db");
    }

    #[cfg(all(feature = "s3", feature = "postgres"))]
    #[test]
    fn impossible_values_are_refused_where_they_are_set() {
        for (name, value) in [
            ("GRAVITON_BLOB_BACKEND", "ftp"),
            ("GRAVITON_BLOB_BACKEND", "S3"),
            ("GRAVITON_FS_ROOT", ""),
            ("GRAVITON_FS_BLOCK_PREFIX", "../x"),
            ("GRAVITON_FS_BLOCK_PREFIX", "/x"),
            ("GRAVITON_FS_BLOCK_PREFIX", "./x"),
            ("GRAVITON_MANIFEST_URL", "mysql://x"),
            ("GRAVITON_MANIFEST_URL", "sqlite:"),
            ("GRAVITON_SQLITE_NETWORK", "allow"),
            ("GRAVITON_BLOCK_LAYOUT", "pack"),
            ("GRAVITON_COMPRESSION", "gzip"),
            ("GRAVITON_COMPRESSION", "zstd:0"),
            ("GRAVITON_COMPRESSION", "zstd:20"),
            ("GRAVITON_COMPRESSION", "zstd:+1"),
            ("GRAVITON_COMPRESSION", "zstd1"),
            ("GRAVITON_HASH", "md5"),
            ("GRAVITON_CHUNKER", "rabin"),
            ("GRAVITON_DURABILITY", "none"),
            ("GRAVITON_VERIFY_READS", "yes"),
            ("GRAVITON_GC_GRACE", "1w"),
            ("GRAVITON_GC_GRACE", "h"),
            ("GRAVITON_GC_GRACE", "99999999999999999999h"),
            ("graviton_hash", "blake3"),
            ("GRAVITON_HTTP_PORT", "x"),
            ("QUASAR_MINIO_URL", "localhost:9000"),
            ("MINIO_ROOT_USER", ""),
            ("MINIO_ROOT_PASSWORD", ""),
            ("GRAVITON_S3_BLOCK_BUCKET", "a/b"),
            ("GRAVITON_S3_BLOCK_PREFIX", "a/../b"),
            ("GRAVITON_S3_REGION", ""),
        ] {
            let error = Config::new().set(name, value).unwrap_err();
            assert_eq!(error.code(), Code::Config, "{name}={value}");
            assert!(error.advice().is_some(), "{name}={value}");
        }
        let error = Config::new().set("GRAVITON_X", "1").unwrap_err();
        assert!(error.advice().unwrap().contains("GRAVITON_CHUNKER"));
    }

    #[test]
    fn durations_have_units() {
        for (text, seconds) in
            [("0", 0), ("0s", 0), ("90s", 90), ("30m", 1800), ("1h", 3600), ("7d", 604_800)]
        {
            assert_eq!(duration(text).unwrap(), Duration::from_secs(seconds));
        }
    }

    #[cfg(not(any(feature = "s3", feature = "postgres")))]
    #[test]
    fn a_backend_that_is_not_in_this_build_is_named() {
        for (name, value, feature) in [
            ("GRAVITON_BLOB_BACKEND", "s3", "s3"),
            ("GRAVITON_BLOB_BACKEND", "minio", "s3"),
            ("GRAVITON_COMPRESSION", "zstd:3", "zstd"),
            ("GRAVITON_MANIFEST_URL", "postgres://u:secret@h/d", "postgres"),
            ("PG_JDBC_URL", "jdbc:postgresql://h/d", "postgres"),
        ] {
            let error = Config::new().set(name, value).unwrap_err();
            assert_eq!(error.code(), Code::Config, "{name}={value}");
            assert!(error.advice().unwrap().contains(&format!("`{feature}`")), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[cfg(all(feature = "s3", feature = "postgres"))]
    #[test]
    fn debug_shows_no_password() {
        let mut config = Config::new();
        for (name, value) in [
            ("GRAVITON_MANIFEST_URL", "postgres://u:secret@h/d"),
            ("PG_JDBC_URL", "jdbc:postgresql://h/d?password=secret"),
            ("PG_PASSWORD", "secret"),
        ] {
            config = config.set(name, value).unwrap();
        }
        assert!(!format!("{config:?}").contains("secret"));
    }
}
