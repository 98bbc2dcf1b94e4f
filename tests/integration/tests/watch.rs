//! What an operator sees: metrics, the dashboard over them, readiness, and a tenant's status.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::harness::{DEVICE, Harness, Pushlet, expect, expect_error};

const DASHBOARD: &str = include_str!("../../../host/api/assets/grafana.json");

/// Some traffic of every kind that has metrics.
async fn busy() -> Harness {
    let harness = Harness::with("delivery.retries = 0").await;
    harness.register_apns("shop").await;
    harness.register_apns_token("news").await;
    harness.register_fcm("droid").await;
    let dead = format!("dead{}", &DEVICE[4..]);
    for (application, token, status) in [
        ("shop", DEVICE, 200),
        ("shop", DEVICE, 200),
        ("shop", &dead, 410),
        ("news", DEVICE, 200),
        ("droid", "t", 200),
    ] {
        let form = [("device_token", token), ("alert", "x"), ("application_id", application)];
        expect(harness.server.post("/send_notification").form(&form), status).await;
    }
    harness
}

async fn scrape(server: &Pushlet) -> String {
    // As Prometheus asks.
    let accepts = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let response = server.get("/metrics").header("accept", accepts).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let format = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(format.starts_with("application/openmetrics-text; version=1.0.0"), "{format}");
    response.text().await.unwrap()
}

/// Names of samples, each with the names of its labels; and every sample as a line.
fn samples(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let end = line.find(['{', ' ']).unwrap();
        let labels = found.entry(line[..end].to_owned()).or_default();
        if line[end..].starts_with('{') {
            let inner = &line[end + 1..line.rfind('}').unwrap()];
            labels.extend(inner.split("\",").map(|label| label.split('=').next().unwrap().to_owned()));
        }
    }
    found
}

fn value(text: &str, name: &str, labels: &[&str]) -> f64 {
    let fits = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
    let lines: Vec<&str> = text.lines().filter(fits).collect();
    let [line] = lines[..] else { panic!("{name} {labels:?}: {lines:?}\n{text}") };
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn metrics_tell_what_happened() {
    let harness = busy().await;
    let text = scrape(&harness.server).await;
    assert!(text.ends_with("# EOF\n"));
    let shop = r#"application="shop""#;
    let pushes = |outcome| value(&text, "pushlet_pushes_total", &[shop, &format!("outcome=\"{outcome}\"")]);
    assert_eq!((pushes("delivered"), pushes("unregistered")), (2.0, 1.0));
    assert_eq!(value(&text, "pushlet_vendor_latency_seconds_count", &["\"apns\""]), 4.0);
    assert_eq!(value(&text, "pushlet_queue_wait_seconds_count", &["fcm"]), 1.0);
    let requests = |status| value(&text, "pushlet_http_requests_total", &["/send_notification", status]);
    assert_eq!((requests("200"), requests("410")), (4.0, 1.0));
    assert_eq!(value(&text, "pushlet_tokens_minted_total", &[]), 1.0);
    assert_eq!(value(&text, "pushlet_token_fetches_total", &[]), 1.0);
    assert_eq!(value(&text, "pushlet_token_fetch_failures_total", &[]), 0.0);
    let days = value(&text, "pushlet_certificate_expiry_days", &[shop, r#"tenant="default""#]);
    assert!(days > 1.0, "{days}");
    assert_eq!(value(&text, "pushlet_limit_used", &["applications"]), 3.0);
    assert_eq!(value(&text, "pushlet_limit_used", &["\"requests\""]), 1.0, "this one");
    assert!(value(&text, "pushlet_limit_used", &["limit=\"connections\""]) >= 1.0);
    assert!(
        value(&text, "pushlet_connections{", &[&harness.simulator.apns_url()]) >= 2.0,
        "one for each identity"
    );
    assert_eq!(
        value(&text, "pushlet_circuits", &["closed"]),
        4.0,
        "two of apns, one of fcm, one of its tokens"
    );
    assert!(value(&text, "pushlet_sandbox_seconds_total", &["\"apns\""]) > 0.0);
    assert!(value(&text, "pushlet_sandbox_instances ", &[]) >= 2.0);
    assert!(!text.contains(DEVICE));
}

#[tokio::test]
async fn every_query_of_the_dashboard_names_metrics_and_labels_that_there_are() {
    let known = samples(&scrape(&busy().await.server).await);
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut queries: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    queries.push(dashboard["templating"]["list"][1]["query"]["query"].as_str().unwrap());
    assert!(queries.len() > panels.len());
    for query in &queries {
        let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
        let is_name = |name: &&str| name.starts_with("pushlet_") || name.starts_with("process_");
        let names: Vec<&str> = query.split(word).filter(is_name).collect();
        assert!(!names.is_empty(), "{query}");
        for name in names {
            let labels =
                known.get(name).unwrap_or_else(|| panic!("{name} of {query} is no metric: {known:?}"));
            for group in query.split("by (").skip(1) {
                for label in group.split(')').next().unwrap().split(", ") {
                    assert!(labels.contains(label), "{name} has no label {label}: {query}");
                }
            }
        }
    }
    let drawn = |name: &str| {
        let name =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        queries.iter().any(|query| query.contains(name))
    };
    let forgotten: Vec<&String> = known.keys().filter(|name| !drawn(name)).collect();
    assert!(forgotten.is_empty(), "not on the dashboard: {forgotten:?}");
}

#[tokio::test]
async fn metrics_are_for_those_who_may_call() {
    let auth = "auth = { username = \"me\", password = \"secret\" }";
    let server = Pushlet::start(&format!("listen = \"127.0.0.1:0\"\n{auth}")).await;
    expect_error(server.get("/metrics"), 401, "access_denied").await;
    expect_error(server.get("/v1/status"), 401, "access_denied").await;
    let response = server.get("/metrics").basic_auth("me", Some("secret")).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn readiness_has_reasons() {
    let harness = busy().await;
    let ready = expect(harness.server.get("/readyz"), 200).await;
    assert_eq!((&ready["status"], &ready["providers"]), (&"ok".into(), &7.into()));
    assert_eq!(ready["circuits"], serde_json::json!({"closed": 4, "open": 0, "half_open": 0}));
}

#[tokio::test]
async fn a_tenants_status_has_outcomes_and_failures_in_the_vendors_words() {
    let harness = busy().await;
    let status = expect(harness.server.get("/v1/status"), 200).await;
    assert_eq!(status["outcomes"], serde_json::json!({"delivered": 4, "unregistered": 1}));
    let shop =
        status["applications"].as_array().unwrap().iter().find(|one| one["application"] == "shop").unwrap();
    assert_eq!(shop["outcomes"], serde_json::json!({"delivered": 2, "unregistered": 1}));
    let [failure] = &status["failures"].as_array().unwrap()[..] else { panic!("{status}") };
    assert_eq!((&failure["status"], &failure["code"]), (&"unregistered".into(), &"Unregistered".into()));
    assert_eq!(failure["target"], format!("dead{}…", &DEVICE[4..12]));
    let providers: Vec<&Value> =
        status["providers"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(providers, ["apns", "apns-binary", "fcm", "gcm", "hms", "smpp", "webpush"]);
    let [reason] = &status["reasons"].as_array().unwrap()[..] else { panic!("{status}") };
    assert_eq!((&reason["count"], &reason["last"]), (&1.into(), failure));
    assert_eq!(hour(&status), [4, 1]);
    assert_eq!(status["minutes"][0]["refused"], 0);
}

/// Targets of the last hour, delivered and unregistered.
fn hour(status: &Value) -> [u64; 2] {
    let minutes = status["minutes"].as_array().unwrap();
    let sum = |name: &str| minutes.iter().filter_map(|minute| minute["outcomes"][name].as_u64()).sum();
    ["delivered", "unregistered"].map(sum)
}

#[tokio::test]
async fn a_status_may_be_of_one_application() {
    let harness = busy().await;
    let status = expect(harness.server.get("/v1/status?application=shop"), 200).await;
    assert_eq!(status["outcomes"], serde_json::json!({"delivered": 2, "unregistered": 1}));
    assert_eq!((hour(&status), status["failures"].as_array().unwrap().len()), ([2, 1], 1));
    assert!(status["minutes"][0].get("refused").is_none(), "refusals are the tenant's");
    let others: Vec<&Value> = status["applications"].as_array().unwrap().iter().collect();
    assert_eq!(others.len(), 1, "{status}");
    let short = expect(harness.server.get("/v1/status?applications=false"), 200).await;
    assert_eq!((&short["applications"], hour(&short)), (&serde_json::json!([]), [4, 1]));
    expect_error(harness.server.get("/v1/status?application=nowhere"), 404, "application_not_found").await;
    expect_error(harness.server.get("/v1/status?applications=some"), 400, "invalid_query").await;
}

#[tokio::test]
async fn applications_are_found_and_paged_through_in_two_orders() {
    let harness = busy().await;
    let list = async |query: &str| expect(harness.server.get(&format!("/v1/applications{query}")), 200).await;
    let ids = |page: &Value| -> Vec<String> {
        let all = page["applications"].as_array().unwrap().iter();
        all.map(|application| application["id"].as_str().unwrap().to_owned()).collect()
    };
    let all = list("").await;
    let by_id = ids(&all);
    assert_eq!(all["total"], by_id.len());
    let shop = all["applications"].as_array().unwrap().iter().find(|one| one["id"] == "shop").unwrap();
    assert_eq!(shop["outcomes"], serde_json::json!({"delivered": 2, "unregistered": 1}));
    let by_expiry = ids(&list("?sort=expiry").await);
    let has_end = |id: &String| {
        let all = all["applications"].as_array().unwrap();
        !all.iter().find(|one| one["id"] == **id).unwrap()["credential"]["not_after"].is_null()
    };
    assert!(by_expiry.is_sorted_by_key(|id| !has_end(id)), "{by_expiry:?}");
    for sort in ["id", "expiry"] {
        let (mut paged, mut after) = (Vec::new(), String::new());
        loop {
            let page = list(&format!("?limit=1&sort={sort}{after}")).await;
            paged.extend(ids(&page));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={}", next.replace('~', "%7E"));
        }
        assert_eq!(paged, if sort == "id" { by_id.clone() } else { by_expiry.clone() });
    }
    let found = list("?search=SHO").await;
    assert_eq!((ids(&found), &found["total"]), (vec!["shop".to_owned()], &1.into()));
    assert!(ids(&list("?search=apns").await).contains(&"shop".to_owned()), "by the provider too");
    assert_eq!(list("?search=nowhere").await["total"], 0);
    for (query, code) in [("sort=age", "invalid_sort"), ("sort=expiry&after=shop", "invalid_after")] {
        expect_error(harness.server.get(&format!("/v1/applications?{query}")), 400, code).await;
    }
}

#[tokio::test]
async fn people_and_older_scrapers_get_the_older_format_with_reasons_refusals_and_the_process() {
    let harness = Harness::with("limits.tenant.pushes_per_second = 4\n").await;
    harness.register_apns("shop").await;
    let body = serde_json::json!({
        "application_id": "shop", "notification": {"body": "x"}, "targets": ["dead15a27d5df3c34778defb1f4f3880"],
    });
    expect(harness.server.post("/v1/notifications").json(&body), 200).await;
    let body = serde_json::json!({"application_id": "shop", "notification": {"body": "x"}, "targets": vec![DEVICE; 9]});
    expect(harness.server.post("/v1/notifications").json(&body), 429).await;
    let response = harness.server.get("/metrics").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    assert!(!text.contains("# EOF") && text.contains("# TYPE pushlet_pushes_total counter"), "{text}");
    assert_eq!(value(&text, "pushlet_failures_total", &["provider=\"apns\"", "code=\"Unregistered\""]), 1.0);
    assert_eq!(
        value(&text, "pushlet_refusals_total", &["tenant=\"default\"", "limit=\"pushes_per_second\""]),
        1.0
    );
    assert_eq!(value(&text, "pushlet_build_info", &["commit="]), 1.0);
    assert!(value(&text, "process_resident_memory_bytes", &[]) > 1e6);
}
