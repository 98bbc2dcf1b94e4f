//! Certificates and keys for one run, made anew each time.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rsa::pkcs8::{EncodePrivateKey as _, LineEnding};
use serde_json::json;

use crate::failure::{Failure, at};

/// The topic of the client certificate.
pub const TOPIC: &str = "com.example.bench";
/// userId (RFC 4519 section 2.39): where Apple's push certificates have their topic.
const USER_ID: [u64; 7] = [0, 9, 2342, 19_200_300, 100, 1, 1];

/// Files of one run.
pub struct Files {
    pub ca: PathBuf,
    pub server_certificate: PathBuf,
    pub server_key: PathBuf,
    /// Client certificate and key.
    pub apns_pem: PathBuf,
    pub apns_p8: PathBuf,
    pub service_account: PathBuf,
}

/// Makes all files; the service account's token endpoint is at `oauth_port`.
pub fn make(directory: &Path, oauth_port: u16) -> Result<Files, Failure> {
    let files = Files {
        ca: directory.join("ca.pem"),
        server_certificate: directory.join("server.pem"),
        server_key: directory.join("server.key"),
        apns_pem: directory.join("apns.pem"),
        apns_p8: directory.join("apns.p8"),
        service_account: directory.join("account.json"),
    };
    let ca_key = KeyPair::generate().map_err(at("key"))?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "Pushlet bench");
    let ca = params.self_signed(&ca_key).map_err(at("authority"))?;
    let issuer = Issuer::new(params, ca_key);

    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let server = CertificateParams::new(names).map_err(at("certificate"))?;
    let (certificate, key) = signed(server, &issuer)?;
    write(&files.ca, &ca.pem())?;
    write(&files.server_certificate, &certificate)?;
    write(&files.server_key, &key)?;

    let mut client = CertificateParams::default();
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let topic = DnValue::Utf8String(TOPIC.to_owned());
    client.distinguished_name.push(DnType::CustomDnType(USER_ID.to_vec()), topic);
    let (certificate, key) = signed(client, &issuer)?;
    write(&files.apns_pem, &(certificate + &key))?;
    write(&files.apns_p8, &KeyPair::generate().map_err(at("key"))?.serialize_pem())?;
    write(&files.service_account, &service_account(oauth_port)?)?;
    Ok(files)
}

fn signed(params: CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Result<(String, String), Failure> {
    let key = KeyPair::generate().map_err(at("key"))?;
    let certificate = params.signed_by(&key, issuer).map_err(at("certificate"))?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn service_account(oauth_port: u16) -> Result<String, Failure> {
    let key = rsa::PrivateKey::new(&mut getrandom::SysRng, 2048).map_err(at("RSA key"))?;
    let key = key.to_pkcs8_pem(LineEnding::LF).map_err(at("RSA key"))?;
    let account = json!({
        "type": "service_account",
        "project_id": "bench",
        "private_key_id": "0123456789abcdef0123456789abcdef01234567",
        "private_key": key.as_str(),
        "client_email": "bench@bench.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": format!("https://127.0.0.1:{oauth_port}/token"),
    });
    Ok(account.to_string())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(at(&path.display().to_string()))
}
