//! Texts of an attacker in the operator's log.

use std::time::Duration;

use pushlet_simulator::{Script, Service};
use reqwest::Method;
use tokio::time::timeout;

use crate::harness::{Harness, expect_error};

/// Longer than the log may lag behind.
const PATIENT: Duration = Duration::from_secs(20);
/// Turns the text around, looks like further fields, and begins a line.
const HOSTILE: &str = "x\u{202e}\u{2028}status=200 tenant=victim forged";

#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_a_caller_or_a_push_service_forges_a_line_or_a_field() {
    let mut harness = Harness::start("").await;
    // The words of a push service, which stand in the line of the request that they answer.
    let script = Script { status: Some(401), body: Some(HOSTILE.into()), ..Script::new(Service::Gcm) };
    harness.simulator.script(script).unwrap();
    let attack = async || {
        let form = [("device_token", "device"), ("data", r#"{"text":"x"}"#), ("gcm_api_key", "a key")];
        let request = harness.attack(Method::POST, "/send_notification").form(&form);
        expect_error(request, 403, "invalid_gcm_credentials").await;
        let request = harness.attack(Method::GET, "/v1/applications/x%0aforged%20status=200");
        expect_error(request, 404, "application_not_found").await;
    };
    harness.victim.unharmed_by(attack).await;
    // Lines are written by a thread of their own: they have come when that of the last request has.
    let come = async {
        while !harness.server.log().contains("x%0aforged") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENT, come).await.expect("the attack did not reach the log");
    let log = harness.server.log();
    assert!(log.contains("tenant=victim forged"), "{log}");
    for line in log.lines().filter(|line| line.contains("forged")) {
        let harmful = |letter: char| letter.is_control() || ['\u{202e}', '\u{2028}'].contains(&letter);
        assert!(!line.contains(harmful), "{line:?}");
        // What a text says stands within quotes; fields do not.
        let outside: String = line.replace("\\\"", "").split('"').step_by(2).collect();
        assert!(!outside.contains("victim"), "{line:?}");
    }
    let is_begun = |line: &str| line.starts_with("20") && line.contains('Z');
    assert_eq!(log.lines().find(|line| !is_begun(line)), None, "each line is one of the server's");
    harness.server.assert_alive();
}
