//! The client of `object_store`, and its time limits.

use std::path::Path as FilePath;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum, S3ConditionalPut};
use object_store::client::HttpClient;
use object_store::{BackoffConfig, Certificate, ClientConfigKey, RetryConfig};

use super::location::S3Location;
use super::transport::Connector;
use crate::error::{Code, Error, Result, root_cause};

/// In practice the total time ends the repeating, not the count.
const RETRIES: usize = 1_000;

/// For how long an answer is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For one attempt, from connecting to the last byte of the answer.
    pub attempt: Duration,
    /// For all attempts together, and the pauses between them.
    pub total: Duration,
}

/// A link that is slower than this for each request makes large blocks fail.
const LEAST_BYTES_PER_SECOND: u64 = 256 << 10;

impl Patience {
    /// Outlasts a server that is restarted, or that asks its clients to slow down.
    pub(super) const USUAL: Patience =
        Patience { attempt: Duration::from_secs(30), total: Duration::from_secs(60) };

    /// For what is asked when a store is opened: two requests one after the other, each of which may take
    /// so long, are to end within ten seconds.
    pub(super) const OPENING: Patience =
        Patience { attempt: Duration::from_secs(4), total: Duration::from_millis(4_500) };

    /// The patience that so many more bytes on the way deserve.
    pub(super) fn for_bytes(self, bytes: usize) -> Patience {
        let more = Duration::from_millis(bytes as u64 * 1_000 / LEAST_BYTES_PER_SECOND);
        Patience { attempt: self.attempt + more, total: self.total + more }
    }
}

/// A client, and the URL of the server that it talks to.
pub(super) struct Client {
    pub(super) s3: AmazonS3,
    /// Makes the same, whose puts carry no checksum, for servers that refuse one.
    pub(super) without_checksum: AmazonS3Builder,
    /// The client that it sends its requests by.
    pub(super) http: HttpClient,
    pub(super) endpoint: String,
    /// Whether `endpoint` is AWS's own.
    pub(super) is_aws: bool,
}

/// The certificates in a PEM file.
fn read_authorities(file: &FilePath) -> Result<Vec<Certificate>> {
    let pem =
        std::fs::read(file).map_err(|error| Error::io_at("cannot read the certificates in", file, error))?;
    let certificates =
        Certificate::from_pem_bundle(&pem).ok().filter(|certificates| !certificates.is_empty());
    certificates.ok_or_else(|| {
        Error::new(Code::Config, format!("{} holds no certificates", file.display()))
            .with_advice("name a PEM file with GRAVITON_S3_CA, or with AWS_CA_BUNDLE for AWS")
    })
}

/// A client that repeats a request for as long as its caller waits. The time-out is
/// that of requests which bring none of their own along.
pub(super) fn client(location: &S3Location, time_out: Duration) -> Result<Client> {
    let mut builder = match location.server() {
        Some(server) => AmazonS3Builder::new()
            .with_endpoint(server.endpoint())
            .with_allow_http(server.endpoint().starts_with("http:"))
            .with_access_key_id(server.user())
            .with_secret_access_key(server.password())
            .with_virtual_hosted_style_request(false),
        None => AmazonS3Builder::from_env(),
    };
    let authorities = match (location.authorities(), location.server()) {
        (Some(file), _) => read_authorities(file)?,
        (None, None) => std::env::var_os("AWS_CA_BUNDLE")
            .filter(|file| !file.is_empty())
            .map_or(Ok(Vec::new()), |file| read_authorities(FilePath::new(&file)))?,
        (None, Some(_)) => Vec::new(),
    };
    if let Some(region) = location.region() {
        builder = builder.with_region(region);
    }
    let of_env = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
    let given = of_env.iter().find_map(|key| builder.get_config_value(key));
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
    let region = region.unwrap_or_else(|| "us-east-1".to_owned());
    let is_aws = given.is_none();
    let endpoint = given.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
    let endpoint = endpoint.trim_end_matches('/').to_owned();
    let plain = endpoint.starts_with("http:");
    let allow_http = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
    let allowed = builder.get_config_value(&allow_http).unwrap_or_default().to_ascii_lowercase();
    if plain && !matches!(allowed.as_str(), "1" | "true" | "on" | "yes" | "y") {
        let why = format!("{endpoint} has no TLS, and AWS_ALLOW_HTTP is not true");
        return Err(Error::new(Code::Config, why)
            .with_advice("use https, or allow it by AWS_ALLOW_HTTP=true, or use QUASAR_MINIO_URL"));
    }
    if let Some(server) = location.server()
        && let Some(endpoint) = location.virtual_endpoint(server)?
    {
        builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(true);
    }
    let connector = Connector { attempt: time_out, plain, authorities, last: Arc::default() };
    let last = Arc::clone(&connector.last);
    let builder = builder
        .with_bucket_name(location.bucket())
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_http_connector(connector)
        .with_retry(RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(50),
                max_backoff: Duration::from_secs(5),
                base: 2.0,
            },
            max_retries: RETRIES,
            // The caller's time-out ends it sooner.
            retry_timeout: Duration::from_secs(240),
        });
    let without_checksum = builder.clone();
    // The signature covers a digest of the bytes too, but not every server compares that with what came.
    let built = builder.with_checksum_algorithm(Checksum::SHA256).build();
    let s3 = built.map_err(|error| {
        Error::new(Code::Config, format!("cannot make a client for {endpoint}: {}", root_cause(&error)))
            .with_advice("check the variables AWS_*, QUASAR_MINIO_URL and MINIO_ROOT_*")
    })?;
    // Those for credentials are made before it.
    let http = last.lock().unwrap_or_else(PoisonError::into_inner).take();
    let http = http.ok_or_else(|| Error::new(Code::Internal, "the client of S3 has no client of HTTP"))?;
    Ok(Client { s3, without_checksum, http, endpoint, is_aws })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::s3::S3Server;
    use object_store::path::Path;
    use object_store::signer::Signer;

    #[tokio::test]
    async fn the_bucket_is_in_the_path_or_in_the_host_name() {
        let location = |url: &str| {
            let server = S3Server::new(url, "user", "password").unwrap();
            S3Location::new("the-bucket", "").unwrap().at(server).unwrap().in_region("us-east-1")
        };
        let asked = async |location: &S3Location| {
            let client = client(location, Duration::from_secs(1)).unwrap();
            let (key, valid) = (Path::from("key"), Duration::from_secs(60));
            let url = client.s3.signed_url("GET".parse().unwrap(), &key, valid).await.unwrap();
            format!("{}{}", url.origin().ascii_serialization(), url.path())
        };
        let here = location("http://s3.example:9000");
        assert_eq!(asked(&here).await, "http://s3.example:9000/the-bucket/key");
        assert_eq!(asked(&here.with_virtual_host()).await, "http://the-bucket.s3.example:9000/key");
        let inside = location("https://gateway.example/storage/v1/s3/");
        assert_eq!(asked(&inside).await, "https://gateway.example/storage/v1/s3/the-bucket/key");
        let virtual_one = asked(&inside.with_virtual_host()).await;
        assert_eq!(virtual_one, "https://the-bucket.gateway.example/storage/v1/s3/key");
        let number = location("http://127.0.0.1:9000").with_virtual_host();
        let refused = client(&number, Duration::from_secs(1)).err().unwrap();
        assert!(refused.advice().unwrap().contains("GRAVITON_S3_ADDRESSING"), "{refused}");
    }
}
