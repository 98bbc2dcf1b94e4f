//! Signatures by a key pair, as cosign makes them: ECDSA on P-256 with SHA-256 over a "simple signing" payload, which
//! names the digest of a manifest. Source: sigstore/cosign, specs/SIGNATURE_SPEC.md.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use pushlet_settings::Problem;
use pushlet_settings::secrets::check_file;

/// Media type of the payload.
pub const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation of a payload's descriptor with its signature, in base64.
pub const ANNOTATION: &str = "dev.cosignproject.cosign/signature";

const PAYLOAD_TYPE: &str = "cosign container image signature";
/// A public key's DER before the point: id-ecPublicKey on prime256v1 (RFC 5480).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const MAKE_KEYS: &str = "make one with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out cosign.key \
                         && openssl pkey -in cosign.key -pubout -out cosign.pub";

/// The key that a component must be signed with: an uncompressed point.
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    /// Reads a file in PEM, as `cosign.pub` is.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        let wrong = |why: &str| {
            Problem::new(format_args!("{}: {why}; a public key on P-256 in PEM is needed", path.display()))
        };
        let pem = std::fs::read(path).map_err(|error| wrong(&error.to_string()))?;
        let der =
            SubjectPublicKeyInfoDer::from_pem_slice(&pem).map_err(|_| wrong("it holds no public key"))?;
        let point = der.strip_prefix(&P256_PREFIX).ok_or_else(|| wrong("its key is of another kind"))?;
        Ok(Self(point.to_vec()))
    }

    /// Returns true if the signature, in base64, is that of the payload by this key.
    pub fn has_signed(&self, payload: &[u8], signature: &str) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0);
        STANDARD.decode(signature).is_ok_and(|signature| key.verify(payload, &signature).is_ok())
    }
}

/// The key that signs.
pub struct SigningKey(EcdsaKeyPair);

impl SigningKey {
    /// Reads a file in PEM (PKCS#8, not encrypted), as `openssl genpkey` writes it.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        let wrong = |why: &str| Problem::new(format_args!("{}: {why}; {MAKE_KEYS}", path.display()));
        check_file("--sign", path)?;
        let pem = Zeroizing::new(std::fs::read(path).map_err(|error| wrong(&error.to_string()))?);
        let key = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|_| wrong("it holds no private key in PKCS#8 that is not encrypted"))?;
        let PrivateKeyDer::Pkcs8(key) = &key else {
            return Err(wrong("its key is not in PKCS#8, which openssl pkcs8 -topk8 -nocrypt makes of it"));
        };
        let pair = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            key.secret_pkcs8_der(),
            &SystemRandom::new(),
        );
        pair.map(Self).map_err(|_| wrong("its key is not one on P-256"))
    }

    /// Returns the signature in base64.
    pub fn sign(&self, payload: &[u8]) -> Result<String, Problem> {
        let signed = self.0.sign(&SystemRandom::new(), payload);
        signed
            .map(|signature| STANDARD.encode(signature))
            .map_err(|_| Problem::new("the system has no randomness"))
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().to_vec())
    }
}

/// Returns the tag under which the signatures of a manifest are.
pub fn tag(digest: &str) -> String {
    format!("{}.sig", digest.replace(':', "-"))
}

/// Returns what is signed: `identity` is the artifact's name without tag and digest.
pub fn payload(identity: &str, digest: &str) -> Vec<u8> {
    let critical = json!({
        "identity": {"docker-reference": identity},
        "image": {"docker-manifest-digest": digest},
        "type": PAYLOAD_TYPE,
    });
    json!({"critical": critical, "optional": null}).to_string().into_bytes()
}

/// Returns true if what was signed names this digest. The identity is not compared: registries are mirrored.
pub fn names(payload: &[u8], digest: &str) -> bool {
    let Ok(payload) = serde_json::from_slice::<Value>(payload) else { return false };
    let critical = &payload["critical"];
    // The specification writes the member with a capital letter, the program without.
    let image = &critical["image"];
    let named = image.get("docker-manifest-digest").or_else(|| image.get("Docker-manifest-digest"));
    critical["type"] == PAYLOAD_TYPE && named.and_then(Value::as_str) == Some(digest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Runs OpenSSL in a folder.
    fn openssl(folder: &Path, line: &str) -> bool {
        let output = Command::new("openssl").args(line.split(' ')).current_dir(folder).output().unwrap();
        output.status.success()
    }

    #[test]
    fn openssl_verifies_what_is_signed_and_the_other_way_round() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        assert!(openssl(folder.path(), "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key"));
        assert!(openssl(folder.path(), "pkey -in key -pubout -out pub"));
        let payload = payload("registry.example/acme", "sha256:00");
        std::fs::write(file("payload"), &payload).unwrap();
        let signature = SigningKey::read(&file("key")).unwrap().sign(&payload).unwrap();
        std::fs::write(file("ours"), STANDARD.decode(&signature).unwrap()).unwrap();
        assert!(openssl(folder.path(), "dgst -sha256 -verify pub -signature ours payload"));

        assert!(openssl(folder.path(), "dgst -sha256 -sign key -out theirs payload"));
        let theirs = STANDARD.encode(std::fs::read(file("theirs")).unwrap());
        let key = PublicKey::read(&file("pub")).unwrap();
        assert!(key.has_signed(&payload, &theirs));
        assert!(!key.has_signed(b"another payload", &theirs));
        assert!(!key.has_signed(&payload, &theirs[4..]));
        assert!(!key.has_signed(&payload, ""));
    }

    #[test]
    fn keys_of_other_kinds_are_refused_with_how_to_make_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        for (line, why) in [
            ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out key", "not one on P-256"),
            ("genpkey -algorithm ed25519 -out key", "not one on P-256"),
            ("ecparam -name prime256v1 -genkey -noout -out key", "not in PKCS#8"),
        ] {
            assert!(openssl(folder.path(), line), "{line}");
            let problem = SigningKey::read(&file("key")).map(|_| ()).unwrap_err().to_string();
            assert!(problem.contains(why) && problem.contains("openssl"), "{problem}");
            assert!(openssl(folder.path(), "pkey -in key -pubout -out pub"));
            let is_p256 = line.contains("prime256v1");
            assert_eq!(PublicKey::read(&file("pub")).is_ok(), is_p256, "{line}");
        }
        std::fs::write(file("none"), "nothing").unwrap();
        assert!(SigningKey::read(&file("none")).is_err() && PublicKey::read(&file("none")).is_err());
    }

    #[test]
    fn a_payload_names_one_digest() {
        let mine = payload("registry.example/acme", "sha256:00");
        assert!(names(&mine, "sha256:00"));
        assert!(!names(&mine, "sha256:01"));
        let other = String::from_utf8(mine.clone()).unwrap().replace("cosign container", "atomic container");
        assert!(!names(other.as_bytes(), "sha256:00"));
        let capital = String::from_utf8(mine).unwrap().replace("docker-manifest", "Docker-manifest");
        assert!(names(capital.as_bytes(), "sha256:00"));
        assert!(!names(b"{}", "sha256:00") && !names(b"\xff", "sha256:00"));
    }
}
