//! JSON Web Tokens: one key, one algorithm, `exp` required, issuer and audience as configured.
//!
//! The claim `scope` holds the scopes; unknown words in it are ignored. The name is `sub`.

use graviton_core::{Code, Error, Result};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;

use super::scopes::{Grant, Scope, Scopes};
use super::signatures;
use crate::settings::JwtSettings;

pub(super) struct Jwt {
    key: DecodingKey,
    validation: Validation,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    sub: String,
    #[serde(default)]
    scope: String,
}

impl Jwt {
    pub(super) fn read(settings: &JwtSettings) -> Result<Jwt> {
        let path = settings.key.display();
        let bytes = std::fs::read(&settings.key).map_err(|error| {
            Error::io_at("cannot read the key of JSON Web Tokens in", &settings.key, error)
        })?;
        let unusable = |why: &str| {
            Error::new(Code::Config, format!("{path} has no key for {}: {why}", settings.algorithm))
                .with_advice("use a public key in PEM, or for HS256 a secret of at least 32 bytes")
        };
        let (algorithm, key) = match settings.algorithm.as_str() {
            "HS256" => {
                // An editor or `echo` adds a line feed, which is not part of the secret.
                let secret = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
                let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
                if secret.len() < 32 {
                    return Err(unusable("the secret is shorter than 32 bytes"));
                }
                // If the secret were a public key, everyone could sign tokens.
                let is_key = secret.starts_with(b"ssh-")
                    || secret.trim_ascii_start().starts_with(b"{")
                    || secret.windows(10).any(|part| part == b"-----BEGIN");
                if is_key {
                    return Err(unusable("it is a public key (PEM, JWK or SSH), not a secret"));
                }
                (Algorithm::HS256, Ok(DecodingKey::from_secret(secret)))
            }
            "RS256" => (Algorithm::RS256, DecodingKey::from_rsa_pem(&bytes)),
            "ES256" => (Algorithm::ES256, DecodingKey::from_ec_pem(&bytes)),
            _ => (Algorithm::EdDSA, DecodingKey::from_ed_pem(&bytes)),
        };
        let key = key.map_err(|error| unusable(&error.to_string()))?;
        signatures::install();
        let mut validation = Validation::new(algorithm);
        validation.leeway = 30;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp"]);
        if let Some(issuer) = &settings.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        match &settings.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.required_spec_claims.insert("aud".to_owned());
            }
            None => validation.validate_aud = false,
        }
        Ok(Jwt { key, validation })
    }

    /// The grant of this token, if it is valid now.
    pub(super) fn grant(&self, token: &str) -> Option<Grant> {
        let claims = decode::<Claims>(token, &self.key, &self.validation).ok()?.claims;
        let scopes = claims.scope.split(' ').filter_map(Scope::named).fold(Scopes::default(), Scopes::with);
        Some(Grant { name: format!("jwt:{}", claims.sub).into(), scopes })
    }
}
