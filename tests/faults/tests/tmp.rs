#![allow(clippy::unwrap_used)]
use std::sync::Arc; use std::time::*;
use pushlet_faults::{run::*, peer::*, ledger::*};
#[tokio::test(flavor = "multi_thread")]
async fn calm() {
    let plan = Plan { seed: 1, pushes: 3000, proxy: false, resend_unknown: false, deadline: Duration::from_secs(10) };
    let c = Certificate::new().unwrap(); let l = Arc::new(Ledger::new(3000));
    let p = Peer::start(&c, 1, Manner::Calm, l.clone()).await.unwrap();
    let t = Instant::now();
    let a = answers(&c, p.address, plan).await.unwrap();
    println!("{:?} {:?}", t.elapsed(), l.compare(&a, false));
    let t = Instant::now();
    let a = answers(&c, p.address, plan).await.unwrap();
    println!("{:?} {:?}", t.elapsed(), l.compare(&a, false));
}
