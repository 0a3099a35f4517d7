//! The settings of a second store, for a copy or a repair from it: a directory, or a file of settings.
//!
//! The file has a line `NAME=VALUE` for each setting, as `docker --env-file` and systemd's `EnvironmentFile`
//! read it: the value is everything after the first `=`, without the blanks at the end of the line. Empty
//! lines, and lines that begin with `#`, are ignored. Relative paths in it are relative to the working
//! directory, as they are in the environment. The environment itself is not read: it describes another store.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{Config, SETTINGS};
use crate::error::{Code, Error, Result};

/// More than all settings together ever need. A larger file is something else.
const LARGEST: u64 = 1 << 20;

const ADVICE: &str = "name the directory of a store, or a file with a line NAME=VALUE for each setting";

impl Config {
    /// The settings of the store that `path` names: a directory with a store in it, or a file of settings,
    /// one `NAME=VALUE` a line with empty lines and `#` comments between them.
    ///
    /// A path that does not exist is `not-found`, and anything in the file that is no setting is `config`,
    /// naming its line. No value is repeated that may be a secret. Whether there is a store is found out when
    /// it is opened.
    pub fn for_other(path: impl AsRef<Path>) -> Result<Config> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let why = format!("there is no store: {} does not exist", path.display());
                Error::new(Code::NotFound, why).with_advice(ADVICE)
            }
            _ => Error::io_at("cannot read", path, error),
        })?;
        if metadata.is_dir() {
            return Ok(Config::for_directory(path));
        }
        parse(&read(path)?).map_err(|error| error.within(path.display()))
    }
}

/// The text of the file, which may be a pipe.
fn read(path: &Path) -> Result<String> {
    let failed = |error| Error::io_at("cannot read", path, error);
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    let text = String::from_utf8(bytes).ok().filter(|text| text.len() as u64 <= LARGEST);
    text.ok_or_else(|| {
        Error::new(Code::Config, format!("{} is not a file of settings", path.display())).with_advice(ADVICE)
    })
}

fn parse(text: &str) -> Result<Config> {
    let mut config = Config::new();
    let mut set: Vec<(&str, usize)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            // Not shown: it may be the rest of a secret.
            let why = format!("line {number} is not of the form NAME=VALUE");
            return Err(Error::new(Code::Config, why).with_advice("begin comments with #"));
        };
        if !SETTINGS.iter().any(|setting| setting.name == name) && !is_like_a_setting(name) {
            let why = format!("the name in line {number} is not a setting");
            return Err(Error::new(Code::Config, why).with_advice("`graviton --help` lists the settings"));
        }
        if let Some((_, before)) = set.iter().find(|(other, _)| *other == name) {
            let why = format!("line {number} sets {name}, and so does line {before}");
            return Err(Error::new(Code::Config, why).with_advice("remove one of them"));
        }
        config = config.set(name, value).map_err(|error| error.within(format!("line {number}")))?;
        set.push((name, number));
    }
    Ok(config)
}

/// Whether a name may be shown: a secret that was broken over two lines has another form.
fn is_like_a_setting(name: &str) -> bool {
    name.len() < 40
        && name.contains('_')
        && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(all(feature = "s3", feature = "postgres"))]
    #[test]
    fn lines_comments_and_values_with_anything_in_them() {
        let text = "# the cluster\n\n  GRAVITON_BLOB_BACKEND=minio\r\nMINIO_ROOT_PASSWORD=a=b#c\n\
                    QUASAR_MINIO_URL=http://h:1  \n\t# GRAVITON_HASH=md5\nGRAVITON_FS_ROOT=./a b\n";
        let config = parse(text).unwrap();
        for (name, value) in [
            ("GRAVITON_BLOB_BACKEND", "minio"),
            ("QUASAR_MINIO_URL", "http://h:1"),
            ("GRAVITON_FS_ROOT", "./a b"),
            ("GRAVITON_HASH", "blake3"),
        ] {
            assert_eq!(config.get(name).unwrap(), value);
        }
        assert_eq!(config.values.get("MINIO_ROOT_PASSWORD"), Some("a=b#c"));
        assert_eq!(parse("").unwrap().get("GRAVITON_FS_ROOT").unwrap(), "./.graviton");
    }

    #[cfg(all(feature = "s3", feature = "postgres"))]
    #[test]
    fn what_is_wrong_names_its_line_and_no_secret() {
        for (text, line, saying) in [
            ("GRAVITON_HASH=sha256\nGRAVITON_HUSH=x", "line 2", "\"GRAVITON_HUSH\" is not a setting"),
            ("\n\nxyzzy", "line 3", "NAME=VALUE"),
            ("MINIO_ROOT_PASSWORD=ab\nxyzzy==", "line 2", "not a setting"),
            ("export PG_PASSWORD=xyzzy", "line 1", "not a setting"),
            ("MINIO_ROOT_PASSWORD=xyz zy", "line 1", "MINIO_ROOT_PASSWORD"),
            ("GRAVITON_MANIFEST_URL=mysql://u:xyzzy@h/d", "line 1", "GRAVITON_MANIFEST_URL"),
            ("QUASAR_MINIO_URL=http://u:xyzzy@h", "line 1", "QUASAR_MINIO_URL"),
            ("GRAVITON_CHUNKER=rabin", "line 1", "rabin"),
            ("PG_PASSWORD=xyzzy\n#\nPG_PASSWORD=xyzzy", "line 3", "line 1"),
        ] {
            let error = parse(text).unwrap_err();
            let shown = format!("{error} {:?}", error.advice());
            assert_eq!(error.code(), Code::Config, "{text}");
            assert!(shown.contains(line) && shown.contains(saying), "{shown}");
            assert!(!shown.contains("xyz") && error.advice().is_some(), "{shown}");
        }
    }

    #[test]
    fn a_directory_a_file_and_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        assert_eq!(Config::for_other(directory.path()).unwrap().root(), directory.path());
        std::fs::write(path("settings"), "GRAVITON_FS_ROOT=elsewhere\n").unwrap();
        assert_eq!(Config::for_other(path("settings")).unwrap().root(), Path::new("elsewhere"));
        let error = Config::for_other(path("nothing")).unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        std::fs::write(path("wrong"), "\nA_B=1").unwrap();
        let error = Config::for_other(path("wrong")).unwrap_err();
        assert!(error.to_string().contains("wrong: line 2: \"A_B\""), "{error}");
        for content in [&b"\xff\xfe=1\n"[..], &vec![b'#'; LARGEST as usize + 1]] {
            std::fs::write(path("binary"), content).unwrap();
            let error = Config::for_other(path("binary")).unwrap_err();
            assert!(error.code() == Code::Config && error.to_string().contains("binary is not"), "{error}");
        }
    }
}
