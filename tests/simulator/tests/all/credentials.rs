//! The credential files, as other programs read them.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::client::{Directory, start};
use pushlet_simulator::{Options, Simulator, StartError};

/// Runs the openssl command line, which shares nothing with the simulator.
fn openssl(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("openssl").args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("this test needs the command `openssl`: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn openssl_reads_both_pkcs12_files() {
    let simulator = start().await;
    let files = simulator.credentials();
    let modern = path(&files.apns_p12);
    let (read, text) = openssl(&["pkcs12", "-in", modern, "-info", "-nodes", "-passin", "pass:"]);
    assert!(read, "{text}");
    assert!(text.contains("MAC: sha256"), "{text}");
    assert_eq!(text.matches("PBES2, PBKDF2, AES-256-CBC").count(), 2, "{text}");
    check_content(&text, 2);

    let old = path(&files.apns_legacy_p12);
    let arguments = ["pkcs12", "-in", old, "-info", "-nodes", "-passin", "pass:pushlet"];
    let (read, text) = openssl(&[&arguments[..], &["-legacy"]].concat());
    assert!(read, "{text}");
    assert!(text.contains("MAC: sha1"), "{text}");
    assert_eq!(text.matches("pbeWithSHA1And40BitRC2-CBC").count(), 1, "{text}");
    assert_eq!(text.matches("pbeWithSHA1And3-KeyTripleDES-CBC").count(), 1, "{text}");
    // Two bags and no more: Go's reader bears no third one.
    assert_eq!(text.matches("Certificate bag").count(), 1, "{text}");
    assert_eq!(text.matches("Shrouded Keybag").count(), 1, "{text}");
    check_content(&text, 1);
    let (read, _) = openssl(&["pkcs12", "-in", old, "-legacy", "-nodes", "-passin", "pass:wrong"]);
    assert!(!read, "a wrong password is refused");
}

fn check_content(text: &str, certificates: usize) {
    assert_eq!(text.matches("-----BEGIN CERTIFICATE-----").count(), certificates, "{text}");
    assert_eq!(text.matches("-----BEGIN PRIVATE KEY-----").count(), 1, "{text}");
    assert_eq!(text.matches("localKeyID").count(), 2, "{text}");
    assert!(text.contains("UID = com.example.app"), "{text}");
}

#[tokio::test]
async fn openssl_agrees_with_the_certificates() {
    let simulator = start().await;
    let files = simulator.credentials();
    let (valid, text) = openssl(&["verify", "-CAfile", path(&files.ca_pem), path(&files.apns_pem)]);
    assert!(valid, "{text}");
    let (_, text) = openssl(&["x509", "-in", path(&files.apns_pem), "-noout", "-text"]);
    for part in
        ["RSA Public-Key", "UID = com.example.app", "1.2.840.113635.100.6.3.1", "1.2.840.113635.100.6.3.2"]
    {
        let found =
            text.contains(part) || (part == "RSA Public-Key" && text.contains("Public-Key: (2048 bit)"));
        assert!(found, "{part} is not in {text}");
    }
    let server = files.directory.join("server.pem");
    for name in [["-verify_ip", "127.0.0.1"], ["-verify_ip", "::1"], ["-verify_hostname", "localhost"]] {
        let arguments = ["verify", "-CAfile", path(&files.ca_pem), name[0], name[1], path(&server)];
        let (valid, text) = openssl(&arguments);
        assert!(valid, "{text}");
    }
    // The services' own names too, for clients that know no others.
    for name in
        ["api.push.apple.com", "api.sandbox.push.apple.com", "fcm.googleapis.com", "oauth2.googleapis.com"]
    {
        let arguments = ["verify", "-CAfile", path(&files.ca_pem), "-verify_hostname", name, path(&server)];
        let (valid, text) = openssl(&arguments);
        assert!(valid, "{text}");
    }
    let others = [&files.apns_voip_pem, &files.apns_mdm_pem, &files.apns_website_pem, &files.apns_pass_pem];
    for other in others {
        let (valid, text) = openssl(&["verify", "-CAfile", path(&files.ca_pem), path(other)]);
        assert!(valid, "{text}");
    }
    let (valid, text) = openssl(&["pkey", "-in", path(&files.apns_p8), "-noout", "-text"]);
    assert!(valid && text.contains("prime256v1"), "{text}");
    let account: Value = serde_json::from_slice(&fs::read(&files.fcm_service_account).unwrap()).unwrap();
    let key = files.directory.join("account-key.pem");
    fs::write(&key, account["private_key"].as_str().unwrap()).unwrap();
    let (valid, text) = openssl(&["rsa", "-in", path(&key), "-check", "-noout"]);
    assert!(valid && text.contains("RSA key ok"), "{text}");
}

#[tokio::test]
async fn the_service_account_points_at_this_simulator() {
    let simulator = start().await;
    let account: Value =
        serde_json::from_slice(&fs::read(&simulator.credentials().fcm_service_account).unwrap()).unwrap();
    assert_eq!(account["token_uri"], format!("{}/token", simulator.google_url()));
    assert_eq!(account["type"], "service_account");
    assert_eq!(account["project_id"], simulator.credentials().fcm_project_id);
    for name in [
        "private_key_id",
        "private_key",
        "client_email",
        "client_id",
        "auth_uri",
        "auth_provider_x509_cert_url",
        "client_x509_cert_url",
        "universe_domain",
    ] {
        assert!(account[name].as_str().is_some_and(|text| !text.is_empty()), "{name}");
    }
}

fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = names
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .filter(|(name, _)| name != "fcm-service-account.json")
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_server_certificate_without_the_services_names_is_made_anew() {
    let directory = Directory::new();
    let run = || async { Simulator::start(Options::ephemeral(&directory.0)).await.unwrap().stop().await };
    run().await;
    // As an earlier version made it: for the machine alone, and valid.
    let key = rcgen::KeyPair::generate().unwrap();
    let old = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(directory.0.join("server.pem"), old.pem() + &key.serialize_pem()).unwrap();
    run().await;
    let server = directory.0.join("server.pem");
    let (_, text) = openssl(&["x509", "-in", path(&server), "-noout", "-text"]);
    assert!(text.contains("DNS:fcm.googleapis.com"), "{text}");
}

#[tokio::test]
async fn credentials_stay_until_one_is_missing_or_broken() {
    let directory = Directory::new();
    let run = || async { Simulator::start(Options::ephemeral(&directory.0)).await.unwrap().stop().await };
    run().await;
    let first = contents(&directory.0);
    run().await;
    assert_eq!(contents(&directory.0), first);
    let changed = |before: &[(String, Vec<u8>)]| {
        let after = contents(&directory.0);
        before.iter().all(|(name, bytes)| name == ".lock" || !after.contains(&(name.clone(), bytes.clone())))
    };
    fs::remove_file(directory.0.join("apns-legacy.p12")).unwrap();
    run().await;
    assert!(changed(&first), "a missing file: all are made anew");
    let second = contents(&directory.0);
    fs::write(directory.0.join("ca.pem"), "no certificate").unwrap();
    run().await;
    assert!(changed(&second), "a broken file: all are made anew");
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_reads_them() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new();
    let simulator = Simulator::start(Options::ephemeral(&directory.0)).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory.0), 0o700);
    for entry in fs::read_dir(&directory.0).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    simulator.stop().await;
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    let directory = Directory::new();
    fs::write(&directory.0, "a file").unwrap();
    let problem = Simulator::start(Options::ephemeral(&directory.0)).await.err().unwrap();
    assert!(matches!(&problem, StartError::Files { path, .. } if *path == directory.0), "{problem}");
    fs::remove_file(&directory.0).unwrap();

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let options = Options { google: taken.local_addr().unwrap(), ..Options::ephemeral(&directory.0) };
    let problem = Simulator::start(options).await.err().unwrap();
    assert!(matches!(&problem, StartError::Bind { listener: "google", .. }), "{problem}");
}
