//! An ordinary tenant: it uses every kind of route, as much as its default limits let it, and is removed.
//!
//! A server that has had a busy day and rests is what "idle" means here: its threads, pools and tables are there.

use futures_util::future::{join_all, try_join_all};
use pushlet_attacks::component;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::json;

use super::push_service::Manner;
use super::server::{Server, apns_application, client};
use crate::peer::Failure;

const APPLICATIONS: usize = 200;
const STREAMS: usize = 8;
const LINES: usize = 2000;
const BATCHES: usize = 8;
/// Targets of a batch; each has an answer of its own.
const TARGETS: usize = 500;
/// Clients at once, each with a connection of its own.
const CLIENTS: usize = 200;
/// Large notifications, each a valid body just below the limit.
const LARGE_BODIES: usize = 6;
const LARGE: usize = 6 << 20;

/// Uploads, registers, sends on each route, opens many connections, and goes.
pub async fn day(server: &Server) -> Result<(), Failure> {
    let tenant = Manner::Calm.tenant();
    let tenant = Tenant { server, client: client()?, api_key: server.make_tenant(tenant).await? };
    tenant.register().await?;
    for _ in 0..2 {
        try_join_all((0..STREAMS).map(|_| tenant.stream())).await?;
        try_join_all((0..BATCHES).map(|_| tenant.batch())).await?;
        // Some may be refused: so many at once are beyond a tenant's limits.
        join_all((0..LARGE_BODIES).map(|_| tenant.large_body().send())).await;
        tenant.connect().await?;
    }
    let path = format!("/v1/tenants/{}", Manner::Calm.tenant());
    server.operate(Method::DELETE, &path).send().await?.error_for_status()?;
    Ok(())
}

struct Tenant<'a> {
    server: &'a Server,
    client: Client,
    api_key: String,
}

impl Tenant<'_> {
    /// Uploads a component, and registers its application and many of Apple's.
    async fn register(&self) -> Result<(), Failure> {
        let webhook = component("webhook").ok_or("no guest webhook")?;
        let upload = self.request(Method::PUT, "/v1/providers/webhook");
        let upload = upload.header(CONTENT_TYPE, "application/wasm").body(webhook.to_vec());
        upload.send().await?.error_for_status()?;
        let application = json!({"provider": "webhook", "webhook_token": "hush", "webhook_channel": "news"});
        self.put_application("web", &application).await?;
        for number in 0..APPLICATIONS {
            let id = format!("app-{number}");
            self.put_application(&id, &apns_application()?).await?;
            let targets = [format!("{:064x}", 1)];
            self.send(&json!({"application_id": id, "notification": {"body": "x"}, "targets": targets}))
                .await?;
        }
        Ok(())
    }

    async fn put_application(&self, id: &str, application: &serde_json::Value) -> Result<(), Failure> {
        let request = self.request(Method::PUT, &format!("/v1/applications/{id}")).json(application);
        request.send().await?.error_for_status()?;
        Ok(())
    }

    async fn stream(&self) -> Result<(), Failure> {
        let mut body = json!({"application_id": "app-0", "notification": {"body": "hello"}}).to_string();
        for number in 0..LINES {
            body.push_str(&format!("\n{{\"target\":\"{:064x}\"}}", 1 + number % 10));
        }
        let request = self.request(Method::POST, "/v1/notifications:stream");
        let request = request.header(CONTENT_TYPE, "application/x-ndjson").body(body);
        request.send().await?.error_for_status()?.bytes().await?;
        Ok(())
    }

    async fn batch(&self) -> Result<(), Failure> {
        let targets: Vec<_> = (0..TARGETS).map(|number| number.to_string()).collect();
        self.send(&json!({"application_id": "web", "notification": {"body": "x"}, "targets": targets})).await
    }

    fn large_body(&self) -> RequestBuilder {
        let notification = json!({"body": "x".repeat(LARGE)});
        let body = json!({"application_id": "app-0", "notification": notification, "targets": ["1"]});
        self.request(Method::POST, "/v1/notifications").json(&body)
    }

    async fn connect(&self) -> Result<(), Failure> {
        let clients: Vec<Client> = (0..CLIENTS).map(|_| client()).collect::<Result<_, _>>()?;
        join_all(
            clients
                .iter()
                .map(|client| self.server.request(client, Method::GET, "/v1/status", &self.api_key).send()),
        )
        .await;
        Ok(())
    }

    async fn send(&self, body: &serde_json::Value) -> Result<(), Failure> {
        let request = self.request(Method::POST, "/v1/notifications").json(body);
        request.send().await?.error_for_status()?.bytes().await?;
        Ok(())
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.server.request(&self.client, method, path, &self.api_key)
    }
}
