//! A provider with one of the mistakes that authors make. Which one stands in the file itself, where a test overwrites
//! it: one build serves for all.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::string_slice
)]

use std::sync::atomic::{AtomicU32, Ordering};

use pushlet_guests::exports::manifest::{Authentication, Credential, SecretFormat};
use pushlet_guests::*;
use pushlet_provider::manifest::{endpoints, example, field, header, secret};
use pushlet_provider::{CredentialFault, Throttle, input, json, reply, time};
use serde_json::{Value, json};

pub struct Mistakes;

/// The name of the mistake, filled up with dots.
static MISTAKE: [u8; 40] = *b"mistake:none............................";

/// Calls of this instance.
static CALLS: AtomicU32 = AtomicU32::new(0);

fn has(name: &str) -> bool {
    let text = std::hint::black_box(&MISTAKE);
    let text = std::str::from_utf8(text).unwrap_or_default();
    text.trim_start_matches("mistake:").trim_end_matches('.') == name
}

/// `wrong` in place of `right`, if it makes this mistake.
fn instead<T>(name: &str, right: T, wrong: T) -> T {
    if has(name) { wrong } else { right }
}

fn texts(name: &str, right: &str, wrong: &str) -> String {
    instead(name, right, wrong).into()
}

fn credential() -> Credential {
    Credential {
        name: "token".into(),
        secrets: vec![secret(
            "acme_token",
            SecretFormat::Text,
            None,
            &texts("secret_without_description", "The token.", ""),
        )],
        authentication: Authentication::Secret(("acme_token".into(), header("authorization", "Bearer "))),
        companions: Vec::new(),
        required_settings: vec![setting_name().into()],
        derivations: Vec::new(),
        inline: false,
        connection_settings: Vec::new(),
    }
}

fn setting_name() -> &'static str {
    instead("setting_of_the_host", "acme_channel", "provider")
}

/// Mistakes that show only where an exchange covers several targets.
const OF_MANY: [&str; 3] = ["one_outcome", "results_by_index", "one_path_for_all"];

fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_secs()
}

impl Guest for Mistakes {
    fn describe() -> ProviderManifest {
        let credential_name = texts("example_of_no_credential", "token", "tokens");
        let settings = [(instead("example_of_no_setting", "acme_channel", "acme_chanel"), "news")];
        let notification = match () {
            () if has("example_is_no_json") => "{title: 'Hello'}",
            () if has("example_of_no_option") => r#"{"title":"Hello","stiky":true}"#,
            () => r#"{"title":"Hello","body":"world","ttl":60,"data":{"order":"7"}}"#,
        };
        let examples = vec![example(&credential_name, &settings, "a1b2c3", notification)];
        let mut endpoints =
            endpoints("push", Transport::Https, "https://push.example", "https://dev.push.example").to_vec();
        if has("endpoint_of_one_environment") {
            endpoints.push(endpoints[0].clone());
            endpoints[2].name = "batch".into();
        }
        if has("endpoint_without_tls") {
            endpoints[0].origin = Origin::Fixed("http://push.example".into());
        }
        let many = OF_MANY.iter().any(|name| has(name));
        ProviderManifest {
            name: texts("name_in_capitals", "acme", "Acme"),
            title: texts("no_title", "Acme", ""),
            version: if has("manifest_of_the_day") { now().to_string() } else { "1".into() },
            description: texts("no_description", "Posts a notification.", " "),
            settings: vec![field(
                setting_name(),
                ValueKind::Text,
                &texts("field_without_description", "Where it appears.", ""),
            )],
            credentials: vec![credential()],
            options: vec![field(
                instead("option_of_the_host", "sticky", "title"),
                ValueKind::Boolean,
                "Stays on top.",
            )],
            endpoints,
            targets_per_exchange: if many { 10 } else { 1 },
            response_headers: vec!["content-type".into(), "retry-after".into()],
            examples: if has("no_examples") { Vec::new() } else { examples },
            ..manifest()
        }
    }

    fn check_application(application: Application) -> Result<(), Rejection> {
        if has("example_refused_at_registration") {
            return Err(input::missing("acme_region", "acme_region is missing"));
        }
        if has("panics_at_registration") {
            let channel = input::setting(&application, "acme_channel").unwrap_or_default();
            assert!(channel.is_ascii(), "the channel {channel} is not ASCII");
        }
        Ok(())
    }

    fn encode(
        context: Context,
        application: Application,
        notification: Notification,
        targets: Vec<Recipient>,
    ) -> Encoded {
        encode(&context, &application, &notification, &targets)
    }

    fn decode(context: Context, _: Application, answers: Vec<Answer>, _: bool) -> Vec<Reply> {
        let mut replies: Vec<Reply> = answers.iter().map(|answer| decode(&context, answer)).collect();
        if has("one_reply_for_all") {
            replies.truncate(1);
        }
        replies
    }
}

fn name_of(target: &Recipient) -> &str {
    match &target.target {
        Target::Device(name) | Target::Topic(name) => name,
        _ => "",
    }
}

/// Everything but letters and digits is percent-encoded.
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn encode(
    context: &Context,
    application: &Application,
    notification: &Notification,
    targets: &[Recipient],
) -> Encoded {
    let refused = |code: &str| reply::refuse_all(targets.len(), input::invalid(code, "it is wrong"));
    if has("example_refused") {
        return refused("title");
    }
    if has("assumes_a_target") {
        let _ = name_of(&targets[0]);
    }
    if has("bad_target_refuses_all") && targets.iter().any(|target| name_of(target).contains('/')) {
        return refused("target");
    }
    let mut message = message(body(context, notification));
    message.headers = headers(notification);
    if has("unknown_endpoint") {
        message.endpoint = "pusch".into();
    }
    let count = targets.len();
    let channel = input::setting(application, "acme_channel").unwrap_or_default();
    let channel = instead("raw_setting_in_path", escaped(channel), channel.to_owned());
    let path = |place: usize| {
        let place = if has("targets_mixed_up") { count - 1 - place } else { place };
        let name = name_of(&targets[place]);
        // 4096 bytes are the longest path.
        let name: String = name.chars().take(200).collect();
        format!("/{channel}/{}", instead("raw_target_in_path", escaped(&name), name.clone()))
    };
    let mut exchanges: Vec<Exchange> =
        (0..count).map(|place| Exchange { path: path(place), ..exchange(&[reply::index(place)]) }).collect();
    match () {
        () if has("forgets_the_last_target") && count > 1 => drop(exchanges.pop()),
        () if has("sends_twice") && count > 1 => exchanges.push(exchanges[0].clone()),
        () if has("all_in_one") => exchanges = all_at_once(targets).exchanges,
        () => {}
    }
    exchanges.retain(|exchange| !exchange.covers.is_empty());
    let messages = if exchanges.is_empty() { Vec::new() } else { vec![message] };
    Encoded { messages, exchanges, refusals: Vec::new() }
}

fn headers(notification: &Notification) -> Vec<(String, String)> {
    let kind = instead("header_in_capitals", "content-type", "Content-Type");
    let mut headers = vec![(kind.to_owned(), "application/json".to_owned())];
    if has("sets_authorization") {
        headers.push(("authorization".to_owned(), "Bearer 123".to_owned()));
    }
    let title = notification.alert.as_ref().and_then(|alert| alert.title.clone());
    if let Some(title) = title.filter(|_| has("raw_text_in_header")) {
        headers.push(("x-title".to_owned(), title.chars().take(100).collect()));
    }
    headers
}

fn body(context: &Context, notification: &Notification) -> Vec<u8> {
    let alert = notification.alert.as_ref();
    if has("needs_an_alert") {
        let _ = alert.unwrap();
    }
    let text = alert.and_then(|alert| alert.body.clone()).unwrap_or_default();
    if has("cuts_in_a_character") && text.len() > 10 {
        let _ = &text[..10];
    }
    if has("slow_for_long_texts") && text.len() > 4_000 {
        spin();
    }
    if has("much_memory_for_long_texts") && text.len() > 4_000 {
        std::hint::black_box(vec![1_u8; text.len() * 20_000]);
    }
    let ttl = notification.time_to_live.unwrap_or(0);
    if has("adds_without_care") {
        let _ = ttl.checked_mul(1000).unwrap();
    }
    if has("assumes_flat_data") {
        let data = json::object("data", notification.data.as_deref()).unwrap();
        data.values().for_each(|value| _ = value.as_str().unwrap());
    }
    if has("raw_text_in_json") {
        return format!(r#"{{"text":"{text}"}}"#).into_bytes();
    }
    let mut body = json!({"text": text, "expires": context.now / 1000 + u64::from(ttl)});
    if has("counts_its_calls") {
        body["number"] = json!(CALLS.fetch_add(1, Ordering::Relaxed));
    }
    json::write(&body).into_bytes()
}

fn decode(context: &Context, answer: &Answer) -> Reply {
    let response = &answer.response;
    if has("panics_with_words") && response.status == 503 {
        println!("about to read {} bytes", response.body.len());
        panic!("no body");
    }
    if has("needs_a_content_type") {
        assert!(time::header(response, "content-type").unwrap() != "text/plain");
    }
    if has("needs_json") && response.status >= 400 {
        let _: Value = serde_json::from_slice(&response.body).unwrap();
    }
    let mut outcome = outcome(context, response);
    if has("remembers_answers") && CALLS.fetch_add(1, Ordering::Relaxed).is_multiple_of(7) {
        outcome.code = Some("seventh".into());
    }
    let mut reply = reply::same_for_all(answer.targets.len(), outcome);
    if has("one_outcome") {
        reply.outcomes.truncate(1);
    }
    if has("results_by_index") {
        let body = json::body(response);
        if let Some(results) = body.get("results").and_then(Value::as_array) {
            answer.targets.iter().enumerate().for_each(|(place, _)| _ = &results[place]);
        }
    }
    if has("native_is_no_json") {
        reply.native = Some(String::from_utf8_lossy(&response.body).into_owned());
    }
    reply
}

fn outcome(context: &Context, response: &pushlet_provider::Response) -> Outcome {
    let failed = |disposition| reply::failed(disposition, None, None);
    let wait = match () {
        () if has("waits_for_seconds") => time::retry_after(response, context.now).map(|wait| wait / 1000),
        () if has("waits_for_numbers_alone") => {
            time::header(response, "retry-after").map(|wait| wait.parse::<u64>().unwrap() * 1000)
        }
        () => time::retry_after(response, context.now),
    };
    match response.status {
        _ if has("always_delivered") => reply::delivered(None),
        400.. if has("always_unregistered") => failed(Disposition::Unregistered(None)),
        300..=399 if has("no_redirects") => unreachable!("a push service redirects"),
        200..=299 => reply::delivered(None),
        401 | 403 => failed(Disposition::CredentialRejected(CredentialFault::Refused)),
        404 | 410 => failed(Disposition::Unregistered(None)),
        429 => failed(Disposition::Throttled(Throttle {
            scope: pushlet_provider::Scope::Application,
            retry_after: wait,
        })),
        500.. => failed(Disposition::Unavailable(wait)),
        0..=199 => failed(Disposition::Unknown),
        _ => failed(Disposition::Rejected),
    }
}

export!(Mistakes);
