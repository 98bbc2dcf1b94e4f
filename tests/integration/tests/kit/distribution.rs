//! Components in a registry: what was signed comes back, and what is not as it was signed is refused before anything of
//! it is loaded.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::KeyPair;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde_json::{Value, json};

use super::oci_registry::{FakeRegistry, LOGIN, Stored, digest_of};
use crate::guests::fixture::component;
use crate::harness::{Directory, expect};
use crate::upload::{PROGRAM, UploadFixture};

const ANNOTATION: &str = "dev.cosignproject.cosign/signature";

/// A folder with a component and two key pairs, and a registry.
struct Scene {
    directory: Directory,
    registry: FakeRegistry,
    key: KeyPair,
}

impl Scene {
    async fn new() -> Self {
        let directory = Directory::new();
        let write =
            |name: &str, content: &[u8]| std::fs::write(directory.path().join(name), content).unwrap();
        write("acme.wasm", component("webhook"));
        let key = KeyPair::generate().unwrap();
        let other = KeyPair::generate().unwrap();
        for (name, pair) in [("cosign", &key), ("other", &other)] {
            write(&format!("{name}.key"), pair.serialize_pem().as_bytes());
            write(&format!("{name}.pub"), pair.public_key_pem().as_bytes());
        }
        Self { directory, registry: FakeRegistry::start().await, key }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs `pushlet provider …` in the folder. Returns whether it went well, and what it printed.
    async fn run(&self, line: &[&str]) -> (bool, String) {
        let mut command = Command::new(PROGRAM);
        command.arg("provider").args(line).current_dir(self.directory.path()).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout) + &text(output.stderr))
    }

    /// Pushes with a signature. Returns the artifact's digest.
    async fn push(&self) -> String {
        let to = format!("{}:1.0", self.registry.repository());
        let (pushed, told) = self.run(&["push", "acme.wasm", &to, "--sign", "cosign.key"]).await;
        assert!(pushed, "{told}");
        told.trim().strip_prefix(&format!("{to}@")).expect("the pinned reference").to_owned()
    }

    /// Pulls it to `pulled.wasm`.
    async fn pull(&self, rest: &str, more: &[&str]) -> (bool, String) {
        let from = self.registry.repository() + rest;
        self.run(&[&["pull", &from, "-o", "pulled.wasm"], more].concat()).await
    }

    fn pulled(&self) -> Option<Vec<u8>> {
        std::fs::read(self.path("pulled.wasm")).ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pushed_comes_back_by_digest_and_by_a_signed_tag() {
    let scene = Scene::new().await;
    let digest = scene.push().await;
    let (tag, pinned) = (":1.0", format!("@{digest}"));
    for (rest, more) in [
        (pinned.as_str(), &["--key", "cosign.pub"][..]),
        (pinned.as_str(), &[]),
        (tag, &["--key", "cosign.pub"]),
    ] {
        let (pulled, told) = scene.pull(rest, more).await;
        assert!(pulled && told.contains(&digest), "{rest} {more:?}: {told}");
        assert_eq!(scene.pulled().as_deref(), Some(component("webhook")));
        std::fs::remove_file(scene.path("pulled.wasm")).unwrap();
    }
    // The same bytes again have the same digest, and one signature.
    assert_eq!(scene.push().await, digest);
    let stored = scene.registry.stored();
    let manifest: Value = serde_json::from_slice(&stored.manifests["1.0"]).unwrap();
    assert_eq!(digest_of(&stored.manifests["1.0"]), digest);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    let config: Value =
        serde_json::from_slice(&stored.blobs[manifest["config"]["digest"].as_str().unwrap()]).unwrap();
    assert_eq!((&config["architecture"], &config["os"]), (&json!("wasm"), &json!("wasip2")));
    assert_eq!(config["layerDigests"][0], manifest["layers"][0]["digest"]);
    let exports = config["component"]["exports"].to_string();
    assert!(exports.contains("pushlet:provider/codec@"), "{exports}");

    let signatures: Value =
        serde_json::from_slice(&stored.manifests[&format!("{}.sig", digest.replace(':', "-"))]).unwrap();
    let [layer] = signatures["layers"].as_array().unwrap().as_slice() else { panic!("{signatures}") };
    assert_eq!(layer["mediaType"], "application/vnd.dev.cosign.simplesigning.v1+json");
    let payload = &stored.blobs[layer["digest"].as_str().unwrap()];
    let signature = STANDARD.decode(layer["annotations"][ANNOTATION].as_str().unwrap()).unwrap();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, scene.key.public_key_raw());
    public.verify(payload, &signature).unwrap();
    let payload: Value = serde_json::from_slice(payload).unwrap();
    assert_eq!(payload["critical"]["image"]["docker-manifest-digest"], digest);
}

/// Changes a manifest, and stores it under the same name.
fn edit(stored: &mut Stored, name: &str, change: impl FnOnce(&mut Value)) {
    let mut manifest: Value = serde_json::from_slice(&stored.manifests[name]).unwrap();
    change(&mut manifest);
    stored.manifests.insert(name.to_owned(), manifest.to_string().into_bytes());
}

/// Signs something with a key of the scene, as if it were the payload.
fn resign(stored: &mut Stored, tag: &str, key: &Path, payload: &Value) {
    let key = std::fs::read(key).unwrap();
    let der = rcgen::KeyPair::from_pem(std::str::from_utf8(&key).unwrap()).unwrap().serialize_der();
    let random = ring::rand::SystemRandom::new();
    let algorithm = &ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
    let pair = ring::signature::EcdsaKeyPair::from_pkcs8(algorithm, &der, &random).unwrap();
    let payload = payload.to_string().into_bytes();
    let signature = STANDARD.encode(pair.sign(&random, &payload).unwrap());
    edit(stored, tag, |manifest| {
        manifest["layers"][0]["digest"] = json!(digest_of(&payload));
        manifest["layers"][0]["size"] = json!(payload.len());
        manifest["layers"][0]["annotations"][ANNOTATION] = json!(signature);
    });
    stored.blobs.insert(digest_of(&payload), payload);
}

/// What is done to a registry with a signed artifact, by name: what `pull` says then.
const TAMPERED: &[(&str, &str)] = &[
    ("no signature", "it is not signed"),
    ("signed by another key", "none of its signatures is by the key"),
    ("signature damaged", "none of its signatures is by the key"),
    ("signature is no base64", "none of its signatures is by the key"),
    ("signature of another artifact", "its signature is that of something else"),
    ("signature of another kind of thing", "its signature is that of something else"),
    ("payload exchanged", "is not what the registry sent"),
    ("payload too large", "none of its signatures is by the key"),
    ("no list of signatures", "none of its signatures is by the key"),
    ("signatures without end", "the manifest is larger than"),
    ("manifest without end", "the manifest is larger than"),
    ("manifest exchanged", "it is not signed"),
];

fn tamper(scene: &Scene, how: &str, digest: &str) {
    let tag = format!("{}.sig", digest.replace(':', "-"));
    let payload = |kind: &str, digest: &str| {
        json!({"critical": {"type": kind, "identity": {"docker-reference": "x"},
            "image": {"docker-manifest-digest": digest}}, "optional": null})
    };
    let kind = "cosign container image signature";
    let stored = &mut scene.registry.stored();
    stored.requests.clear();
    match how {
        "no signature" => drop(stored.manifests.remove(&tag)),
        "signed by another key" => resign(stored, &tag, &scene.path("other.key"), &payload(kind, digest)),
        "signature damaged" => edit(stored, &tag, |manifest| {
            let signature = &mut manifest["layers"][0]["annotations"][ANNOTATION];
            let mut bytes = STANDARD.decode(signature.as_str().unwrap()).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            *signature = json!(STANDARD.encode(bytes));
        }),
        "signature is no base64" => {
            edit(stored, &tag, |manifest| manifest["layers"][0]["annotations"][ANNOTATION] = json!("!"));
        }
        "signature of another artifact" => {
            let other = digest_of(b"another manifest");
            resign(stored, &tag, &scene.path("cosign.key"), &payload(kind, &other));
        }
        "signature of another kind of thing" => {
            resign(stored, &tag, &scene.path("cosign.key"), &payload("atomic container signature", digest));
        }
        "payload exchanged" => {
            let manifest: Value = serde_json::from_slice(&stored.manifests[&tag]).unwrap();
            let name = manifest["layers"][0]["digest"].as_str().unwrap().to_owned();
            let mut bytes = stored.blobs[&name].clone();
            bytes[0] = b' ';
            stored.blobs.insert(name, bytes);
        }
        "payload too large" => edit(stored, &tag, |manifest| manifest["layers"][0]["size"] = json!(65_537)),
        "no list of signatures" => edit(stored, &tag, |manifest| manifest["layers"] = json!("none")),
        "signatures without end" => stored.endless = Some(".sig"),
        "manifest without end" => stored.endless = Some("/manifests/1.0"),
        "manifest exchanged" => edit(stored, "1.0", |manifest| manifest["annotations"] = json!({})),
        _ => panic!("{how}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_as_it_was_signed_is_refused_before_anything_is_loaded() {
    for (how, why) in TAMPERED {
        let scene = Scene::new().await;
        let digest = scene.push().await;
        tamper(&scene, how, &digest);
        let (pulled, told) = scene.pull(":1.0", &["--key", "cosign.pub"]).await;
        assert!(!pulled && told.contains(why), "{how}: {told}");
        assert_eq!(scene.pulled(), None, "{how}");
        let layer = digest_of(component("webhook"));
        let stored = scene.registry.stored();
        let asked = stored.requests.iter().any(|request| request.path.contains(&layer));
        assert!(!asked, "{how}: the component was fetched");
        assert!(stored.endless_bytes < 64 << 20, "{how}: {} bytes were read", stored.endless_bytes);
    }
}

/// What is done to an artifact that is asked for by its digest, or by a tag that the key signed anew.
#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_is_one_component_of_the_digest_that_was_asked_for() {
    let scene = Scene::new().await;
    let digest = scene.push().await;
    let pinned = format!("@{digest}");
    let layer = digest_of(component("webhook"));
    // A tag alone proves nothing.
    let (pulled, told) = scene.pull(":1.0", &[]).await;
    assert!(!pulled && told.contains("a tag can be moved by others"), "{told}");

    let genuine = scene.registry.stored().manifests[&digest].clone();
    scene.registry.stored().manifests.insert(digest.clone(), b"{}".to_vec());
    let (pulled, told) = scene.pull(&pinned, &[]).await;
    assert!(!pulled && told.contains("in place of"), "{told}");
    scene.registry.stored().manifests.insert(digest.clone(), genuine.clone());

    let mut bytes = component("webhook").to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    for (stored, why) in [
        (bytes.clone(), "is not what the registry sent"),
        (bytes[..100].to_vec(), "is not what the registry sent"),
        ([bytes, vec![0]].concat(), "is larger than"),
    ] {
        scene.registry.stored().blobs.insert(layer.clone(), stored);
        let (pulled, told) = scene.pull(&pinned, &[]).await;
        assert!(!pulled && told.contains(why), "{told}");
    }

    for (change, why) in [
        (("/layers/0/mediaType", json!("application/vnd.oci.image.layer.v1.tar+gzip")), "of the media type"),
        (("/config/mediaType", json!("application/vnd.oci.image.config.v1+json")), "its configuration is of"),
        (("/layers/0/size", json!((1_u64 << 30) + 1)), "more than 1073741824"),
        (("/layers/0/digest", json!("sha512:00")), "no digest of SHA-256"),
        (("/layers", json!([])), "it has 0 layers"),
        (("/layers", json!([{}, {}])), "it has 2 layers"),
        (("/schemaVersion", json!(1)), "not of version 2"),
    ] {
        let mut manifest: Value = serde_json::from_slice(&genuine).unwrap();
        *manifest.pointer_mut(change.0).unwrap() = change.1;
        let manifest = manifest.to_string().into_bytes();
        let name = digest_of(&manifest);
        scene.registry.stored().manifests.insert(name.clone(), manifest);
        let (pulled, told) = scene.pull(&format!("@{name}"), &[]).await;
        assert!(!pulled && told.contains(why), "{why}: {told}");
    }
    assert_eq!(scene.pulled(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_gets_what_was_verified_and_nothing_else() {
    let scene = Scene::new().await;
    let fixture = UploadFixture::new().await;
    let digest = scene.push().await;
    let server = fixture.server.url("");
    let from = format!("{}:1.0", scene.registry.repository());
    let upload = ["upload", "webhook", &from, "--server", &server];
    for (key, why) in [(&["--key", "other.pub"][..], "none of its signatures"), (&[], "a tag can be moved")] {
        let (uploaded, told) = scene.run(&[&upload[..], key].concat()).await;
        assert!(!uploaded && told.contains(why), "{told}");
        expect(fixture.server.get("/v1/providers/webhook"), 404).await;
    }
    let (uploaded, told) = scene.run(&[&upload[..], &["--key", "cosign.pub"]].concat()).await;
    assert!(uploaded, "{told}");
    let layer = digest_of(component("webhook"));
    assert_eq!(
        Some(fixture.show("webhook").await["digest"].as_str().unwrap()),
        layer.strip_prefix("sha256:")
    );
    // Without a reference it goes to the server, under its own name.
    assert_eq!(fixture.server.delete("/v1/providers/webhook").send().await.unwrap().status(), 204);
    let (uploaded, told) = scene.run(&["push", "acme.wasm", "--server", &server]).await;
    assert!(uploaded, "{told}");
    fixture.show("webhook").await;
    // What no server would take is not pushed.
    std::fs::write(scene.path("text.wasm"), "text").unwrap();
    let (pushed, told) = scene.run(&["push", "text.wasm", &from]).await;
    assert!(!pushed && told.contains("text.wasm"), "{told}");
    // Nor what has another digest than the one that is named.
    let (pushed, told) =
        scene.run(&["push", "acme.wasm", &format!("{from}@sha256:{}", "00".repeat(32))]).await;
    assert!(!pushed && told.contains(&digest), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_logs_in_gets_a_token_which_no_other_host_sees() {
    let scene = Scene::new().await;
    let mirror = FakeRegistry::start().await;
    scene.registry.stored().is_private = true;
    let to = format!("{}:1.0", scene.registry.repository());
    let login = ["--oci-username", LOGIN.0, "--oci-password", LOGIN.1];
    let (pushed, told) = scene.run(&["push", "acme.wasm", &to]).await;
    assert!(!pushed && told.contains("give --oci-username"), "{told}");
    let (pushed, told) =
        scene.run(&["push", "acme.wasm", &to, "--oci-username", "robot", "--oci-password", "x"]).await;
    assert!(!pushed && told.contains("answers 401"), "{told}");
    let (pushed, told) = scene.run(&[&["push", "acme.wasm", &to][..], &login].concat()).await;
    assert!(pushed, "{told}");
    let digest = told.trim().rsplit_once('@').unwrap().1.to_owned();

    // Blobs are elsewhere.
    mirror.stored().blobs = scene.registry.stored().blobs.clone();
    scene.registry.stored().elsewhere = Some(mirror.address);
    let (pulled, told) = scene.pull(&format!("@{digest}"), &login).await;
    assert!(pulled, "{told}");
    let there = mirror.stored().requests.clone();
    assert!(!there.is_empty() && there.iter().all(|request| request.authorization.is_empty()));
    assert!(
        scene.registry.stored().requests.iter().any(|request| request.authorization.starts_with("Bearer "))
    );

    // In a circle.
    scene.registry.stored().elsewhere = Some(scene.registry.address);
    let (pulled, told) = scene.pull(&format!("@{digest}"), &login).await;
    assert!(!pulled && told.contains("redirects more than 5 times"), "{told}");

    // The login goes to no place without TLS.
    scene.registry.stored().realm = Some("http://auth.example/token".into());
    let (pulled, told) = scene.pull(&format!("@{digest}"), &login).await;
    assert!(!pulled && told.contains("which is not https"), "{told}");
}
