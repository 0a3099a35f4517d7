//! The table of settings, and their values.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::error::{Code, Error};

/// A setting.
#[derive(Debug)]
#[non_exhaustive]
pub struct Setting {
    /// Its name, here and in the environment.
    pub name: &'static str,
    /// Its default; empty if it has none.
    pub default: &'static str,
    /// Its meaning.
    pub meaning: &'static str,
}

impl Setting {
    /// A setting for a table like [`SETTINGS`].
    pub const fn new(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
        Setting { name, default, meaning }
    }

    /// The parts of `NAME=VALUE`, as the command lines take it. The value may be a path, which need not be
    /// text. Nothing else is checked.
    ///
    /// ```
    /// use graviton_core::Setting;
    ///
    /// let parts = Setting::assignment("GRAVITON_FS_ROOT=a=b".into());
    /// assert_eq!(parts, Ok(("GRAVITON_FS_ROOT".to_owned(), "a=b".into())));
    /// assert!(Setting::assignment("GRAVITON_FS_ROOT".into()).is_err());
    /// ```
    pub fn assignment(text: OsString) -> Result<(String, OsString), &'static str> {
        let text = text.into_vec();
        let equals = text.iter().position(|byte| *byte == b'=');
        let (name, value) = text.split_at(equals.ok_or("it does not have the form KEY=VALUE")?);
        Ok((String::from_utf8_lossy(name).into_owned(), OsString::from_vec(value[1..].to_vec())))
    }
}

/// All settings, in the order of the documentation.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    Setting::new("GRAVITON_BLOB_BACKEND", "fs", "where blocks are stored: fs, s3 or minio"),
    Setting::new("GRAVITON_FS_ROOT", "./.graviton", "the directory of the store"),
    Setting::new("GRAVITON_FS_BLOCK_PREFIX", "cas/blocks", "the directory of the blocks under the root"),
    Setting::new("GRAVITON_BLOCK_LAYOUT", "files",
        "where new blocks are written: files (each is a file or object of its own) or packs (many of them share a file)"),
    Setting::new("GRAVITON_COMPRESSION", if cfg!(feature = "zstd") { "zstd:1" } else { "none" },
        "how new blocks in packs are compressed: none, zstd or zstd:<level>, 1 to 19"),
    Setting::new("QUASAR_MINIO_URL", "", "the S3 server, such as http://localhost:9000; without it, s3 is AWS"),
    Setting::new("MINIO_ROOT_USER", "", "the access key of the S3 server"),
    Setting::new("MINIO_ROOT_PASSWORD", "", "the secret key of the S3 server"),
    Setting::new("GRAVITON_S3_BLOCK_BUCKET", "graviton-blocks", "the bucket for blocks, which must exist"),
    Setting::new("GRAVITON_S3_BLOCK_PREFIX", "cas/blocks", "the prefix of the blocks' object keys; / for none"),
    Setting::new("GRAVITON_S3_REGION", "us-east-1", "the region of the bucket; AWS uses AWS_REGION if this is not set"),
    Setting::new("GRAVITON_S3_ADDRESSING", "path", "where the bucket is in URLs of the S3 server: path (host/bucket) or virtual (bucket.host)"),
    Setting::new("GRAVITON_S3_CA", "", "a PEM file of authorities to trust besides those of the system; AWS uses AWS_CA_BUNDLE if this is not set"),
    Setting::new("GRAVITON_MANIFEST_URL", "",
        "sqlite:PATH or postgres://user:password@host:port/database; by default sqlite:<GRAVITON_FS_ROOT>/manifests.db"),
    Setting::new("GRAVITON_SQLITE_NETWORK", "refuse",
        "whether the SQLite database may be on a network filesystem: refuse, or one-host if no other host ever opens it"),
    Setting::new("PG_JDBC_URL", "", "the database of an existing deployment: jdbc:postgresql://host:port/database"),
    Setting::new("PG_USERNAME", "", "its user"),
    Setting::new("PG_PASSWORD", "", "its password"),
    Setting::new("GRAVITON_PG_SCHEMA", "graviton", "the schema of the tables in PostgreSQL, made if the user may"),
    Setting::new("GRAVITON_PG_CONNECTIONS", "10", "connections to PostgreSQL of one open store at once, and one more for its lease"),
    Setting::new("GRAVITON_HASH", "blake3", "the hash algorithm for new blobs: blake3 or sha256; both can always be read"),
    Setting::new("GRAVITON_CHUNKER", "fastcdc:65536:262144:1048576",
        "how streams are cut: fixed:<bytes>, fastcdc:<min>:<avg>:<max> or delimiter:<hex>:<max>"),
    Setting::new("GRAVITON_DURABILITY", "full",
        "full: a returned put survives power loss; relaxed: only a crash of the process"),
    Setting::new("GRAVITON_VERIFY_READS", "true", "whether every block is hashed before any of it is returned"),
    Setting::new("GRAVITON_GC_GRACE", "1h", "how long a deleted blob can be restored and its open readers continue"),
];

/// The values that were given to settings, by name.
#[derive(Clone, Default)]
pub(super) struct Values(BTreeMap<&'static str, String>);

impl Values {
    /// The value that was given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value that was given, or the default of the setting of that name.
    #[cfg(feature = "s3")]
    pub(super) fn or_default(&self, name: &str) -> &str {
        self.get(name).unwrap_or_else(|| {
            let setting = SETTINGS.iter().find(|setting| setting.name == name);
            setting.expect("the name of a setting is in the table").default
        })
    }

    pub(super) fn set(&mut self, setting: &'static Setting, value: &str) {
        self.0.insert(setting.name, value.to_owned());
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

/// The error for a setting of a backend that is not part of this build.
pub(super) fn left_out(what: &str, feature: &str) -> Error {
    Error::new(Code::Config, format!("{what}, and this build of Graviton has no {feature}"))
        .with_advice(format!("build graviton-core with its feature `{feature}`, or use the default backend"))
}
