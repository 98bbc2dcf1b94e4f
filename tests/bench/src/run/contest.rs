//! The same plan for several servers, in turns.

use super::Pace;
use super::bench::{Bench, Measured, load, measure};
use super::table::Row;
use crate::failure::Failure;
use crate::gateway::Gateway;
use crate::load::{Figures, Manner, Plan};
use crate::process::Process;
use crate::say;

/// A server that is measured.
#[derive(Clone, Copy)]
pub struct Contestant<'a> {
    pub mode: &'static str,
    pub process: &'a Process,
    pub address: &'a str,
}

impl<'a> Contestant<'a> {
    pub fn of(mode: &'static str, gateway: &'a Gateway) -> Self {
        Self { mode, process: gateway.server(), address: gateway.address() }
    }
}

/// Measures them, each for `pace.seconds` in all, and answers a row for each. `plans` makes the plan of the
/// contestant at an index.
pub fn contest(
    bench: &Bench,
    contestants: &[Contestant<'_>],
    what: &str,
    pace: Pace,
    plans: impl Fn(usize) -> Plan,
) -> Result<Vec<Row>, Failure> {
    let mut turns: Vec<Vec<Measured>> = contestants.iter().map(|_| Vec::new()).collect();
    let addressed = |(index, contestant): (usize, &Contestant<'_>)| Plan {
        address: contestant.address.into(),
        ..plans(index)
    };
    let plans: Vec<Plan> = contestants.iter().enumerate().map(addressed).collect();
    for (contestant, plan) in contestants.iter().zip(&plans) {
        probe(contestant.mode, plan)?;
    }
    // A stream warms up by itself.
    let streams = plans.iter().any(|plan| matches!(plan.manner, Manner::Stream(_)));
    let count = if streams { 1 } else { pace.turns };
    for _ in 0..count {
        for ((contestant, plan), turns) in contestants.iter().zip(&plans).zip(&mut turns) {
            let plan = Plan { seconds: pace.seconds / f64::from(count), ..plan.clone() };
            turns.push(measure(bench, contestant.process, &plan)?);
        }
    }
    let measured = turns.into_iter().map(|turns| Measured::of_turns(&turns));
    let rows = contestants.iter().zip(measured).map(|(contestant, measured)| {
        if let Some(complaint) = &measured.figures.complaint {
            say(&format!("{what}, {}: {:?} {complaint}\n", contestant.mode, measured.figures.statuses));
        }
        Row { what: what.to_owned(), mode: contestant.mode, measured, allocations: None }
    });
    Ok(rows.collect())
}

/// Does the server take it at all?
fn probe(mode: &str, plan: &Plan) -> Result<(), Failure> {
    let probe = match plan.manner {
        Manner::Stream(_) => Plan { manner: Manner::Stream(10), ..plan.clone() },
        _ => Plan { manner: Manner::Times(1), connections: 1, seconds: 10.0, ..plan.clone() },
    };
    let probed = load(&probe)?;
    if probed.pushes == 0 {
        let Figures { statuses, complaint, .. } = &probed;
        return Err(Failure::new(format!("{}, {mode}: {statuses:?} {complaint:?}", plan.path)));
    }
    Ok(())
}
