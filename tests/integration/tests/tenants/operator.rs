//! What only the operator may do, and what happens without one.

use serde_json::{Value, json};

use super::{ADMIN, admin, change, harness_with_operator, make, register, with_operator};
use crate::harness::{Pushlet, expect, expect_error};

const LISTEN: &str = "listen = \"127.0.0.1:0\"\n";

#[tokio::test]
async fn without_a_key_in_the_configuration_there_is_no_operator() {
    let server = Pushlet::start(LISTEN).await;
    for request in [
        server.get("/v1/tenants"),
        server.get("/v1/overview"),
        server.put("/v1/tenants/acme").json(&json!({})),
        server.delete("/v1/tenants/acme"),
        server.get("/v1/tenants/acme/keys"),
        server.post("/v1/tenants/acme/keys"),
        server.delete("/v1/tenants/acme/keys/0"),
        server.put("/v1/tenants/acme").bearer_auth(ADMIN).json(&json!({})),
    ] {
        let message = expect_error(request, 403, "admin_disabled").await;
        assert!(message.contains("admin.key"), "{message}");
    }
    let own = expect(server.get("/v1/tenants/default"), 200).await;
    assert_eq!((&own["id"], &own["suspended"]), (&json!("default"), &json!(false)));
    expect_error(server.get("/v1/tenants/acme"), 404, "tenant_not_found").await;
}

#[tokio::test]
async fn with_one_nobody_is_let_in_who_shows_nothing() {
    let server = Pushlet::start(&format!("{LISTEN}{}", with_operator(""))).await;
    for path in ["/v1/applications", "/v1/tenants", "/metrics", "/no/such/path"] {
        let response = server.get(path).send().await.unwrap();
        assert_eq!(response.status(), 401, "{path}");
        assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
    }
    expect_error(server.get("/v1/tenants").bearer_auth(format!("{ADMIN}x")), 401, "access_denied").await;
    expect_error(server.get("/v1/tenants").basic_auth("admin", Some(ADMIN)), 401, "access_denied").await;
    expect(server.get("/healthz"), 200).await;
    let auth = "auth = { username = \"me\", password = \"secret\" }";
    let server = Pushlet::start(&format!("{LISTEN}{}", with_operator(auth))).await;
    let me = expect(server.get("/v1/status").basic_auth("me", Some("secret")), 200).await;
    assert_eq!(me["tenant"], "default");
    expect_error(server.get("/v1/tenants").basic_auth("me", Some("secret")), 403, "admin_required").await;
}

#[tokio::test]
async fn the_operator_is_no_tenant() {
    let server = Pushlet::start(&format!("{LISTEN}{}", with_operator(""))).await;
    let key = make(&server, "acme", &json!({})).await;
    for path in ["/v1/applications", "/v1/status", "/v1/providers/apns"] {
        expect_error(admin(server.get(path)), 403, "tenant_required").await;
    }
    expect_error(admin(server.post("/register_application")), 403, "tenant_required").await;
    expect_error(admin(server.get("/nowhere")), 404, "not_found").await;
    let document = expect(admin(server.get("/openapi.json")), 200).await;
    assert_eq!(document, expect(server.get("/openapi.json").bearer_auth(&key), 200).await);
    let metrics = admin(server.get("/metrics")).send().await.unwrap();
    assert_eq!(metrics.status(), 200);
    expect_error(server.get("/metrics").bearer_auth(&key), 404, "not_found").await;
    for request in [
        server.get("/v1/tenants"),
        server.get("/v1/overview"),
        server.put("/v1/tenants/acme").json(&json!({})),
        server.delete("/v1/tenants/other"),
        server.post("/v1/tenants/acme/keys"),
    ] {
        expect_error(request.bearer_auth(&key), 403, "admin_required").await;
    }
}

#[tokio::test]
async fn tenants_are_listed_shown_and_changed() {
    let server = Pushlet::start(&format!("{LISTEN}{}", with_operator(""))).await;
    let key = make(&server, "acme", &json!({"limits": {"pushes_per_second": 7}})).await;
    make(&server, "zebra", &json!({"suspended": true})).await;
    let all = expect(admin(server.get("/v1/tenants")), 200).await;
    let ids: Vec<&Value> = all["tenants"].as_array().unwrap().iter().map(|tenant| &tenant["id"]).collect();
    assert_eq!(ids, ["acme", "default", "zebra"]);
    let page = expect(admin(server.get("/v1/tenants?limit=1&after=acme")), 200).await;
    assert_eq!((&page["tenants"][0]["id"], &page["next"]), (&json!("default"), &json!("default")));
    let shown = expect(server.get("/v1/tenants/acme").bearer_auth(&key), 200).await;
    assert_eq!(shown["limits"], json!({"pushes_per_second": 7}));
    assert!(shown["created"].as_str().unwrap().ends_with('Z'));
    let usage = expect(server.get("/v1/tenants/acme/usage").bearer_auth(&key), 200).await;
    assert_eq!(usage["limits"]["pushes_per_second"], json!({"used": 0, "limit": 7}));
    assert_eq!(usage["limits"]["applications"], json!({"used": 0, "limit": 10000}), "the server's own");
    let shown = change(&server, "acme", &json!({"limits": {}})).await;
    assert_eq!(shown["limits"], json!({}));
    for (body, code) in [
        (json!({"limits": {"pushes_per_second": 0}}), "invalid_pushes_per_second"),
        (json!({"limits": {"pushes": 1}}), "unknown_field"),
        (json!({"limits": 7}), "invalid_limits"),
        (json!({"suspended": "yes"}), "invalid_suspended"),
        (json!({"suspend": true}), "unknown_field"),
    ] {
        expect_error(admin(server.put("/v1/tenants/acme").json(&body)), 400, code).await;
    }
    for id in ["-acme", "a%2Fb", "a%20b", &"x".repeat(65)] {
        let request = admin(server.put(&format!("/v1/tenants/{id}")).json(&json!({})));
        expect_error(request, 400, "invalid_tenant_id").await;
    }
}

#[tokio::test]
async fn what_is_removed_leaves_nothing_to_the_next_of_its_name() {
    let harness = harness_with_operator("").await;
    let server = &harness.server;
    let key = make(server, "acme", &json!({})).await;
    expect(register(&harness, &key, "shop"), 200).await;
    let send = |key: &str| {
        let body = json!({"application_id": "shop", "notification": {"body": "x"}, "targets": ["a"]});
        server.post("/v1/notifications").bearer_auth(key).header("idempotency-key", "one").json(&body)
    };
    expect(send(&key), 200).await;
    let removed = admin(server.delete("/v1/tenants/acme")).send().await.unwrap();
    assert_eq!(removed.status(), 204);
    expect_error(send(&key), 401, "access_denied").await;
    expect_error(admin(server.get("/v1/tenants/acme")), 404, "tenant_not_found").await;
    expect_error(admin(server.delete("/v1/tenants/acme")), 404, "tenant_not_found").await;
    let next = make(server, "acme", &json!({})).await;
    expect_error(send(&next), 404, "application_not_found").await;
    let status = expect(server.get("/v1/status").bearer_auth(&next), 200).await;
    assert_eq!((&status["outcomes"], &status["failures"]), (&json!({}), &json!([])));
    expect_error(send(&key), 401, "access_denied").await;
    expect_error(admin(server.delete("/v1/tenants/default")), 409, "default_tenant").await;
}

/// The last hour of all tenants, and where their operator should look.
#[tokio::test]
async fn the_operator_sees_what_all_tenants_do() {
    let harness = harness_with_operator("").await;
    let server = &harness.server;
    let key = make(server, "acme", &json!({"limits": {"applications": 2, "pushes_per_second": 5}})).await;
    make(server, "zebra", &json!({"suspended": true})).await;
    expect(register(&harness, &key, "shop"), 200).await;
    let send = |targets: usize| {
        let targets: Vec<String> = (0..targets).map(|number| format!("token-{number}")).collect();
        let body = json!({"application_id": "shop", "notification": {"body": "x"}, "targets": targets});
        server.post("/v1/notifications").bearer_auth(&key).json(&body)
    };
    // More than a second's worth is sent if nothing is owed, and then paid off.
    expect(send(100), 200).await;
    expect_error(send(1), 429, "limit_pushes_per_second").await;
    let overview = expect(admin(server.get("/v1/overview")), 200).await;
    let sum =
        |counts: &Value| counts.as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum::<u64>();
    let [acme, default, zebra] = &overview["tenants"].as_array().unwrap()[..] else { panic!("{overview}") };
    assert_eq!(
        (&acme["id"], &acme["suspended"], &acme["applications"]),
        (&json!("acme"), &json!(false), &json!(1))
    );
    assert_eq!((sum(&acme["delivered"]), sum(&acme["undelivered"]), sum(&acme["refused"])), (100, 0, 1));
    assert!(
        ["applications", "pushes_per_second"].contains(&acme["nearest_limit"].as_str().unwrap()),
        "{acme}"
    );
    assert_eq!((sum(&default["delivered"]), &zebra["suspended"]), (0, &json!(true)));
    let minutes = overview["minutes"].as_array().unwrap();
    let delivered: u64 = minutes.iter().filter_map(|minute| minute["outcomes"]["delivered"].as_u64()).sum();
    let refused: u64 = minutes.iter().filter_map(|minute| minute["refused"].as_u64()).sum();
    assert_eq!((delivered, refused), (100, 1));
    let found = expect(admin(server.get("/v1/overview?search=EBR")), 200).await;
    assert_eq!(
        (&found["total"], &found["tenants"][0]["id"], &found["next"]),
        (&json!(1), &json!("zebra"), &Value::Null)
    );
    let page = expect(admin(server.get("/v1/overview?limit=1&after=acme")), 200).await;
    assert_eq!(
        (&page["total"], &page["tenants"][0]["id"], &page["next"]),
        (&json!(3), &json!("default"), &json!("default"))
    );
}
