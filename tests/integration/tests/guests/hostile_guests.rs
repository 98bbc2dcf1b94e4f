//! Every hostile guest, and what a tenant of a running server makes it do again and again.

use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::crafted;
use super::fixture::component;
use crate::harness::{LONGEST_WAIT, Pushlet};
use crate::upload::{bomb, upload};

/// What a hostile tenant does.
pub enum Act {
    /// Uploads the guest once, then registers its application with these settings and sends to it.
    Serve { guest: &'static str, settings: &'static [(&'static str, &'static str)] },
    /// Uploads these bytes.
    Upload(Vec<u8>),
}

/// A tenant, what it does, and the error code that it must receive. An empty code: the send succeeds.
pub struct HostileTenant {
    pub name: String,
    pub act: Act,
    pub code: &'static str,
}

/// Guests whose upload is accepted: name, settings, expected code.
const SERVED: &[(&str, &[(&str, &str)], &str)] = &[
    ("allocator", &[("do", "past_the_end")], "provider_bad_output"),
    ("allocator", &[("do", "crooked")], "provider_bad_output"),
    ("allocator", &[("do", "for_ever")], "provider_timeout"),
    ("busy", &[("do", "20000000")], ""),
    ("covers", &[("do", "0,0,1")], "provider_bad_output"),
    ("covers", &[("do", "0,4294967295")], "provider_bad_output"),
    ("covers", &[("do", "0;1"), ("message", "unknown")], "provider_bad_output"),
    ("dice", &[("do", "300000")], "provider_refused"),
    ("endless", &[("do", "check_application")], "provider_timeout"),
    ("endless", &[("do", "encode")], "provider_timeout"),
    ("endless", &[("do", "decode")], "provider_timeout"),
    ("endpoints", &[("do", "metadata")], "provider_refused"),
    ("endpoints", &[("do", "http://169.254.169.254/latest")], "provider_refused"),
    ("exit", &[("do", "exit 0")], "provider_panicked"),
    ("filesystem", &[], ""),
    ("exit", &[("do", "abort")], "provider_panicked"),
    ("flood", &[("do", "much")], ""),
    ("flood", &[("do", "endless")], "provider_timeout"),
    ("handles", &[("do", "100000")], "provider_refused"),
    ("headers", &[("do", "authorization"), ("where", "message")], "provider_refused"),
    ("headers", &[("do", ":path"), ("where", "exchange")], "provider_bad_output"),
    (
        "headers",
        &[("do", "x"), ("value", "a\r\nauthorization: b"), ("where", "exchange")],
        "provider_bad_output",
    ),
    ("hog", &[("do", "hoard")], "provider_memory"),
    ("hog", &[("do", "grow")], ""),
    ("huge_result", &[("do", "rejection")], "provider_bad_output"),
    ("huge_result", &[("do", "body")], "provider_bad_output"),
    ("huge_result", &[("do", "exchanges")], "provider_bad_output"),
    ("huge_result", &[("do", "native")], "provider_bad_output"),
    ("lies", &[("do", "past_the_end")], "provider_bad_output"),
    ("lies", &[("do", "overlong")], "provider_bad_output"),
    ("memory_of_calls", &[], ""),
    ("observer", &[], ""),
    ("outcomes", &[("do", "no_outcome")], "provider_bad_output"),
    ("outcomes", &[("do", "deep_native")], "provider_bad_output"),
    ("panic", &[("do", "panic")], "provider_panicked"),
    ("paths", &[("do", "/../admin")], "provider_bad_output"),
    ("paths", &[("do", "https://evil.example/")], "provider_bad_output"),
    ("recursion", &[("do", "recurse")], "provider_panicked"),
    ("trap", &[("do", "unreachable")], "provider_panicked"),
    ("trap", &[("do", "out_of_bounds")], "provider_panicked"),
    ("waits", &[("do", "year")], "provider_refused"),
];

/// Guests whose upload is refused, with the expected code.
const REFUSED: &[(&str, &str)] = &[
    ("bad_example", "dry_run_failed"),
    ("endless_collections", "broken_component"),
    ("endless_manifest", "broken_component"),
    ("http", "forbidden_import"),
    ("huge_manifest", "broken_component"),
    ("smuggler", "invalid_manifest"),
    ("sockets", "forbidden_import"),
    ("unsound_manifest", "invalid_manifest"),
];

/// Codes that any request of a hostile tenant may receive. An activation ends `provider_quarantined`.
const NOT_NOW: &[&str] = &[
    "provider_quarantined",
    "provider_cpu_limit",
    "provider_memory_limit",
    "overloaded",
    "limit_requests_per_second",
    "too_many_uploads",
    "compiler_busy",
    "unknown",
    // All guests share the processors, so any call or manifest can run out of time.
    "provider_timeout",
    "broken_component",
];

/// Returns all hostile tenants.
pub fn hostile_tenants() -> Vec<HostileTenant> {
    let served = SERVED.iter().map(|&(guest, settings, code)| {
        let task = settings.iter().map(|(_, value)| *value).collect::<Vec<_>>().join(" ");
        HostileTenant { name: format!("{guest} {task}"), act: Act::Serve { guest, settings }, code }
    });
    let refused = REFUSED.iter().map(|&(guest, code)| (guest, component(guest).to_vec(), code));
    let crafted =
        crafted::bombs().into_iter().chain([("compile bomb", bomb().to_vec(), "component_too_complex")]);
    let uploads = refused.chain(crafted).map(|(name, component, code)| HostileTenant {
        name: name.to_owned(),
        act: Act::Upload(component),
        code,
    });
    served.chain(uploads).collect()
}

impl HostileTenant {
    /// Uploads the guest, if this tenant has one.
    pub async fn set_up(&self, server: &Pushlet, key: &str) {
        if let Act::Serve { guest, .. } = self.act {
            // Few uploads are compiled at the same time.
            let uploaded = async {
                while !answer(upload(server, "guest", component(guest)).bearer_auth(key)).await.0.is_empty() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            timeout(LONGEST_WAIT, uploaded).await.expect("the guest is uploaded");
        }
    }

    /// Acts once; returns the code and the `retry-after` of the response.
    pub async fn act(&self, server: &Pushlet, key: &str) -> (String, Option<Duration>) {
        let (code, wait) = match &self.act {
            Act::Upload(component) => answer(upload(server, "guest", component).bearer_auth(key)).await,
            Act::Serve { settings, .. } => self.serve(server, key, settings).await,
        };
        if code == "provider_quarantined" {
            self.release(server, key).await;
        }
        assert!(code == self.code || NOT_NOW.contains(&code.as_str()), "{}: {code}", self.name);
        (code, wait)
    }

    async fn serve(
        &self,
        server: &Pushlet,
        key: &str,
        settings: &[(&str, &str)],
    ) -> (String, Option<Duration>) {
        let settings: Value = settings.iter().map(|(name, value)| (name.to_string(), json!(value))).collect();
        let body = json!({"provider": "guest", "settings": settings});
        let registered = answer(server.put("/v1/applications/app").bearer_auth(key).json(&body)).await;
        if !registered.0.is_empty() {
            return registered;
        }
        let body = json!({"application_id": "app", "notification": {"body": "x"}, "targets": ["a", "b"]});
        answer(server.post("/v1/notifications").bearer_auth(key).json(&body)).await
    }

    /// Activates the version again, which ends the quarantine.
    async fn release(&self, server: &Pushlet, key: &str) {
        let Act::Serve { guest, .. } = self.act else { return };
        let body = json!({"digest": pushlet_sandbox::digest(component(guest))});
        answer(server.post("/v1/providers/guest/activate").bearer_auth(key).json(&body)).await;
    }
}

/// Sends; returns the error code of the response or of its first result.
async fn answer(request: RequestBuilder) -> (String, Option<Duration>) {
    let response = request.send().await.unwrap();
    let wait = response.headers().get("retry-after").and_then(|wait| wait.to_str().unwrap().parse().ok());
    let body: Value = response.json().await.unwrap();
    let result = &body["results"][0];
    let code = [&body["error"], &result["code"]].into_iter().find_map(Value::as_str);
    let unknown = (result["status"] == "unknown" && code.is_none()).then_some("unknown");
    (code.or(unknown).unwrap_or_default().to_owned(), wait.map(Duration::from_secs))
}
