//! Attackers that upload components: to sign, to resolve names, to be compiled, and to send to push services that harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pushlet_attacks::{compile_bomb, component};
use reqwest::{Method, RequestBuilder};
use rsa::pkcs8::{EncodePrivateKey as _, LineEnding};
use serde_json::{Value, json};

use super::attackers::{Attacker, Attackers};
use super::push_service::Manner;
use crate::peer::Failure;

const RSA_BITS: usize = 4096;
/// As many as one request may have.
const TARGETS: u64 = 10_000;

pub async fn prepare(all: &mut Attackers) -> Result<(), Failure> {
    signers(all).await?;
    let attacker = all.tenant("origins", "a provider token for each target").await?;
    upload(&attacker, "origins", "origins").await?;
    let key = rcgen::KeyPair::generate()?.serialize_pem();
    let application = json!({"provider": "origins", "credentials": {"origins_p8": key}});
    attacker.set_up(attacker.request(Method::PUT, "/v1/applications/app").json(&application)).await?;
    let number = Arc::new(AtomicU64::new(0));
    let names = attacker.with("a name to look up for each target");
    let next = number.clone();
    // Private addresses: tokens are signed, and nothing is dialled.
    all.add(1, attacker, move |attacker| {
        attacker.repeat(to_urls(next.clone(), |number| {
            format!("https://10.{}.{}.{}/", number >> 16 & 255, number >> 8 & 255, number & 255)
        }))
    });
    all.add(1, names, move |attacker| {
        attacker.repeat(to_urls(number.clone(), |number| format!("https://h{number}.invalid/")))
    });
    let attacker = all.tenant("no-components", "components that are none").await?;
    all.add(2, attacker, |attacker| attacker.repeat(|attacker| put(attacker, "acme", vec![0; 4 << 20])));
    let bomb = compile_bomb()?;
    for number in 0..3 {
        let attacker = all.tenant(&format!("bomber-{number}"), "compile bombs").await?;
        let bomb = bomb.clone();
        all.add(1, attacker, move |attacker| {
            let bomb = bomb.clone();
            attacker.repeat(move |attacker| put(attacker, "bomb", bomb.clone()))
        });
    }
    push_services(all).await
}

/// An RSA signature for the origin of each target.
async fn signers(all: &mut Attackers) -> Result<(), Failure> {
    let attacker = all.tenant("signers", "an RSA-4096 signature for each target").await?;
    upload(&attacker, "guest", "signer").await?;
    let key = tokio::task::spawn_blocking(rsa_key).await??;
    let application = json!({"provider": "guest", "signer_key": key});
    attacker.set_up(attacker.request(Method::PUT, "/v1/applications/app").json(&application)).await?;
    let dry = attacker.with("validate_only for each target");
    for (attacker, validate_only) in [(attacker, false), (dry, true)] {
        // The address behind them is never dialled.
        let targets: Vec<_> =
            (1..=TARGETS).map(|port| json!({"url": format!("https://127.0.0.1:{port}/a")})).collect();
        let body = json!({
            "application_id": "app",
            "notification": {"body": "x"},
            "targets": targets,
            "validate_only": validate_only,
        });
        all.add(2, attacker, move |attacker| {
            let body = body.clone();
            attacker.repeat(move |attacker| attacker.post("/v1/notifications").json(&body))
        });
    }
    Ok(())
}

fn rsa_key() -> Result<String, Failure> {
    let key = rsa::PrivateKey::new(&mut getrandom::SysRng, RSA_BITS)?;
    Ok(key.to_pkcs8_pem(LineEnding::LF)?.to_string())
}

/// Half as many targets as one request may have, each with a URL that none had before.
fn to_urls(number: Arc<AtomicU64>, url: fn(u64) -> String) -> impl FnMut(&Attacker) -> RequestBuilder {
    move |attacker| {
        let first = number.fetch_add(TARGETS / 2, Ordering::Relaxed);
        let targets: Vec<_> =
            (first..first + TARGETS / 2).map(|number| json!({"url": url(number)})).collect();
        let body = json!({"application_id": "app", "notification": {"body": "x"}, "targets": targets});
        attacker.post("/v1/notifications").json(&body)
    }
}

async fn push_services(all: &mut Attackers) -> Result<(), Failure> {
    for (manner, attack, senders, targets) in [
        (Manner::Slow, "a slow push service with large answers", 4, 300),
        (Manner::Endless, "a push service with answers without end", 2, 50),
        (Manner::Informational, "a push service with 1xx answers without end", 2, 50),
        (Manner::Silent, "a push service that does not answer", 400, 1),
        (Manner::Dead, "dead tokens of 1 KiB", 2, 500),
    ] {
        let attacker = all.tenant(manner.tenant(), attack).await?;
        upload(&attacker, "webhook", "webhook").await?;
        register(&attacker, "app").await?;
        if manner == Manner::Dead {
            all.add(senders, attacker, dead_tokens);
            continue;
        }
        let targets: Vec<_> = (0..targets).map(|number| number.to_string()).collect();
        all.add(senders, attacker, move |attacker| {
            let body = to_webhook("app", targets.clone());
            attacker.repeat(move |attacker| attacker.post("/v1/notifications").json(&body))
        });
    }
    Ok(())
}

fn to_webhook(application: &str, targets: Vec<String>) -> Value {
    json!({"application_id": application, "notification": {"body": "x"}, "targets": targets})
}

async fn register(attacker: &Attacker, id: &str) -> Result<(), Failure> {
    attacker.set_up(registration(attacker, id)).await
}

fn registration(attacker: &Attacker, id: &str) -> RequestBuilder {
    let application = json!({"provider": "webhook", "webhook_token": "hush", "webhook_channel": "news"});
    attacker.request(Method::PUT, &format!("/v1/applications/{id}")).json(&application)
}

/// Has tokens reported dead that none sent to before, for one application after the other.
async fn dead_tokens(attacker: Attacker) {
    for application in 0_u64.. {
        let id = format!("app-{:08x}-{application}", rand::random::<u32>());
        attacker.send(registration(&attacker, &id)).await;
        for _ in 0..20 {
            let tokens = (0..500).map(|_| format!("{:01$x}", rand::random::<u128>(), 1 << 10)).collect();
            attacker.send(attacker.post("/v1/notifications").json(&to_webhook(&id, tokens))).await;
        }
    }
}

fn put(attacker: &Attacker, name: &str, component: Vec<u8>) -> RequestBuilder {
    let request = attacker.request(Method::PUT, &format!("/v1/providers/{name}"));
    request.header("content-type", "application/wasm").body(component)
}

/// Uploads a component of `tests/guests`.
async fn upload(attacker: &Attacker, name: &str, guest: &str) -> Result<(), Failure> {
    let component = component(guest).ok_or_else(|| format!("no guest {guest}"))?;
    attacker.set_up(put(attacker, name, component.to_vec())).await
}
