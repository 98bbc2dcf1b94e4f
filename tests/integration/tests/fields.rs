//! Where each field of a notification goes, on every platform: sent, looked at on the wire, and written down as
//! the table in each provider's README. `PUSHLET_WRITE_TABLES=1` writes the tables anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use pushlet::bootstrap;
use pushlet_model::contract::manifest::{ProviderManifest, Transport};
use pushlet_model::notification::COMMON;
use pushlet_model::tenant::TenantId;
use pushlet_simulator::{Received, Service};
use reqwest::multipart::Form;
use serde_json::{Map, Value, json};

use crate::harness::{DEVICE, Harness, config, expect};

/// With the names of their columns.
const PROVIDERS: [(&str, Service, &[&str]); 5] = [
    ("apns", Service::Apns, &["Apple (APNs)"]),
    ("fcm", Service::Fcm, &["FCM: Android", "FCM: Apple", "FCM: Web"]),
    ("gcm", Service::Gcm, &["GCM"]),
    ("hms", Service::Hms, &["HMS: Android", "HMS: HarmonyOS"]),
    ("webpush", Service::Webpush, &["Web Push"]),
];
/// The applications for the columns of HMS.
const HMS: [&str; 2] = ["hms", "hms-harmony"];
const BEGIN: &str = "<!-- The table is written by tests/integration/tests/fields.rs. -->\n";
const END: &str = "<!-- End of the table. -->\n";
/// The text of a notification that is there only to carry the field.
const CARRIER: &str = "·";

/// What a request says, by place.
type Places = BTreeMap<String, Value>;

#[tokio::test]
async fn the_tables_in_the_readmes_are_true() {
    let harness = Harness::with("delivery.retries = 0").await;
    harness.register_apns_token("apns").await;
    harness.register_fcm("fcm").await;
    let key = Form::new().text("gcm_api_key", "KEY").text("application_id", "gcm");
    expect(harness.server.post("/register_application").multipart(key), 200).await;
    super::huawei::register(&harness, HMS[0], HMS[1]).await;
    super::web_push::register(&harness, "webpush").await;
    let gateway = bootstrap::gateway(&config("listen = \"127.0.0.1:0\"")).unwrap();
    let described = gateway.described(Some(&TenantId::default_tenant()));
    let manifests: Vec<&ProviderManifest> = described.iter().map(|provider| &provider.manifest).collect();
    let mut cells: BTreeMap<(String, &str), Vec<String>> = BTreeMap::new();
    for (provider, service, _) in PROVIDERS {
        let manifest = manifests.iter().find(|manifest| manifest.name == provider).unwrap();
        let options = manifest.options.iter().map(|option| option.name.as_str());
        for field in COMMON.into_iter().chain(options.filter(|name| !COMMON.contains(name))).chain([provider])
        {
            let columns = effect(&harness, provider, service, field).await;
            cells.insert((field.to_owned(), provider), columns);
        }
    }
    let mut stale = Vec::new();
    for manifest in manifests.into_iter().filter(|manifest| !is_stream(manifest)) {
        let path = format!("{}/../../providers/{}/README.md", env!("CARGO_MANIFEST_DIR"), manifest.name);
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("{path} has no table"));
        let (_, after) = rest.split_once(END).unwrap();
        let right = format!("{before}{BEGIN}{}{END}{after}", table(manifest, &cells));
        if std::env::var_os("PUSHLET_WRITE_TABLES").is_some() {
            std::fs::write(&path, right).unwrap();
        } else if right != text {
            stale.push(path);
        }
    }
    assert!(stale.is_empty(), "not as it is on the wire: {stale:?}; PUSHLET_WRITE_TABLES=1 writes them anew");
}

/// The tables are written from the manifests; this reads them back, and knows nothing of how they are written.
#[tokio::test]
async fn every_option_of_every_manifest_has_its_line() {
    let gateway = bootstrap::gateway(&config("listen = \"127.0.0.1:0\"")).unwrap();
    let described = gateway.described(Some(&TenantId::default_tenant()));
    assert_eq!(described.len(), pushlet_sandbox::BUILT_IN.len());
    let mut options = 0;
    for manifest in described.iter().map(|provider| &provider.manifest) {
        if is_stream(manifest) {
            // Its page has no table: nothing of it is an HTTP request.
            let path = format!("{}/../../providers/{}/README.md", env!("CARGO_MANIFEST_DIR"), manifest.name);
            let text = std::fs::read_to_string(&path).unwrap();
            let missing =
                manifest.options.iter().find(|option| !text.contains(&format!("`{}`", option.name)));
            assert_eq!(missing.map(|option| &option.name), None, "{path}");
            continue;
        }
        let before = PROVIDERS.iter().take_while(|(name, ..)| *name != manifest.name);
        let before: usize = before.map(|(_, _, columns)| columns.len()).sum();
        let (_, _, its) = PROVIDERS.iter().find(|(name, ..)| *name == manifest.name).unwrap();
        let own = before..before + its.len();
        let path = format!("{}/../../providers/{}/README.md", env!("CARGO_MANIFEST_DIR"), manifest.name);
        let text = std::fs::read_to_string(&path).unwrap();
        for option in &manifest.options {
            options += 1;
            let begin = format!("| `{}`: ", option.name);
            let mut lines = text.lines().filter(|line| line.starts_with(&begin));
            let line = lines.next().unwrap_or_else(|| panic!("{path}: no line for {}", option.name));
            assert_eq!(lines.next(), None, "{path}: two lines for {}", option.name);
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").skip(1).map(str::trim).collect();
            assert_eq!(cells.len(), columns().count(), "{path}: {line}");
            assert!(own.clone().all(|column| cells[column].trim_end_matches(" |") != "–"), "{path}: {line}");
        }
    }
    assert!(options > 40, "only {options} options");
}

fn is_stream(manifest: &ProviderManifest) -> bool {
    manifest.endpoints.iter().any(|endpoint| endpoint.transport == Transport::Tls)
}

fn columns() -> impl Iterator<Item = &'static str> {
    PROVIDERS.iter().flat_map(|(_, _, columns)| columns.iter().copied())
}

/// A line for each field that the provider knows.
fn table(manifest: &ProviderManifest, cells: &BTreeMap<(String, &str), Vec<String>>) -> String {
    let names: Vec<&str> = columns().collect();
    let mut text = format!("| field | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    let options = manifest.options.iter().map(|option| option.name.as_str());
    let fields = COMMON.into_iter().chain(options.filter(|name| !COMMON.contains(name)));
    for field in fields.chain([manifest.name.as_str()]) {
        let (_, value) = sample(&manifest.name, field);
        write!(text, "| `{field}`: `{value}` |").unwrap();
        for (provider, _, names) in PROVIDERS {
            let none = vec!["–".to_owned(); names.len()];
            // Another provider's raw payload by that name is no field of this one.
            let own = field != provider || manifest.name == provider;
            let columns = cells.get(&(field.to_owned(), provider)).filter(|_| own).unwrap_or(&none);
            let other = vec![format!("its own `{field}`"); names.len()];
            let is_same = *columns == none || sample(provider, field).1 == value;
            let columns = if is_same { columns } else { &other };
            columns.iter().for_each(|cell| write!(text, " {cell} |").unwrap());
        }
        text.push('\n');
    }
    text
}

/// What the field changes in what the service receives: a cell for each of the provider's columns.
async fn effect(harness: &Harness, provider: &str, service: Service, field: &str) -> Vec<String> {
    if provider == "hms" {
        let mut cells = Vec::new();
        for app in HMS {
            let changed = changes(harness, (app, provider), service, field).await;
            cells.push(changed.map_or_else(|| "refused".into(), |changed| cell(of(&changed))));
        }
        return cells;
    }
    let changed = changes(harness, (provider, provider), service, field).await.unwrap();
    if provider != "fcm" {
        return vec![cell(of(&changed))];
    }
    let platform = |prefix: &'static str| {
        let all = ["android.", "androidV2.", "apns.", "webpush."];
        let own = of(&changed).filter(move |(place, _)| {
            place.starts_with(prefix)
                || (prefix == "android." && place.starts_with("androidV2."))
                || !all.iter().any(|other| place.starts_with(other))
        });
        cell(own)
    };
    vec![platform("android."), platform("apns."), platform("webpush.")]
}

fn of(changed: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    changed.iter().map(|(place, text)| (place.as_str(), text.as_str()))
}

/// What the field changes; None: this application refuses it by name.
async fn changes(
    harness: &Harness,
    (app, provider): (&str, &str),
    service: Service,
    field: &str,
) -> Option<Vec<(String, String)>> {
    let (carrier, value) = sample(provider, field);
    let Value::Object(carrier) = carrier else { panic!("an object") };
    let mut with = carrier.clone();
    with.insert(field.to_owned(), value.clone());
    let before = match send(harness, app, service, carrier, field).await {
        Some(push) => places(&push, field),
        None => Places::new(),
    };
    let after = places(&send(harness, app, service, with, field).await?, field);
    let is_new = |(place, value): &(&String, &Value)| before.get(*place) != Some(value) && **value != CARRIER;
    let changed = after
        .iter()
        .filter(is_new)
        .map(|(place, now)| (place.clone(), shown(now, &value)))
        .filter(|(_, text)| text != "…" || field == "ttl");
    Some(changed.collect())
}

fn cell<'a>(changed: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let all: Vec<String> = changed.map(|(place, text)| format!("`{place}`: `{text}`")).collect();
    if all.is_empty() { "not used".into() } else { all.join("<br>") }
}

/// A time that the sample does not name is one that was counted from now.
fn shown(now: &Value, sample: &Value) -> String {
    let text = now.to_string().replace(DEVICE, "TOKEN");
    let digits = text.trim_matches('"');
    let is_time = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_time && !sample.to_string().contains(digits) { "…".into() } else { text }
}

async fn send(
    harness: &Harness,
    app: &str,
    service: Service,
    notification: Map<String, Value>,
    field: &str,
) -> Option<Received> {
    let target =
        if app == "webpush" { super::web_push::target(harness, "fields", None) } else { json!(DEVICE) };
    let body = json!({"application_id": app, "target": target, "notification": notification});
    let answer = expect(harness.server.post("/v1/notifications").json(&body), 200).await;
    let result = &answer["results"][0];
    let (status, code) = (&result["status"], &result["code"]);
    // One text alone is none for Huawei.
    if HMS.contains(&app) && (*code == format!("invalid_{field}") || *code == "missing_body") {
        return None;
    }
    assert!(status == "delivered" || status == "valid", "{app} {body} {answer}");
    harness.received(service).pop()
}

/// Headers that say something of a message.
const HEADERS: [&str; 4] = ["push-type", "ttl", "urgency", "topic"];

/// The leaves of the body, and the headers that say something.
fn places(push: &Received, field: &str) -> Places {
    let mut places = Places::new();
    let body: Value = serde_json::from_str(&push.body).unwrap();
    leaves("", &body, &mut places);
    for (name, value) in push.headers.iter() {
        if !name.starts_with("apns-") && !HEADERS.contains(&name.as_str()) {
            continue;
        }
        // Else it is a new one for each push.
        if name != "apns-id" || field == "identifier" || field == "apns_id" {
            places.insert(format!("header {name}"), json!(value));
        }
    }
    let whom = ["message.token", "registration_ids", "target.token"];
    places.retain(|place, _| !whom.contains(&place.as_str()));
    places
        .into_iter()
        .map(|(place, value)| (place.trim_start_matches("message.").to_owned(), value))
        .collect()
}

fn leaves(place: &str, value: &Value, places: &mut Places) {
    match value {
        Value::Object(object) if !object.is_empty() || place.is_empty() => {
            for (name, value) in object {
                let dot = if place.is_empty() { "" } else { "." };
                leaves(&format!("{place}{dot}{name}"), value, places);
            }
        }
        leaf => drop(places.insert(place.to_owned(), leaf.clone())),
    }
}

/// A notification that carries the field, and a value of the field.
fn sample(provider: &str, field: &str) -> (Value, Value) {
    // Huawei wants both.
    let text = || match provider {
        "hms" => json!({"title": CARRIER, "body": CARRIER}),
        _ => json!({"body": CARRIER}),
    };
    let activity = || json!({"event": "update", "content_state": {"n": 1}});
    let start = || {
        json!({"event": "start", "content_state": {"n": 1}, "attributes_type": "Match", "attributes": {"n": 1},
               "body": CARRIER})
    };
    match (provider, field) {
        (_, "title" | "subtitle" | "body" | "alert" | "identifier" | "category" | "thread") => {
            let carrier = match (provider, field) {
                ("hms", "body") => text(),
                ("hms", "alert") => json!({"title": CARRIER}),
                (_, "body" | "alert") => json!({"data": {"d": CARRIER}}),
                _ => text(),
            };
            (carrier, json!("A"))
        }
        ("hms", "title_loc_args") => {
            (json!({"title": CARRIER, "body": CARRIER, "title_loc_key": "KEY"}), json!(["a"]))
        }
        ("hms", "body_loc_args") => {
            (json!({"title": CARRIER, "body": CARRIER, "body_loc_key": "KEY"}), json!(["a"]))
        }
        ("hms", "subtitle_loc_args") => {
            (json!({"title": CARRIER, "body": CARRIER, "subtitle_loc_key": "KEY"}), json!(["a"]))
        }
        ("hms", "click_action") => (text(), json!({"type": 2, "actionType": 1, "url": "https://a.example"})),
        ("hms", "channel_id") => (text(), json!("orders")),
        ("hms", "receipt_id") => (text(), json!("R")),
        ("hms", "test_message") => (text(), json!(true)),
        ("hms", "push_type") => (json!({"data": {"d": CARRIER}}), json!(6)),
        ("hms", "hms") => (text(), json!({"notification": {"title": "A", "body": "A"}})),
        ("webpush", "urgency") => (text(), json!("very-low")),
        ("webpush", "topic") => (text(), json!("abcd")),
        ("webpush", "navigate") => (json!({"title": CARRIER}), json!("https://a.example/7")),
        ("webpush", "dir") => (text(), json!("rtl")),
        ("webpush", "lang") => (text(), json!("en")),
        ("webpush", "tag") => (text(), json!("a")),
        ("webpush", "icon") => (text(), json!("https://a.example/a.png")),
        ("webpush", "silent" | "require_interaction") => (text(), json!(true)),
        ("webpush", "renotify") => (json!({"body": CARRIER, "tag": "a"}), json!(true)),
        ("webpush", "actions") => (text(), json!([{"action": "a", "title": "A"}])),
        ("webpush", "mutable") => (json!({"title": CARRIER, "navigate": "https://a.example/7"}), json!(true)),
        ("webpush", "webpush") => (text(), json!({"k": 1})),
        (_, "image") => (text(), json!("https://a.example/a.png")),
        (_, "badge") => (text(), json!(3)),
        (_, "sound") => (text(), json!("chime.caf")),
        (_, "collapse_key") => (text(), json!("k")),
        (_, "ttl") => (text(), json!(60)),
        (_, "priority") => (text(), json!("high")),
        (_, "data") => (text(), json!({"k": 1.50})),
        (_, "title_loc_key" | "subtitle_loc_key" | "body_loc_key") => (text(), json!("KEY")),
        (_, "title_loc_args") => (json!({"body": CARRIER, "title_loc_key": "KEY"}), json!(["a"])),
        (_, "subtitle_loc_args") => (json!({"body": CARRIER, "subtitle_loc_key": "KEY"}), json!(["a"])),
        (_, "body_loc_args") => (json!({"title": CARRIER, "body_loc_key": "KEY"}), json!(["a"])),
        ("apns", "push_type") => (text(), json!("voip")),
        ("apns", "topic") => (text(), json!("com.example.other")),
        ("apns", "expiration" | "stale_date" | "dismissal_date" | "timestamp") => {
            (if field == "expiration" { text() } else { activity() }, json!(1_900_000_000))
        }
        ("apns", "apns_id") => (text(), json!("123e4567-e89b-12d3-a456-426614174000")),
        ("apns", "launch_image" | "target_content_id" | "filter_criteria") => (text(), json!("A")),
        ("apns", "interruption_level") => (text(), json!("time-sensitive")),
        ("apns", "relevance_score") => (text(), json!(0.5)),
        ("apns", "url_args") => (text(), json!(["a"])),
        ("apns", "event") => {
            (json!({"push_type": "liveactivity", "content_state": {"n": 1}}), json!("update"))
        }
        ("apns", "content_state") => (json!({"push_type": "liveactivity", "event": "end"}), json!({"k": 1})),
        ("apns", "attributes_type") => (start(), json!("Race")),
        ("apns", "attributes") => (start(), json!({"k": 1})),
        ("apns", "input_push_token") => (start(), json!(true)),
        ("apns", "input_push_channel") => (start(), json!("YQ==")),
        ("apns", "content_changed") => (json!({"push_type": "complication"}), json!(true)),
        ("fcm" | "hms", "android") => (text(), json!({"ttl": "5s"})),
        ("fcm", "android_v2") => (text(), json!({"direct_boot_ok": true})),
        ("fcm", "apns") => (text(), json!({"payload": {"aps": {"badge": 3}}})),
        ("fcm", "webpush") => (text(), json!({"headers": {"Urgency": "low"}})),
        ("fcm", "fcm_options") => (text(), json!({"analytics_label": "a"})),
        ("gcm" | "fcm", "notification") => (text(), json!({"icon": "bell"})),
        ("gcm" | "fcm", "restricted_package_name") => (text(), json!("com.example")),
        (_, "content_available" | "mutable_content") => (json!({"data": {"d": CARRIER}}), json!(true)),
        (_, "validate_only" | "dry_run" | "fid" | "delay_while_idle" | "notification_key") => {
            (text(), json!(true))
        }
        ("apns", "apns") => (text(), json!({"aps": {"badge": 3}, "k": 1})),
        ("fcm", "fcm") => (text(), json!({"android": {"ttl": "5s"}})),
        ("gcm", "gcm") => (text(), json!({"time_to_live": 5})),
        _ => panic!("{provider}: give a sample of the field {field}"),
    }
}
