#![allow(clippy::unwrap_used)]
use pushlet_faults::{ledger::*, peer::*, run::*};
use std::sync::Arc;
use std::time::*;
#[tokio::test(flavor = "multi_thread")]
async fn calm() {
    let plan = Plan {
        seed: 1,
        pushes: 3000,
        proxy: false,
        resend_unknown: false,
        deadline: Duration::from_secs(10),
    };
    let c = Certificate::new().unwrap();
    let l = Arc::new(Ledger::new(3000));
    let p = Peer::start(&c, 1, Manner::Calm, l.clone()).await.unwrap();
    let t = Instant::now();
    let a = answers(&c, p.address, plan).await.unwrap();
    println!("{:?} {:?}", t.elapsed(), l.compare(&a, false));
    let t = Instant::now();
    let a = answers(&c, p.address, plan).await.unwrap();
    println!("{:?} {:?}", t.elapsed(), l.compare(&a, false));
}
