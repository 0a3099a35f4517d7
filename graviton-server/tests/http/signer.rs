//! Signs JSON Web Tokens with `ring`, as an identity provider would: the server itself only verifies.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use ring::{hmac, signature};
use serde_json::{Value, json};

/// A key that signs, and the name of its algorithm.
pub(crate) struct Signer {
    algorithm: &'static str,
    key: Key,
}

enum Key {
    Secret(hmac::Key),
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    /// A new key pair of one of the three algorithms that have one, and the public key in PEM.
    pub(crate) fn pair(algorithm: &'static str) -> (Signer, Vec<u8>) {
        let (key, public) = match algorithm {
            "RS256" => rsa(),
            "ES256" => {
                let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
                let private = pair.serialize_der();
                let key = EcdsaKeyPair::from_pkcs8(
                    &ECDSA_P256_SHA256_FIXED_SIGNING,
                    &private,
                    &SystemRandom::new(),
                );
                (Key::Ecdsa(key.unwrap()), pair.public_key_pem().into())
            }
            "EdDSA" => {
                let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
                let key = Ed25519KeyPair::from_pkcs8(&pair.serialize_der()).unwrap();
                (Key::Ed25519(key), pair.public_key_pem().into())
            }
            other => panic!("{other} has no key pair"),
        };
        (Signer { algorithm, key }, public)
    }

    /// Signs with a secret: `HS256` or `HS384`.
    pub(crate) fn secret(algorithm: &'static str, secret: &[u8]) -> Signer {
        let hash = if algorithm == "HS256" { hmac::HMAC_SHA256 } else { hmac::HMAC_SHA384 };
        Signer { algorithm, key: Key::Secret(hmac::Key::new(hash, secret)) }
    }

    /// The token of these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&json!({ "typ": "JWT", "alg": self.algorithm })), part(claims));
        let signature = self.sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let of = |signature: signature::Signature| signature.as_ref().to_vec();
        match &self.key {
            Key::Secret(key) => hmac::sign(key, message).as_ref().to_vec(),
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Key::Ecdsa(key) => of(key.sign(&random, message).unwrap()),
            Key::Ed25519(key) => of(key.sign(message)),
        }
    }
}

/// `ring` makes no RSA keys.
fn rsa() -> (Key, Vec<u8>) {
    let generated = openssl(
        &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-outform", "DER"],
        &[],
    );
    // Some versions of it write PKCS #1 there.
    let to_pkcs8 = ["pkcs8", "-topk8", "-nocrypt", "-inform", "DER", "-outform", "DER"];
    let private = openssl(&to_pkcs8, &generated);
    let public = openssl(&["pkey", "-inform", "DER", "-pubout"], &private);
    (Key::Rsa(RsaKeyPair::from_pkcs8(&private).unwrap()), public)
}

fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().expect("these tests need the program openssl");
    running.stdin.take().unwrap().write_all(input).unwrap();
    let done = running.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}
