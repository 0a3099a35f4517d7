//! Settings and ids as text; the engine checks them.

use std::path::PathBuf;

use graviton_core::{Algo, BlobId, Config, Hasher, Result, SETTINGS};
use pyo3::prelude::*;

use crate::buffer::Buffer;
use crate::call::call;
use crate::errors::exception;
use crate::text::Text;

/// Names and values, as given.
pub(crate) type Settings = Vec<(String, String)>;

/// The configuration with these settings, and with the store in the directory `path` if one is given.
pub(crate) fn config(settings: &Settings, path: Option<PathBuf>) -> Result<Config> {
    let start = path.map_or_else(Config::new, Config::for_directory);
    settings.iter().try_fold(start, |config, (name, value)| config.set(name, value))
}

/// For every setting: its name, its default and its meaning.
pub(crate) fn all() -> Vec<(&'static str, &'static str, &'static str)> {
    SETTINGS.iter().map(|setting| (setting.name, setting.default, setting.meaning)).collect()
}

/// The settings in the environment, checked; irrelevant ones are left out.
#[pyfunction]
pub(crate) fn environment(py: Python<'_>) -> PyResult<Settings> {
    Config::from_env().map_err(|error| exception(py, &error))?;
    let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let in_files = value("GRAVITON_BLOB_BACKEND").is_none_or(|backend| backend == "fs");
    let of_s3 =
        |name: &str| ["QUASAR_", "MINIO_", "GRAVITON_S3_"].iter().any(|start| name.starts_with(start));
    let used = SETTINGS.iter().filter(|setting| !(in_files && of_s3(setting.name)));
    Ok(used.filter_map(|setting| Some((setting.name.to_owned(), value(setting.name)?))).collect())
}

/// The names of the settings whose values must not be shown or pickled.
#[pyfunction]
pub(crate) fn secrets(py: Python<'_>, settings: Settings) -> PyResult<Vec<String>> {
    let found = config(&settings, None).and_then(|config| {
        let mut found = Vec::new();
        for (name, value) in settings {
            if config.get(&name)? != value && name != "GRAVITON_FS_ROOT" {
                found.push(name);
            }
        }
        Ok(found)
    });
    found.map_err(|error| exception(py, &error))
}

/// The blob id in its canonical form.
#[pyfunction]
pub(crate) fn blob_id(py: Python<'_>, text: Text) -> PyResult<String> {
    let id: BlobId = text.parse().map_err(|error| exception(py, &error))?;
    Ok(id.to_string())
}

/// The id of these bytes.
#[pyfunction]
pub(crate) fn blob_id_of(py: Python<'_>, data: &Bound<'_, PyAny>, algo: Text) -> PyResult<String> {
    let buffer = Buffer::to_read(data)?;
    let mut source = buffer.source();
    call(py, |interrupts| {
        let algo: Algo = algo.parse()?;
        let (mut hasher, mut scratch) = (Hasher::new(algo), Vec::new());
        let mut size = 0;
        loop {
            let piece = source.piece(1 << 20, &mut scratch);
            if piece.is_empty() {
                return Ok(BlobId::new(algo, hasher.finish(), size)?.to_string());
            }
            size += piece.len() as u64;
            hasher.update(piece);
            interrupts.check()?;
        }
    })
}
