//! The settings of blocks in S3.
//!
//! `minio` is a server of one's own and needs its URL and both credentials. `s3` is the same as soon as one
//! of these three is set. Otherwise it is AWS, and credentials, region and the rest come from the standard
//! `AWS_*` variables. Only in this case does opening a store read the environment.

use std::sync::Arc;

use super::values::Values;
use crate::block::BlockStore;
#[cfg(feature = "s3")]
use crate::block::s3::{S3BlockStore, S3Location, S3Server, check_bucket, check_prefix, check_url};
use crate::error::{Code, Error, Result};

const URL: &str = "QUASAR_MINIO_URL";
const USER: &str = "MINIO_ROOT_USER";
const PASSWORD: &str = "MINIO_ROOT_PASSWORD";
const BUCKET: &str = "GRAVITON_S3_BLOCK_BUCKET";
const PREFIX: &str = "GRAVITON_S3_BLOCK_PREFIX";
const REGION: &str = "GRAVITON_S3_REGION";
const ADDRESSING: &str = "GRAVITON_S3_ADDRESSING";
const CA: &str = "GRAVITON_S3_CA";

pub(super) const NAMES: &[&str] = &[URL, USER, PASSWORD, BUCKET, PREFIX, REGION, ADDRESSING, CA];

/// Whether the value is possible for that setting by itself.
pub(super) fn check(name: &str, value: &str) -> Result<()> {
    match name {
        #[cfg(feature = "s3")]
        URL => check_url(value).map(drop),
        #[cfg(feature = "s3")]
        BUCKET => check_bucket(value),
        #[cfg(feature = "s3")]
        PREFIX => check_prefix(value).map(drop),
        ADDRESSING if matches!(value, "path" | "virtual") => Ok(()),
        ADDRESSING => Err(Error::new(Code::Config, format!("{ADDRESSING} cannot be {value:?}"))
            .with_advice("use path or virtual")),
        CA if !value.is_empty() => Ok(()),
        // Not shown: it is a credential, or next to one.
        _ if value.is_empty() => Err(Error::new(Code::Config, format!("{name} is empty"))
            .with_advice("give it a value, or do not set it")),
        // They travel in headers.
        _ if !value.chars().all(|letter| letter.is_ascii_graphic()) => Err(Error::new(
            Code::Config,
            format!("{name} has a space, a control character or an accent in it"),
        )
        .with_advice("use plain letters, digits and punctuation")),
        _ => Ok(()),
    }
}

/// Whether it must not be shown.
pub(super) fn is_secret(name: &str, value: &str) -> bool {
    // A URL with a password is refused, but here it may not have been looked at yet.
    name == PASSWORD || name == URL && value.contains('@')
}

/// Whether it is one of ours and blocks are not in S3.
pub(super) fn is_unused(values: &Values, name: &str) -> bool {
    NAMES.contains(&name) && backend(values) == "fs"
}

fn backend(values: &Values) -> &str {
    values.get("GRAVITON_BLOB_BACKEND").unwrap_or("fs")
}

/// The blocks, if they are in S3.
#[cfg(feature = "s3")]
pub(super) fn block_store(values: &Values) -> Result<Option<Arc<dyn BlockStore>>> {
    match location(values)? {
        Some(location) => Ok(Some(Arc::new(S3BlockStore::new(location)?))),
        None => Ok(None),
    }
}

/// The blocks are never in S3 in this build; a configuration that says so is refused when it is set.
#[cfg(not(feature = "s3"))]
pub(super) fn block_store(values: &Values) -> Result<Option<Arc<dyn BlockStore>>> {
    match backend(values) {
        "fs" => Ok(None),
        backend => Err(super::values::left_out(&format!("GRAVITON_BLOB_BACKEND={backend}"), "s3")),
    }
}

/// Where the blocks are, if they are in S3.
#[cfg(feature = "s3")]
fn location(values: &Values) -> Result<Option<S3Location>> {
    let backend = backend(values);
    if backend == "fs" {
        return Ok(None);
    }
    for name in NAMES {
        values.get(name).map_or(Ok(()), |value| check(name, value))?;
    }
    let value = |name: &str| values.get(name);
    let mut location = S3Location::new(values.or_default(BUCKET), values.or_default(PREFIX))?;
    if backend == "minio" || [URL, USER, PASSWORD].iter().any(|name| value(name).is_some()) {
        let needed = |name| {
            value(name).ok_or_else(|| {
                let why = format!("GRAVITON_BLOB_BACKEND is {backend}, and {name} is not set");
                let advice = "set QUASAR_MINIO_URL, MINIO_ROOT_USER and MINIO_ROOT_PASSWORD";
                let advice = if backend == "s3" {
                    format!("{advice}, or none of them for AWS")
                } else {
                    advice.into()
                };
                Error::new(Code::Config, why).with_advice(advice)
            })
        };
        let server = S3Server::new(needed(URL)?, needed(USER)?, needed(PASSWORD)?)?;
        location = location.at(server)?.in_region(values.or_default(REGION));
    } else if let Some(region) = value(REGION) {
        location = location.in_region(region);
    }
    if value(ADDRESSING) == Some("virtual") {
        location = location.with_virtual_host();
    }
    if let Some(file) = value(CA) {
        location = location.trusting(file);
    }
    Ok(Some(location))
}

#[cfg(all(test, feature = "s3"))]
mod tests {
    use super::super::Config;
    use super::*;

    fn config(values: &[(&str, &str)]) -> Config {
        values.iter().fold(Config::new(), |config, (name, value)| config.set(name, value).unwrap())
    }

    const SERVER: [(&str, &str); 3] =
        [(URL, "http://localhost:9000/"), (USER, "somebody"), (PASSWORD, "xyzzy")];

    #[test]
    fn files_need_nothing_of_it() {
        assert!(location(&Config::new().values).unwrap().is_none());
        assert!(location(&config(&SERVER).values).unwrap().is_none());
    }

    #[test]
    fn a_server_needs_its_url_and_both_credentials() {
        for backend in ["s3", "minio"] {
            let whole = config(&SERVER).set("GRAVITON_BLOB_BACKEND", backend).unwrap();
            let location = location(&whole.values).unwrap().unwrap();
            let shown = format!("{location:?}");
            assert!(shown.contains("\"graviton-blocks\"") && shown.contains("\"cas/blocks\""), "{shown}");
            assert!(shown.contains("us-east-1") && shown.contains("\"http://localhost:9000\""), "{shown}");
            for missing in 0..3 {
                let mut values = SERVER.to_vec();
                let (name, _) = values.remove(missing);
                let partial = config(&values).set("GRAVITON_BLOB_BACKEND", backend).unwrap();
                let error = super::location(&partial.values).unwrap_err();
                assert_eq!(error.code(), Code::Config);
                assert!(error.to_string().contains(name), "{error}");
            }
        }
        let error = location(&config(&[("GRAVITON_BLOB_BACKEND", "minio")]).values).unwrap_err();
        assert!(error.to_string().contains(URL), "{error}");
    }

    #[test]
    fn s3_alone_is_aws() {
        let aws = config(&[("GRAVITON_BLOB_BACKEND", "s3"), (BUCKET, "mine"), (PREFIX, "/")]);
        let shown = format!("{:?}", location(&aws.values).unwrap().unwrap());
        // The region is left to AWS_REGION.
        assert!(shown.contains("region: None") && shown.contains("server: None"), "{shown}");
        let shown =
            format!("{:?}", location(&aws.set(REGION, "eu-west-1").unwrap().values).unwrap().unwrap());
        assert!(shown.contains("eu-west-1"), "{shown}");
    }

    #[test]
    fn the_password_is_never_shown() {
        let config = config(&SERVER).set("GRAVITON_BLOB_BACKEND", "minio").unwrap();
        assert_eq!(config.get(PASSWORD).unwrap(), "…");
        assert_eq!(config.get(USER).unwrap(), "somebody");
        let shown = format!("{config:?} {:?}", location(&config.values).unwrap());
        assert!(!shown.contains("xyzzy"), "{shown}");
        for (name, value) in [(URL, "http://u:xyzzy@h"), (PASSWORD, "xyzzy\n")] {
            let error = config.clone().set(name, value).unwrap_err();
            assert!(!format!("{error} {:?}", error.advice()).contains("xyzzy"), "{error}");
        }
    }
}
