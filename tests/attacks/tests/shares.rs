//! Tables, caches and pools that all tenants share.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use pushlet_simulator::Service;
use reqwest::{Body, Method};
use serde_json::{Value, json};

use crate::harness::{ADMIN, Directory, Harness, component, expect};

/// Enough for anything that does not hang.
const LONG: Duration = Duration::from_secs(60);

/// Processor time is not what these are about, and a build without optimizations takes much of it.
const SETTINGS: &str = "limits.tenant.cpu_milliseconds_per_second = 10000";

/// As many signatures as may wait for a thread, so that none is refused for its wait.
const AT_ONCE: usize = 50;

/// Uploads a provider of the attacker's that sends to any origin: `origins` with a token of its own for each,
/// `anywhere` without a credential. Registers an application of the same name.
async fn prepare(harness: &Harness, provider: &str) {
    let request = harness.attack(Method::PUT, &format!("/v1/providers/{provider}"));
    let request = request.header("content-type", "application/wasm").body(component(provider));
    expect(request, 200).await;
    let mut body = json!({"provider": provider});
    if provider == "origins" {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        body["credentials"] = json!({"origins_p8": key});
    }
    expect(harness.attack(Method::PUT, &format!("/v1/applications/{provider}")).json(&body), 200).await;
}

/// One request of the attacker to so many URLs; returns how often which error code came.
async fn send(
    harness: &Harness,
    application: &str,
    urls: impl Iterator<Item = String>,
) -> BTreeMap<String, usize> {
    let targets: Vec<Value> = urls.map(|url| json!({ "url": url })).collect();
    let body = json!({"application_id": application, "notification": {"body": "x"}, "targets": targets});
    let response = harness.attack(Method::POST, "/v1/notifications").json(&body).send().await.unwrap();
    let answer: Value = response.json().await.unwrap();
    let mut codes = BTreeMap::new();
    // A refusal of the whole request is one result.
    let results = answer["results"].as_array().cloned().unwrap_or_else(|| vec![answer]);
    for result in results {
        let code = result["error"].as_str().or(result["code"].as_str()).unwrap_or("none").to_owned();
        *codes.entry(code).or_default() += 1;
    }
    codes
}

/// Every round has names of its own.
fn next(rounds: &Cell<u32>) -> u32 {
    rounds.set(rounds.get() + 1);
    rounds.get()
}

/// The provider tokens that the simulated APNs got.
fn apns_tokens(harness: &Harness) -> Vec<String> {
    let received = harness.simulator.received().into_iter().filter(|one| one.service == Service::Apns);
    let mut tokens: Vec<_> =
        received.filter_map(|one| one.header("authorization").map(str::to_owned)).collect();
    tokens.sort_unstable();
    tokens.dedup();
    tokens.sort_by_key(|token| issued(token));
    tokens
}

/// When the provider token of this header was issued, in seconds since the Unix epoch.
fn issued(header: &str) -> u64 {
    let claims = URL_SAFE_NO_PAD.decode(header.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    claims["iat"].as_u64().unwrap()
}

/// An address that is not public: the token is signed, and no connection is opened.
fn private(number: usize) -> String {
    format!("https://10.{}.{}.{}/", number >> 16, (number >> 8) & 255, number & 255)
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_tokens_of_one_tenant_do_not_evict_anothers() {
    let mut harness = Harness::start(SETTINGS).await;
    prepare(&harness, "origins").await;
    harness.victim.push().await;
    assert_eq!(apns_tokens(&harness).len(), 1);
    let flood = async || {
        let mut codes = BTreeMap::new();
        for first in (0..20_000).step_by(AT_ONCE) {
            let part = send(&harness, "origins", (first..first + AT_ONCE).map(private)).await;
            part.into_iter().for_each(|(code, count)| *codes.entry(code).or_insert(0) += count);
        }
        codes
    };
    let codes = harness.victim.unharmed_by(flood).await;
    assert!(codes.contains_key("limit_tokens"), "the attacker is refused: {codes:?}");
    harness.victim.push().await;
    let tokens = apns_tokens(&harness);
    let times: Vec<u64> = tokens.iter().map(|token| issued(token)).collect();
    // One unless the common step of all clocks ended meanwhile; Apple allows a new one each 20 minutes.
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 20 * 60), "the victim's tokens: {times:?}");
    harness.server.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_origins_of_one_tenant_leave_room_for_the_pushes_of_others() {
    let mut harness = Harness::start(SETTINGS).await;
    prepare(&harness, "anywhere").await;
    let (rounds, keys) = (Cell::new(0), Cell::new(0));
    let flood = async || {
        let round = next(&rounds);
        let urls = (0..10_000).map(|number| format!("https://h{round}x{number}.invalid/"));
        // Each key is a credential that the victim has not sent with before: it needs a peer of its own.
        let pushes = async {
            loop {
                push_gcm(&harness, next(&keys)).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            codes = send(&harness, "anywhere", urls) => codes,
            () = pushes => unreachable!("they go on until the flood is over"),
        }
    };
    let codes = harness.victim.unharmed_by(flood).await;
    // Nothing but the servers that are not there was in its way.
    assert!(!codes.keys().any(|code| code.starts_with("limit_")), "the flood was sent: {codes:?}");
    push_gcm(&harness, next(&keys)).await;
    harness.server.assert_alive();
}

/// Sends for the victim with a key that comes with the request.
async fn push_gcm(harness: &Harness, key: u32) {
    let form = [("device_token", "device"), ("data", r#"{"text":"hello"}"#)];
    let request = harness.server.client.post(harness.server.url("/send_notification"));
    let request = request.bearer_auth(&harness.victim.api_key);
    let key = format!("key{key}");
    let response = request.form(&[&form[..], &[("gcm_api_key", &key)]].concat()).send().await.unwrap();
    let (status, text) = (response.status(), response.text().await.unwrap());
    assert!(status.is_success(), "{status}: {text}");
}

/// A library that takes the place of the system's resolver for some names, and does not answer.
fn slow_resolver(folder: &Path) -> PathBuf {
    const SOURCE: &str = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <netdb.h>
        #include <string.h>
        #include <unistd.h>
        typedef int resolver(const char *, const char *, const struct addrinfo *, struct addrinfo **);
        int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
            if (name && strstr(name, ".slow.")) { sleep(3600); return EAI_AGAIN; }
            return ((resolver *)dlsym(RTLD_NEXT, "getaddrinfo"))(name, service, hints, found);
        }
    "#;
    let (source, library) = (folder.join("slow.c"), folder.join("slow.so"));
    std::fs::write(&source, SOURCE).unwrap();
    let mut compiler = Command::new("cc");
    let built = compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    assert!(built.unwrap().success());
    library
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_names_of_one_tenant_do_not_delay_registrations_of_another() {
    let folder = Directory::new();
    let preload = slow_resolver(folder.path());
    let mut harness = Harness::start_with(SETTINGS, &[("LD_PRELOAD", &preload)]).await;
    prepare(&harness, "anywhere").await;
    let rounds = Cell::new(0);
    let attack = async || {
        let round = next(&rounds);
        let names = (0..1_000).map(|number| format!("https://h{round}x{number}.slow.example/"));
        let codes = send(&harness, "anywhere", names).await;
        assert_eq!(codes.values().sum::<usize>(), 1_000, "{codes:?}");
        assert!(!codes.keys().any(|code| code.starts_with("limit_")), "the names were looked up: {codes:?}");
        // The lookups still wait for their answers, and a registration needs a thread that may block.
        let registration = harness.register_apns(&harness.victim.api_key, "another");
        tokio::time::timeout(LONG, registration).await.expect("the registration hangs");
    };
    harness.victim.unharmed_by(attack).await;
    harness.server.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_that_trickle_uploads_deny_them_to_nobody() {
    let mut harness = Harness::start("").await;
    let trickling = FuturesUnordered::new();
    for number in 0..16 {
        let tenant = format!("trickle{number}");
        let request = harness.server.client.put(harness.server.url(&format!("/v1/tenants/{tenant}")));
        let made = expect(request.bearer_auth(ADMIN).json(&json!({})), 201).await;
        let bytes = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Some((Ok::<_, std::io::Error>(vec![0_u8]), ()))
        });
        let url = harness.server.url("/v1/providers/trickle");
        let request = harness.server.client.put(url).bearer_auth(made["api_key"].as_str().unwrap());
        let request = request.header("content-type", "application/wasm").body(Body::wrap_stream(bytes));
        trickling.push(request.send());
    }
    let mut trickling = Box::pin(trickling.collect::<Vec<_>>());
    let upload = async {
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        let request = harness.server.client.put(harness.server.url("/v1/providers/webhook"));
        let request = request.bearer_auth(&harness.victim.api_key);
        expect(request.header("content-type", "application/wasm").body(component("webhook")), 200).await
    };
    tokio::select! {
        view = upload => assert_eq!(view["name"], "webhook"),
        _ = &mut trickling => panic!("they should still be writing"),
    }
    harness.server.assert_alive();
}
