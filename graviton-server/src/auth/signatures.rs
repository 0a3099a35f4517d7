//! The signatures of JSON Web Tokens. `ring` verifies them, so that the server has one provider of
//! cryptography for tokens and TLS. The providers that `jsonwebtoken` brings are aws-lc (73 s of C in every
//! build) and pure Rust without `ring`.
//!
//! HS256, RS256, ES256 and EdDSA are verified. Everything else that a provider can do is an error: the server
//! signs nothing and reads no JWK.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use ring::hmac;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: refuse_to_sign,
    verifier_factory: verifier,
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(unsupported()),
        rsa_pub_components_from_public_key: |_| Err(unsupported()),
        ec_pub_components_from_private_key: |_, _| Err(unsupported()),
        ed_pub_components_from_private_key: |_, _| Err(unsupported()),
        compute_digest: |_, _| Err(unsupported()),
    },
};

/// Makes `ring` the provider of this process. If a process that embeds the server has chosen another
/// provider, that one stays.
pub(super) fn install() {
    let _ = PROVIDER.install_default();
}

fn unsupported() -> Error {
    ErrorKind::InvalidAlgorithm.into()
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that CryptoProvider wants")]
fn refuse_to_sign(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(unsupported())
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that CryptoProvider wants")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    let bytes = key.try_get_as_bytes()?;
    let public = |kind| Key::Public(UnparsedPublicKey::new(kind, bytes.to_vec()));
    let key = match algorithm {
        Algorithm::HS256 => Key::Secret(hmac::Key::new(hmac::HMAC_SHA256, bytes)),
        Algorithm::RS256 => public(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::ES256 => public(&ECDSA_P256_SHA256_FIXED),
        Algorithm::EdDSA => public(&ED25519),
        _ => return Err(unsupported()),
    };
    Ok(Box::new(RingVerifier { algorithm: *algorithm, key }))
}

/// Verifies with one key and one algorithm.
struct RingVerifier {
    algorithm: Algorithm,
    key: Key,
}

enum Key {
    Secret(hmac::Key),
    /// In the form that `jsonwebtoken` takes from PEM: PKCS #1 for RSA, an uncompressed point for P-256, 32
    /// bytes for Ed25519.
    Public(UnparsedPublicKey<Vec<u8>>),
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match &self.key {
            // Compares in constant time.
            Key::Secret(secret) => hmac::verify(secret, message, signature),
            Key::Public(public) => public.verify(message, signature),
        };
        verified.map_err(signature::Error::from_source)
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::jwk::{EllipticCurve, ThumbprintHash};

    #[test]
    fn everything_else_is_refused_without_a_panic() {
        let secret = DecodingKey::from_secret(b"0123456789abcdef0123456789abcdef");
        for algorithm in
            [Algorithm::HS384, Algorithm::HS512, Algorithm::ES384, Algorithm::PS256, Algorithm::RS512]
        {
            assert!(verifier(&algorithm, &secret).is_err(), "{algorithm:?}");
        }
        // A secret is not a public key.
        for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
            assert!(verifier(&algorithm, &secret).is_err(), "{algorithm:?}");
        }
        for (algorithm, key) in [
            (Algorithm::RS256, DecodingKey::from_rsa_der(b"not a key")),
            (Algorithm::ES256, DecodingKey::from_ec_der(b"not a key")),
            (Algorithm::EdDSA, DecodingKey::from_ed_der(b"not a key")),
        ] {
            let verifier = verifier(&algorithm, &key).unwrap();
            assert!(verifier.algorithm() == algorithm && verifier.verify(b"message", &vec![0; 64]).is_err());
        }
        assert!((PROVIDER.signer_factory)(&Algorithm::HS256, &EncodingKey::from_secret(b"x")).is_err());
        let utils = &PROVIDER.key_utils;
        assert!((utils.rsa_pub_components_from_private_key)(b"x").is_err());
        assert!((utils.rsa_pub_components_from_public_key)(b"x").is_err());
        assert!((utils.ec_pub_components_from_private_key)(b"x", Algorithm::ES256).is_err());
        assert!((utils.ed_pub_components_from_private_key)(b"x", &EllipticCurve::Ed25519).is_err());
        assert!((utils.compute_digest)(b"x", ThumbprintHash::SHA256).is_err());
    }
}
