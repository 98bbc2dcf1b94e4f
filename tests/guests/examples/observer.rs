//! Tells everything that it can find out beside its arguments.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::Read;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pushlet_guests::*;

pub struct Observer;

fn clocks(found: &mut Vec<String>) {
    let start = Instant::now();
    let mut work = 0_u64;
    for turn in 0..3_000_000_u64 {
        work = std::hint::black_box(work ^ turn);
    }
    found.push(format!("elapsed {:?}", start.elapsed()));
    found.push(format!("since the epoch {:?}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap()));
}

fn randomness(found: &mut Vec<String>) {
    found.push(format!("seed {}", RandomState::new().build_hasher().finish()));
    let map: HashMap<u32, ()> = (0..20).map(|key| (key, ())).collect();
    found.push(format!("order {:?}", map.keys().collect::<Vec<_>>()));
}

fn surroundings(found: &mut Vec<String>) {
    found.push(format!("environment {:?}", std::env::vars().collect::<Vec<_>>()));
    found.push(format!("arguments {:?}", std::env::args().collect::<Vec<_>>()));
    let mut input = String::new();
    found.push(format!(
        "input {:?} {input:?}",
        std::io::stdin().read_to_string(&mut input).map_err(|error| error.kind())
    ));
}

fn machine(found: &mut Vec<String>) {
    let local = 0_u8;
    found.push(format!("stack {:?}", &raw const local));
    found.push(format!("heap {:?}", Box::into_raw(Box::new(1_u8))));
    let (zero, other) = (std::hint::black_box(0.0_f64), std::hint::black_box(0.0_f64));
    found.push(format!("nan {:x} {:x}", (zero / other).to_bits(), (-(zero / other)).to_bits()));
}

impl Guest for Observer {
    fn encode(_: Context, _: Application, _: Notification, targets: Vec<Recipient>) -> Encoded {
        let mut found = Vec::new();
        clocks(&mut found);
        randomness(&mut found);
        surroundings(&mut found);
        machine(&mut found);
        with_body(&targets, found.join("\n").into_bytes())
    }
}

export!(Observer);
