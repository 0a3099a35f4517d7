//! TLS: rustls with ring, versions 1.2 and 1.3, HTTP/2 and HTTP/1.1.

use std::path::Path;
use std::sync::Arc;

use graviton_core::{Code, Error, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Reads the certificate chain and the key.
pub(crate) fn read(certificates: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let chain = pem(certificates)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(certificates, "no certificates in PEM", &error.to_string()))?;
    if chain.is_empty() {
        return Err(unusable(certificates, "no certificates in PEM", "the file has none"));
    }
    let private = PrivateKeyDer::from_pem_slice(&pem(key)?)
        .map_err(|error| unusable(key, "no private key in PEM", &error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| unusable(certificates, "no certificates that match the key", &error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn pem(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::io_at("cannot read", path, error))
}

fn unusable(path: &Path, what: &str, why: &str) -> Error {
    Error::new(Code::Config, format!("{} has {what}: {why}", path.display()))
        .with_advice("set GRAVITON_HTTP_TLS_CERT to the chain, with the server's own certificate first, and GRAVITON_HTTP_TLS_KEY to its key")
}
