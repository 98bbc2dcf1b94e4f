//! The fault runs, small enough for every `cargo test`; the seeds that once failed among them.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;
use std::time::Duration;

use pushlet_faults::caller::{Caller, Setup};
use pushlet_faults::hang;
use pushlet_faults::ledger::{Ledger, Told};
use pushlet_faults::peer::{Certificate, Manner, Peer};
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

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_hangs_costs_its_callers_their_deadline_and_others_nothing() {
    let report = hang::run(50, 1).await.unwrap();
    println!("{report}");
    assert!(report.holds(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_goaway_says_of_the_credential_is_told() {
    let certificate = Certificate::new().unwrap();
    let peer = Peer::start(&certificate, 1, Manner::Refusing, Arc::new(Ledger::new(0))).await.unwrap();
    let setup = Setup {
        production: peer.address,
        development: peer.address,
        deadline: Duration::from_secs(30),
        resend_unknown: false,
    };
    let caller = Caller::new(&certificate, &setup).unwrap();
    assert_eq!(caller.send("0", 1..2).await, [Told::NotDelivered("InvalidProviderToken".into())]);
}
