//! The fault runs, small enough for every `cargo test`; the seeds that once failed among them.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Duration;

use pushlet_faults::run::{Plan, run};

const PLAN: Plan =
    Plan { seed: 1, pushes: 2000, proxy: false, resend_unknown: false, deadline: Duration::from_secs(5) };

async fn holds(plan: Plan) {
    let report = run(plan).await.unwrap();
    println!("{report}");
    assert!(report.holds(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_push_is_lost_or_sent_twice() {
    holds(PLAN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_over_a_bad_network() {
    holds(Plan { proxy: true, pushes: 1500, ..PLAN }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_leave_unknown_pushes_are_sent_again_under_the_same_id() {
    holds(Plan { resend_unknown: true, ..PLAN }).await;
}
