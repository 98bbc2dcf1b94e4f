//! What an operator relies on: the log as the real program writes it, and the audit log.

use std::time::Duration;

use pushlet_simulator::{Script, Service, Simulator};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::harness::{
    DEVICE, Directory, expect, expect_error, http_client, pointing_at, wait_for, wait_until,
};
use crate::program::Program;

/// The program with the simulator.
struct Operated {
    program: Program,
    simulator: Simulator,
    client: reqwest::Client,
    _directory: Directory,
}

impl Operated {
    /// `shop`: whether to register the application `shop`.
    async fn start(settings: &str, shop: bool) -> Self {
        let directory = Directory::new();
        let options = pushlet_simulator::Options::ephemeral(directory.path());
        let simulator = Simulator::start(options).await.unwrap();
        let toml = pointing_at(&simulator, settings).replacen("listen = \"127.0.0.1:0\"\n", "", 1);
        let program = Program::serve(&toml).await;
        let operated = Self { program, simulator, client: http_client(), _directory: directory };
        if shop {
            operated.register().await;
        }
        operated
    }

    async fn register(&self) {
        let certificate = std::fs::read(&self.simulator.credentials().apns_p12).unwrap();
        let form = Form::new().part("apns_p12", Part::bytes(certificate)).text("application_id", "shop");
        expect(self.post("/register_application").multipart(form), 200).await;
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(self.program.url(path))
    }

    /// The log's line about the request with this id.
    async fn line(&self, id: &str) -> Value {
        let parsed =
            |line: &str| serde_json::from_str::<Value>(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        let find = || self.program.log().lines().map(parsed).find(|line| line["request_id"] == id);
        wait_for("the line of the request", async || find()).await
    }
}

const JSON_LOG: &str = "log.format = \"json\"\nlimits.trusted_proxies = [\"127.0.0.1\"]\n";

#[tokio::test(flavor = "multi_thread")]
async fn one_line_says_what_became_of_a_send() {
    let operated = Operated::start(JSON_LOG, true).await;
    let body = json!({
        "application_id": "shop", "notification": {"body": "x"},
        "targets": [DEVICE, "dead15a27d5df3c34778defb1f4f3880", {"topic": "news"}, DEVICE],
    });
    let request = operated.post("/v1/notifications").header("x-request-id", "batch-1").json(&body);
    expect(request.header("x-forwarded-for", "192.0.2.7"), 200).await;
    let line = operated.line("batch-1").await;
    let expected = json!({
        "message": "send", "application": "shop", "provider": "apns", "targets": 4, "delivered": 1,
        "unregistered": 1, "rejected": 1, "duplicate": 1, "tries": 2, "peer": "192.0.2.7", "tenant": "default",
        "status": 200,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&line[name], value, "{name} in {line}");
    }
    let codes = line["codes"].as_str().unwrap();
    assert!(codes.contains("Unregistered=1") && codes.contains("unsupported_target=1"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_its_line_at_its_end() {
    let operated = Operated::start(JSON_LOG, true).await;
    let lines = format!(
        "{}\n{}\nnot json\n",
        json!({"application_id": "shop", "notification": {"body": "x"}}),
        json!({ "target": DEVICE }),
    );
    let request = operated.post("/v1/notifications:stream").header("x-request-id", "stream-1").body(lines);
    let response = request.header("content-type", "application/x-ndjson").send().await.unwrap();
    assert_eq!(response.text().await.unwrap().lines().count(), 3);
    let line = operated.line("stream-1").await;
    assert_eq!(
        (line["message"].as_str(), line["ended"].as_str()),
        (Some("stream"), Some("complete")),
        "{line}"
    );
    assert_eq!(
        (&line["delivered"], &line["rejected"], &line["targets"]),
        (&json!(1), &json!(1), &json!(2)),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_whose_caller_went_away_is_told_to_its_end() {
    let operated = Operated::start(JSON_LOG, true).await;
    operated.simulator.script(Script { delay_ms: 2000, ..Script::new(Service::Apns) }).unwrap();
    let form = [("application_id", "shop"), ("device_token", DEVICE), ("alert", "x")];
    let request = operated.post("/send_notification").header("x-request-id", "left-1").form(&form);
    request.timeout(Duration::from_millis(500)).send().await.unwrap_err();
    let line = operated.line("left-1").await;
    assert_eq!((&line["application"], &line["delivered"]), (&json!("shop"), &json!(1)), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_in_the_audit_log_and_in_the_log() {
    let operated = Operated::start(&format!("{JSON_LOG}admin.key = \"the operator's key\"\n"), false).await;
    let (client, program) = (&operated.client, &operated.program);
    let as_operator = |method: Method, path: &str| {
        client
            .request(method, program.url(path))
            .bearer_auth("the operator's key")
            .header("x-forwarded-for", "192.0.2.7")
    };
    let made = expect(as_operator(Method::PUT, "/v1/tenants/acme"), 201).await;
    let key = made["api_key"].as_str().unwrap();
    let as_acme = |method: Method, path: &str| client.request(method, program.url(path)).bearer_auth(key);
    expect(as_operator(Method::PUT, "/v1/tenants/acme").json(&json!({"limits": {"applications": 7}})), 200)
        .await;
    expect(as_operator(Method::POST, "/v1/tenants/acme/keys").json(&json!({})), 201).await;
    let application = json!({"provider": "gcm", "gcm_api_key": "PLANTED"});
    expect(
        as_acme(Method::PUT, "/v1/applications/shop").header("x-request-id", "r-1").json(&application),
        200,
    )
    .await;
    as_acme(Method::DELETE, "/v1/applications/shop").send().await.unwrap().error_for_status().unwrap();

    let all = expect(as_acme(Method::GET, "/v1/audit"), 200).await;
    let all = all["audit"].as_array().unwrap();
    let short: Vec<_> = all
        .iter()
        .map(|entry| (entry["actor"].as_str().unwrap(), entry["action"].as_str().unwrap()))
        .collect();
    let expected = [
        ("operator", "tenant.put"),
        ("operator", "tenant.put"),
        ("operator", "key.create"),
        ("key", "application.put"),
        ("key", "application.delete"),
    ];
    assert_eq!(short, expected);
    assert_eq!(all[0]["address"], "192.0.2.7");
    assert_eq!(all[1]["changes"], json!({"limits": {"from": {}, "to": {"applications": 7}}}));
    assert_eq!(
        (&all[3]["key"], &all[3]["subject"], &all[3]["request_id"]),
        (&made["key"], &json!("shop"), &json!("r-1"))
    );
    assert_eq!(all[3]["changes"]["provider"], json!({"from": null, "to": "gcm"}));
    assert_eq!(expect(as_operator(Method::GET, "/v1/audit?tenant=acme"), 200).await["audit"], json!(all));
    let page = expect(
        as_acme(Method::GET, &format!("/v1/audit?limit=1&after={}", all[0]["id"].as_str().unwrap())),
        200,
    )
    .await;
    assert_eq!((&page["audit"], &page["next"]), (&json!([all[1]]), &all[1]["id"]));
    expect_error(as_acme(Method::GET, "/v1/audit?tenant=other"), 404, "tenant_not_found").await;

    as_operator(Method::DELETE, "/v1/tenants/acme").send().await.unwrap().error_for_status().unwrap();
    let own = expect(as_operator(Method::GET, "/v1/audit"), 200).await;
    assert_eq!(own["audit"].as_array().unwrap().last().unwrap()["action"], "tenant.delete", "{own}");
    let logged = || program.log().lines().filter(|line| line.contains(r#""message":"audit""#)).count() == 6;
    wait_until("the log has all changes", async || logged()).await;
    assert!(!program.log().contains("PLANTED") && !own.to_string().contains("PLANTED"));
}
