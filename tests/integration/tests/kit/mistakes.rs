//! Mistakes that authors make, one at a time: each is found, by its rule, in its call, with a message that names it.

use pushlet_conformance::{CheckOptions, Finding, check};

use crate::guests::fixture::component;

/// Mistake, rule that finds it, call in which, and a part of place and message.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    // The manifest.
    ("no_title", "manifest", "describe", "title: it is empty"),
    ("no_description", "manifest", "describe", "description: it is empty"),
    ("field_without_description", "manifest", "describe", "settings, acme_channel: it has no description"),
    ("secret_without_description", "manifest", "describe", "secret acme_token: it has no description"),
    ("setting_of_the_host", "manifest", "describe", "provider: it is a field of a registration already"),
    (
        "option_of_the_host",
        "manifest",
        "describe",
        "options, title: every notification has a field of this name",
    ),
    ("endpoint_of_one_environment", "manifest", "describe", "endpoint batch is not there for development"),
    ("endpoint_without_tls", "manifest", "describe", "\"http://push.example\" is not of the form https://"),
    ("name_in_capitals", "manifest", "describe", "the name must be 1 to 32 of a-z"),
    ("manifest_of_the_day", "constant", "describe", "it describes itself differently"),
    // The examples.
    ("no_examples", "examples", "describe", "it must have 1 to 32"),
    ("example_is_no_json", "examples", "describe", "examples[0]: its notification is not a JSON object"),
    (
        "example_of_no_option",
        "examples",
        "describe",
        "stiky is not a field of a notification for acme; did you mean sticky?",
    ),
    ("example_of_no_setting", "examples", "describe", "its setting acme_chanel is not one of"),
    ("example_of_no_credential", "examples", "describe", "its credential tokens is not one of"),
    ("example_refused_at_registration", "examples", "check-application", "acme_region is missing"),
    ("example_refused", "examples", "encode", "it is refused: it is wrong"),
    ("sets_authorization", "examples", "encode", "header authorization belongs to the host"),
    (
        "header_in_capitals",
        "examples",
        "encode",
        "header \"Content-Type\" is not allowed: its name must be in lower case",
    ),
    ("unknown_endpoint", "examples", "encode", "endpoint \"pusch\" is not in its manifest"),
    // Targets.
    ("assumes_a_target", "targets", "encode", "examples[0], 0 targets: the provider stopped"),
    ("forgets_the_last_target", "targets", "encode", "target 1 is not covered"),
    ("sends_twice", "targets", "encode", "target 0 is covered twice"),
    ("all_in_one", "targets", "encode", "an exchange covers more targets than the manifest says"),
    ("targets_mixed_up", "targets", "encode", "its request is not the one that it gets alone"),
    (
        "raw_target_in_path",
        "any-target",
        "encode",
        "Device target: a space: the provider's answer breaks the contract: path",
    ),
    ("bad_target_refuses_all", "any-target", "encode", "good targets of the same call are refused"),
    // Texts.
    ("raw_setting_in_path", "any-setting", "encode", "setting acme_channel: a space: the provider's answer"),
    (
        "panics_at_registration",
        "any-setting",
        "check-application",
        "setting acme_channel: other scripts: the provider stopped",
    ),
    (
        "raw_text_in_header",
        "any-field",
        "encode",
        "title: a line break: the provider's answer breaks the contract: header",
    ),
    (
        "raw_text_in_json",
        "any-field",
        "encode",
        "body: a quote: content-type is application/json, and the body is no JSON",
    ),
    ("cuts_in_a_character", "any-field", "encode", "body: emoji: the provider stopped"),
    ("needs_an_alert", "any-field", "encode", "no field at all: the provider stopped"),
    ("adds_without_care", "any-field", "encode", "ttl: 4294967295: the provider stopped"),
    ("assumes_flat_data", "any-field", "encode", "the provider stopped"),
    (
        "slow_for_long_texts",
        "any-field",
        "encode",
        "body: 8192 characters: the provider did not answer in time",
    ),
    (
        "much_memory_for_long_texts",
        "any-field",
        "encode",
        "body: 8192 characters: the provider reached its memory limit",
    ),
    ("counts_its_calls", "deterministic", "encode", "a used instance makes another request than a new one"),
    // Answers.
    ("always_delivered", "answers", "decode", "status 0, body: nothing: it is reported as delivered"),
    ("always_unregistered", "answers", "decode", "status 401, body: nothing: it is reported as unregistered"),
    ("no_redirects", "answers", "decode", "status 300, body: nothing: the provider stopped"),
    ("needs_json", "answers", "decode", "status 400, body: nothing: the provider stopped"),
    ("panics_with_words", "answers", "decode", "status 503, body: nothing: the provider stopped"),
    ("native_is_no_json", "answers", "decode", "its native answer is not JSON"),
    ("needs_a_content_type", "any-header", "decode", "status 200, no header: the provider stopped"),
    ("waits_for_seconds", "retry-after", "decode", "two minutes became 120 ms, not 120000 ms"),
    (
        "waits_for_numbers_alone",
        "retry-after",
        "decode",
        "retry-after: Tue, 14 Nov 2023 22:15:20 GMT: the provider stopped",
    ),
    ("one_reply_for_all", "many-answers", "decode", "1 replies for"),
    ("one_outcome", "many-answers", "decode", "1 outcomes for 2 targets"),
    ("results_by_index", "many-answers", "decode", "the provider stopped"),
    ("remembers_answers", "many-answers", "decode", "its reply is not the one that it gets among others"),
];

/// The guest with this mistake.
pub fn with(mistake: &str) -> Vec<u8> {
    let mut bytes = component("mistakes").to_vec();
    let marker = b"mistake:none............................";
    let place = bytes.windows(marker.len()).position(|window| window == marker).expect("the marker");
    let name = format!("{:.<1$}", format!("mistake:{mistake}"), marker.len());
    bytes[place..place + marker.len()].copy_from_slice(name.as_bytes());
    bytes
}

fn shown((rule, finding): &(&'static str, &Finding)) -> String {
    format!("{rule} | {} | {}: {}", finding.call, finding.place, finding.message)
}

#[test]
fn without_a_mistake_it_keeps_the_contract() {
    let report = check(&with("none"), &CheckOptions::default());
    assert!(report.passed(), "{}", report.table());
}

#[test]
fn each_is_found_by_its_rule_and_named() {
    let mut missed = Vec::new();
    for (mistake, rule, call, part) in MISTAKES {
        let options = CheckOptions { rules: vec![rule.to_string()], ..CheckOptions::default() };
        let report = check(&with(mistake), &options);
        let errors: Vec<_> = report.errors().collect();
        let found = errors.iter().any(|(found, finding)| {
            let text = format!("{}: {}", finding.place, finding.message);
            found == rule && finding.call == *call && text.contains(part)
        });
        if !found {
            let errors: Vec<String> = errors.iter().map(shown).collect();
            missed.push(format!("{mistake}: {rule} | {call} | {part}\n  {}", errors.join("\n  ")));
        }
    }
    assert!(missed.is_empty(), "{} of {}\n{}", missed.len(), MISTAKES.len(), missed.join("\n"));
}

#[test]
fn a_failure_tells_what_was_printed_in_that_call() {
    let report = check(&with("panics_with_words"), &CheckOptions::default());
    let (_, finding) = report.errors().next().unwrap();
    let printed = finding.printed.as_deref().unwrap();
    assert!(printed.starts_with("about to read 0 bytes / "), "{printed}");
    assert!(printed.contains("panicked at") && printed.contains("no body"), "{printed}");
    assert!(report.table().contains("before that it printed: about to read 0 bytes"), "{}", report.table());
}
