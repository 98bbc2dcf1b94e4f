//! Who may ask, and what outlives permission.

use reqwest::Method;
use serde_json::json;

use crate::harness::{Harness, expect_error};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_cannot_send_through_anothers_application() {
    let mut harness = Harness::start("").await;
    let body = json!({"application_id": "neighbours", "notification": {"body": "x"}, "targets": ["00aa"]});
    let attack = || async {
        for _ in 0..20 {
            let request = harness.attack(Method::POST, "/v1/notifications").json(&body);
            expect_error(request, 404, "application_not_found").await;
        }
    };
    harness.neighbour.unharmed_by(attack).await;
    assert!(harness.server.peak_resident() < 512 << 20);
    harness.server.assert_alive();
}
