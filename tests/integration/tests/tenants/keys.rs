//! API keys: made, shown once, changed with overlap, ended.

use serde_json::{Value, json};

use super::{admin, change, harness_with_operator, make, register, send, with_operator};
use crate::harness::{Harness, Pushlet, expect, expect_error, wait_until};
use crate::routes;

async fn server() -> Pushlet {
    Pushlet::start(&format!("listen = \"127.0.0.1:0\"\n{}", with_operator(""))).await
}

async fn is_good(server: &Pushlet, key: &str) -> bool {
    let response = server.get("/v1/applications").bearer_auth(key).send().await.unwrap();
    match response.status().as_u16() {
        200 => true,
        401 => false,
        other => panic!("{other}"),
    }
}

async fn add(server: &Pushlet, body: Value) -> (String, String) {
    let made = expect(admin(server.post("/v1/tenants/acme/keys").json(&body)), 201).await;
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("id"), text("api_key"))
}

async fn list(server: &Pushlet) -> Vec<Value> {
    let text = admin(server.get("/v1/tenants/acme/keys")).send().await.unwrap().text().await.unwrap();
    assert!(!text.contains("pushlet_"), "no key is shown again: {text}");
    serde_json::from_str::<Value>(&text).unwrap()["keys"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_key_is_good_on_every_route_as_bearer_and_as_basic_password() {
    let server = server().await;
    let key = make(&server, "acme", &json!({})).await;
    let ask = || server.post("/application_feedback").form(&[("application_id", "x")]);
    expect_error(ask().bearer_auth(&key), 404, "application_not_found").await;
    expect_error(ask().basic_auth("acme", Some(&key)), 404, "application_not_found").await;
    expect_error(ask().basic_auth("default", Some(&key)), 401, "access_denied").await;
    expect_error(ask().bearer_auth(format!("{key}x")), 401, "access_denied").await;
    let status = expect(server.get("/v1/status").bearer_auth(&key), 200).await;
    assert_eq!(status["tenant"], "acme");
}

#[tokio::test]
async fn keys_overlap_and_the_older_ones_end() {
    let server = server().await;
    let first = make(&server, "acme", &json!({})).await;
    let (_, second) = add(&server, json!({})).await;
    assert!(is_good(&server, &first).await && is_good(&server, &second).await);
    let (_, third) = add(&server, json!({"others_expire_in": 3600})).await;
    let keys = list(&server).await;
    let expires: Vec<bool> = keys.iter().map(|key| key["expires"].is_string()).collect();
    assert_eq!(expires, [true, true, false], "the older ones, and they overlap: {keys:?}");
    assert!(is_good(&server, &first).await && is_good(&server, &third).await);
    let (_, last) = add(&server, json!({"others_expire_in": 0})).await;
    for ended in [&first, &second, &third] {
        assert!(!is_good(&server, ended).await);
    }
    assert!(is_good(&server, &last).await);
    assert_eq!(list(&server).await.len(), 1);
}

#[tokio::test]
async fn a_key_expires_and_is_revoked() {
    let server = server().await;
    make(&server, "acme", &json!({})).await;
    let (_, short) = add(&server, json!({"expires_in": 0.5})).await;
    let (id, long) = add(&server, json!({"expires_in": 3600})).await;
    assert!(is_good(&server, &long).await);
    wait_until("the key expires", async || !is_good(&server, &short).await).await;
    expect(admin(server.get("/v1/tenants/acme")), 200).await;
    let path = format!("/v1/tenants/acme/keys/{id}");
    let revoked = admin(server.delete(&path)).send().await.unwrap();
    assert_eq!(revoked.status(), 204);
    assert!(!is_good(&server, &long).await);
    expect_error(admin(server.delete(&path)), 404, "key_not_found").await;
    for wrong in [json!({"expires_in": -1}), json!({"expires_in": "1h"}), json!({"expires_in": 1e300})] {
        expect_error(admin(server.post("/v1/tenants/acme/keys").json(&wrong)), 400, "invalid_expires_in")
            .await;
    }
    expect_error(admin(server.post("/v1/tenants/nobody/keys")), 404, "tenant_not_found").await;
}

#[tokio::test]
async fn the_number_of_keys_is_bounded() {
    let server = server().await;
    make(&server, "acme", &json!({})).await;
    for _ in 0..9 {
        add(&server, json!({})).await;
    }
    expect_error(admin(server.post("/v1/tenants/acme/keys")), 409, "too_many_keys").await;
}

#[tokio::test]
async fn a_suspended_tenant_is_told_so_before_anything_else_is_looked_at() {
    let server = server().await;
    let key = make(&server, "acme", &json!({})).await;
    let shown = change(&server, "acme", &json!({"suspended": true})).await;
    assert_eq!((&shown["suspended"], &shown["limits"]), (&json!(true), &json!({})));
    let requests = [
        server.get("/v1/applications"),
        server.get("/no/such/path"),
        server.post("/send_notification").body("{").header("content-type", "text/plain"),
        server.put("/v1/providers/x").body("no component"),
        server.get("/v1/tenants/acme"),
    ];
    for request in requests {
        expect_error(request.bearer_auth(&key), 403, "tenant_suspended").await;
    }
    change(&server, "acme", &json!({"limits": {"applications": 3}})).await;
    assert!(!is_good_or_suspended(&server, &key).await, "a change of limits does not resume it");
    let shown = change(&server, "acme", &json!({"suspended": false})).await;
    assert_eq!(shown["limits"], json!({"applications": 3}), "resuming changes no limits");
    assert!(is_good(&server, &key).await);
}

async fn is_good_or_suspended(server: &Pushlet, key: &str) -> bool {
    server.get("/v1/applications").bearer_auth(key).send().await.unwrap().status() != 403
}

/// Returns which of the scopes allow a request.
async fn allowed(
    harness: &Harness,
    keys: &[(&'static str, String)],
    method: &str,
    path: &str,
) -> Vec<&'static str> {
    let mut allowed = Vec::new();
    for (scope, key) in keys {
        let method = method.parse().unwrap();
        let request = harness.server.client.request(method, harness.server.url(path)).bearer_auth(key);
        let response = request.send().await.unwrap();
        let text = response.text().await.unwrap();
        if !text.contains("\"scope_required\"") {
            allowed.push(*scope);
        }
    }
    allowed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_do_what_its_scopes_say() {
    let harness = harness_with_operator("").await;
    let all = make(&harness.server, "acme", &json!({})).await;
    let mut keys = Vec::new();
    for scope in ["send", "manage", "read"] {
        let body = json!({"scopes": [scope], "label": format!("to {scope}")});
        let made = expect(admin(harness.server.post("/v1/tenants/acme/keys").json(&body)), 201).await;
        keys.push((scope, made["api_key"].as_str().unwrap().to_owned()));
    }
    // Every route behind authentication.
    let open =
        ["/healthz", "/readyz", "/", "/console", "/console/", "/console/{part}", "/docs", "/docs/{asset}"];
    for (method, route) in routes::all() {
        if open.contains(&route.as_str()) {
            continue;
        }
        let expected: &[&str] = match (method.as_str(), route.as_str()) {
            (
                _,
                "/send_notification"
                | "/v1/notifications"
                | "/v1/notifications:stream"
                | "/application_feedback",
            ) => &["send"],
            (
                "GET",
                "/v1/applications/{id}/feedback"
                | "/v1/deliveries"
                | "/v1/deliveries/{id}"
                | "/v1/deliveries/{id}/results",
            ) => &["send", "read"],
            (_, "/v1/applications/{id}/feedback" | "/v1/deliveries/{id}") => &["send"],
            ("GET", "/v1/providers/{name}/capture") => &["manage"],
            ("GET", _) => &["read"],
            _ => &["manage"],
        };
        let path = route.replace("{id}", "x").replace("{name}", "x").replace("{collection}", "channels");
        let path = path.replace("{item}", "x").replace("{key}", "x").replace("{by}", "day");
        assert_eq!(allowed(&harness, &keys, &method, &path).await, expected, "{method} {route}");
    }
    // An id that looks like the route of feedback opens no other.
    for path in
        ["/v1/applications/feedback", "/v1/applications/x/channels/feedback", "/v1/applications/x%2Ffeedback"]
    {
        assert_eq!(allowed(&harness, &keys, "DELETE", path).await, ["manage"], "{path}");
    }
    // A key of two scopes, and one without bounds.
    let body = json!({"scopes": ["read", "send"]});
    let made = expect(admin(harness.server.post("/v1/tenants/acme/keys").json(&body)), 201).await;
    let both = made["api_key"].as_str().unwrap();
    expect(register(&harness, both, "shop"), 403).await;
    expect(register(&harness, &all, "shop"), 200).await;
    expect(send(&harness, both, "shop", 1), 200).await;
    expect(harness.server.get("/v1/status").bearer_auth(both), 200).await;
    let basic = harness.server.put("/v1/applications/shop").basic_auth("acme", Some(both)).json(&json!({}));
    expect(basic, 403).await;

    let listed = expect(admin(harness.server.get("/v1/tenants/acme/keys")), 200).await;
    let listed = listed["keys"].as_array().unwrap();
    let told: Vec<_> = listed.iter().map(|key| (key["label"].clone(), key["scopes"].clone())).collect();
    let one = |scope: &str| (json!(format!("to {scope}")), json!([scope]));
    let expected = [
        (json!(null), json!(null)),
        one("send"),
        one("manage"),
        one("read"),
        (json!(null), json!(["send", "read"])),
    ];
    assert_eq!(told, expected);
    assert!(listed.iter().all(|key| key["last_used"].is_string()), "{listed:?}");
    for body in [
        json!({"scopes": []}),
        json!({"scopes": ["all"]}),
        json!({"scopes": "send"}),
        json!({"label": "a\n"}),
        json!({"label": "x".repeat(101)}),
    ] {
        let field = body.as_object().unwrap().keys().next().unwrap().clone();
        let request = admin(harness.server.post("/v1/tenants/acme/keys").json(&body));
        expect_error(request, 400, &format!("invalid_{field}")).await;
    }
}
