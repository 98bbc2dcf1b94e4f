//! Components that tenants upload: how they get in, are used, replaced and thrown out.

mod artefacts;
mod compiling;
mod failing;
mod hosts;
mod receiver;
mod refusals;
mod targets;
mod versions;

use pushlet_sandbox::digest;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::guests::fixture::component;
use crate::harness::{Pushlet, expect};
pub use compiling::bomb;
pub use receiver::Receiver;

/// The program that compiles what is uploaded.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_pushlet-integration");

/// A server for uploads, and where the webhook provider's posts go.
pub struct UploadFixture {
    pub receiver: Receiver,
    pub server: Pushlet,
}

/// What every server of these tests is configured with.
pub fn settings(receiver: &Receiver, more: &str) -> String {
    let sandbox = "sandbox.call_timeout = \"1s\"";
    let compiler = format!("providers.compiler = {PROGRAM:?}");
    let endpoints = receiver.settings("default", "webhook");
    format!("listen = \"127.0.0.1:0\"\ndelivery.retries = 0\n{sandbox}\n{compiler}\n{endpoints}\n{more}\n")
}

impl UploadFixture {
    pub async fn new() -> Self {
        Self::with("").await
    }

    /// `more`: lines of configuration.
    pub async fn with(more: &str) -> Self {
        let receiver = Receiver::start().await;
        let server = Pushlet::start(&settings(&receiver, more)).await;
        Self { receiver, server }
    }

    /// With the first version of the webhook provider, and an application of it.
    pub async fn ready() -> Self {
        let fixture = Self::new().await;
        expect(fixture.upload("webhook", component("webhook")), 200).await;
        fixture.register("app").await;
        fixture
    }

    pub fn upload(&self, name: &str, component: &[u8]) -> RequestBuilder {
        upload(&self.server, name, component)
    }

    pub async fn register(&self, id: &str) {
        let body = json!({"provider": "webhook", "webhook_token": "hush", "webhook_channel": "news"});
        expect(self.server.put(&format!("/v1/applications/{id}")).json(&body), 200).await;
    }

    /// Sends to one device.
    pub fn send(&self, notification: &Value) -> RequestBuilder {
        send(&self.server, notification)
    }

    pub async fn show(&self, name: &str) -> Value {
        expect(self.server.get(&format!("/v1/providers/{name}")), 200).await
    }

    pub fn activate(&self, name: &str, digest: &str) -> RequestBuilder {
        let path = format!("/v1/providers/{name}/activate");
        self.server.post(&path).json(&json!({ "digest": digest }))
    }
}

pub fn upload(server: &Pushlet, name: &str, component: &[u8]) -> RequestBuilder {
    let request = server.put(&format!("/v1/providers/{name}"));
    request.header("content-type", "application/wasm").body(component.to_vec())
}

pub fn send(server: &Pushlet, notification: &Value) -> RequestBuilder {
    let body = json!({"application_id": "app", "notification": notification, "targets": ["someone"]});
    server.post("/v1/notifications").json(&body)
}

/// Sends, and answers the status and the code of the one result.
pub async fn result(request: RequestBuilder) -> (String, String) {
    let body = expect(request, 200).await;
    let text = |field: &str| body["results"][0][field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("code"))
}

/// The digest of a guest.
pub fn digest_of(guest: &str) -> String {
    digest(component(guest))
}

/// The same component to everyone but a digest: one more custom section.
pub fn variant(guest: &str, number: u8) -> Vec<u8> {
    let mut bytes = component(guest).to_vec();
    // Section 0, four bytes long: a name of one letter, and two bytes.
    bytes.extend([0, 4, 1, b'v', number, 0]);
    bytes
}
