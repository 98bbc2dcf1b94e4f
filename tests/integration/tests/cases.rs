//! What goes in comes out: a table of inputs and right values (`tests/vectors/wire/cases.json`), each sent over
//! every route that can say it, and looked at where the push service receives it.

use pushlet_simulator::{Received, Service};
use reqwest::multipart::Form;
use serde_json::{Map, Value, json};

use crate::harness::{DEVICE, Harness, expect, expect_error};

const TABLE: &str = include_str!("../../vectors/wire/cases.json");
const ROUTES: [&str; 4] = ["form", "json", "v1", "stream"];

/// What a caller was told.
#[derive(Debug)]
enum Told {
    /// `delivered`, `valid`, or `gcm` for the answer of legacy GCM.
    Done(&'static str),
    Refused {
        code: String,
        message: String,
        /// The classic routes name none.
        field: Option<String>,
    },
}

struct Row(Map<String, Value>);

#[tokio::test]
async fn each_input_means_the_same_on_every_route() {
    let harness = Harness::with("delivery.retries = 0").await;
    harness.register_apns_token("ios").await;
    harness.register_apns("certificate").await;
    harness.register_fcm("droid").await;
    let key = Form::new().text("gcm_api_key", "KEY").text("application_id", "legacy");
    expect(harness.server.post("/register_application").multipart(key), 200).await;
    let rows: Vec<Map<String, Value>> = serde_json::from_str(TABLE).unwrap();
    let mut wrong = Vec::new();
    let mut sent = 0;
    for row in rows.into_iter().map(Row) {
        for route in ROUTES.into_iter().filter(|route| row.takes(route)) {
            sent += 1;
            if let Err(problem) = row.check(&harness, route).await {
                wrong.push(format!("{} ({}, {route}): {problem}", row.text("name"), row.text("app")));
            }
        }
    }
    assert!(sent > 250, "only {sent} were sent");
    assert!(wrong.is_empty(), "{} are wrong\n{}", wrong.len(), wrong.join("\n"));
}

impl Row {
    fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field)
    }

    fn text(&self, field: &str) -> &str {
        self.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// As its text, whose numbers stay as they are written.
    fn notification(&self) -> String {
        match self.get("notification_text") {
            Some(text) => text.as_str().unwrap().to_owned(),
            None => self.0["notification"].to_string(),
        }
    }

    fn fields(&self) -> Map<String, Value> {
        let Ok(Value::Object(fields)) = pushlet_json::from_slice(self.notification().as_bytes()) else {
            panic!("{} has no object", self.text("name"));
        };
        fields
    }

    fn takes(&self, route: &&str) -> bool {
        let named = self.get("routes").and_then(Value::as_array);
        // A form cannot write an object where the field is a text, nor tell a text from JSON where it is JSON.
        let in_a_form =
            !["alert", "sound"].iter().any(|name| self.fields().get(*name).is_some_and(Value::is_object));
        named.is_none_or(|named| named.contains(&json!(route))) && (*route != "form" || in_a_form)
    }

    fn service(&self) -> Service {
        match self.text("app") {
            "droid" => Service::Fcm,
            "legacy" => Service::Gcm,
            _ => Service::Apns,
        }
    }

    async fn check(&self, harness: &Harness, route: &str) -> Result<(), String> {
        let before = harness.received(self.service()).len();
        let told = self.send(harness, route).await;
        let received = harness.received(self.service());
        let arrived = received.get(before);
        match (self.get("error"), told) {
            (Some(_), _) if arrived.is_some() => Err(format!("{} arrived", received[before].body)),
            (Some(expected), told) => refused_as(expected, &told),
            (None, told) => {
                let expected = self.get("answer").and_then(Value::as_str).unwrap_or("delivered");
                match &told {
                    Told::Done(answer) if *answer == expected => {}
                    _ if expected == "*" => {}
                    _ => return Err(format!("{told:?} in place of {expected}")),
                }
                self.arrived_as(arrived.ok_or("nothing arrived")?)
            }
        }
    }

    fn arrived_as(&self, push: &Received) -> Result<(), String> {
        let mut body: Value = serde_json::from_str(&push.body).unwrap();
        if self.service() == Service::Fcm {
            body = body["message"].take();
        }
        let whom = ["token", "registration_ids"];
        body.as_object_mut().unwrap().retain(|name, _| !whom.contains(&name.as_str()));
        if let Some(expected) = self.get("wire").filter(|expected| !same(expected, &body)) {
            return Err(format!("{body} in place of {expected}"));
        }
        let text = self.text("wire_text");
        if !push.body.contains(text) {
            return Err(format!("{} in place of {text}", push.body));
        }
        for (name, value) in self.get("headers").and_then(Value::as_object).into_iter().flatten() {
            if push.header(name) != value.as_str() {
                return Err(format!("{name} is {:?} in place of {value}", push.header(name)));
            }
        }
        Ok(())
    }

    async fn send(&self, harness: &Harness, route: &str) -> Told {
        let (app, notification) = (self.text("app"), self.notification());
        match route {
            "form" | "json" => self.send_classic(harness, route).await,
            "v1" => {
                let body = format!(
                    r#"{{"application_id":"{app}","target":"{DEVICE}","notification":{notification}}}"#
                );
                let request = harness
                    .server
                    .post("/v1/notifications")
                    .header("content-type", "application/json")
                    .body(body);
                let answer: Value = request.send().await.unwrap().json().await.unwrap();
                told(answer.get("results").map_or(&answer, |results| &results[0]))
            }
            _ => {
                let body = format!(
                    "{{\"application_id\":\"{app}\",\"notification\":{notification}}}\n{{\"target\":\"{DEVICE}\"}}\n"
                );
                let request = harness.server.stream().body(body);
                let answer = request.send().await.unwrap().text().await.unwrap();
                told(&serde_json::from_str(answer.lines().next().unwrap()).unwrap())
            }
        }
    }

    async fn send_classic(&self, harness: &Harness, route: &str) -> Told {
        let mut fields: Vec<(String, Value)> = self.fields().into_iter().collect();
        let mut plain = |name: &str, value: &str| fields.push((name.to_owned(), value.into()));
        plain("application_id", self.text("app"));
        plain("device_token", DEVICE);
        if self.get("type").is_some() {
            plain("type", self.text("type"));
        }
        let request = harness.server.post("/send_notification");
        let request = if route == "form" {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            request.form(&fields.iter().map(|(name, value)| (name, text(value))).collect::<Vec<_>>())
        } else {
            request.json(&fields.into_iter().collect::<Map<_, _>>())
        };
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        match answer["response"].as_str() {
            Some("ok") => Told::Done("delivered"),
            Some("valid") => Told::Done("valid"),
            _ if answer["success"] == 1 => {
                Told::Done(if self.text("type") == "gcm" { "gcm" } else { "delivered" })
            }
            _ => told(&answer),
        }
    }
}

/// From a result or an error of `/v1`.
fn told(answer: &Value) -> Told {
    let text = |name: &str| answer[name].as_str().map(str::to_owned);
    match answer["status"].as_str() {
        Some("delivered") => Told::Done("delivered"),
        Some("valid") => Told::Done("valid"),
        _ => Told::Refused {
            code: text("error").or_else(|| text("code")).unwrap_or_else(|| answer.to_string()),
            message: text("message").unwrap_or_default(),
            field: text("field"),
        },
    }
}

fn refused_as(expected: &Value, told: &Told) -> Result<(), String> {
    let Told::Refused { code, message, field } = told else { return Err(format!("{told:?}")) };
    let says = expected["says"].as_str().unwrap_or_default();
    let right_field = match (expected["field"].as_str(), field) {
        (Some(expected), Some(field)) => expected == field,
        _ => true,
    };
    match expected["code"] == **code && message.contains(says) && right_field {
        true => Ok(()),
        false => Err(format!("{told:?} in place of {expected}")),
    }
}

/// `*` stands for anything.
fn same(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::String(any), _) if any == "*" => true,
        (Value::Object(expected), Value::Object(actual)) => {
            let both =
                |(name, value): (&String, &Value)| actual.get(name).is_some_and(|other| same(value, other));
            expected.len() == actual.len() && expected.iter().all(both)
        }
        _ => expected == actual,
    }
}

#[tokio::test]
async fn an_environment_is_one_that_there_is() {
    let harness = Harness::new().await;
    let files = harness.simulator.credentials();
    let register = |fields: &[(&str, &str)]| {
        let key = String::from_utf8(harness.file(&files.apns_p8)).unwrap();
        let form = Form::new()
            .text("apns_p8", key)
            .text("apns_key_id", files.apns_key_id.clone())
            .text("apns_team_id", files.apns_team_id.clone())
            .text("application_id", "app");
        let form = fields
            .iter()
            .fold(form, |form, (name, value)| form.text((*name).to_owned(), (*value).to_owned()));
        harness.server.post("/register_application").multipart(form)
    };
    for (mode, environment) in [
        ("development", "development"),
        ("sandbox", "development"),
        ("production", "production"),
        ("", "production"),
    ] {
        expect(register(&[("apns_mode", mode)]), 200).await;
        let shown = expect(harness.server.get("/v1/applications/app"), 200).await;
        assert_eq!(shown["environment"], environment, "{mode}");
    }
    for mode in ["dev", "Development", "prod", "PRODUCTION", "1", " production"] {
        let message = expect_error(register(&[("apns_mode", mode)]), 400, "invalid_apns_mode").await;
        assert!(message.contains("must be production or development"), "{message}");
    }
    let message = expect_error(register(&[("apns_mod", "development")]), 400, "unknown_field").await;
    assert!(message.ends_with("did you mean apns_mode?"), "{message}");
}

#[tokio::test]
async fn an_unknown_type_is_named() {
    let harness = Harness::new().await;
    let send = |fields: &[(&str, &str)]| harness.server.post("/send_notification").form(fields);
    for fields in [
        &[("type", "smoke"), ("gcm_api_key", "k")][..],
        &[("type", "smoke"), ("gcm_api_key", "k"), ("device_token", "t"), ("alert", "x")],
    ] {
        let message = expect_error(send(fields), 400, "invalid_type").await;
        assert_eq!(message, "type must be one of apns, apns-binary, fcm, gcm, hms, smpp, webpush");
    }
    let body = json!({"provider": "smoke"});
    let answer = expect(harness.server.put("/v1/applications/x").json(&body), 400).await;
    assert_eq!((&answer["error"], &answer["field"]), (&json!("invalid_provider"), &json!("provider")));
    assert_eq!(answer["message"], "provider must be one of apns, apns-binary, fcm, gcm, hms, smpp, webpush");
}

#[tokio::test]
async fn what_was_only_checked_is_not_counted_as_delivered() {
    let harness = Harness::new().await;
    harness.register_fcm("app").await;
    let body =
        json!({"application_id": "app", "target": "t", "notification": {"body": "b", "validate_only": true}});
    let answer = expect(harness.server.post("/v1/notifications").json(&body), 200).await;
    let summary = &answer["summary"];
    assert_eq!((&summary["valid"], &summary["delivered"]), (&json!(1), &json!(0)));
    let metrics = harness.server.get("/metrics").send().await.unwrap().text().await.unwrap();
    let counted = |status: &str| {
        metrics
            .lines()
            .any(|line| line.starts_with("pushlet_pushes") && line.contains(&format!("\"{status}\"")))
    };
    assert!(counted("valid") && !counted("delivered"), "{metrics}");
}
