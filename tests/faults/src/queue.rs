//! One delivery that outlives its caller, in a fleet under fire: whatever is killed, each target gets one result, and it
//! is true.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fleet::{Callers, Fleet, told_of};
use crate::ledger::{Ledger, Told};
use crate::peer::{Failure, Manner};
use crate::run::{Plan, Report};

/// As long as a delivery may take.
const LONGEST: Duration = Duration::from_secs(1800);
const LOOK: Duration = Duration::from_millis(500);

/// Runs a plan; `proxy` is not looked at.
pub async fn run(plan: Plan) -> Result<Report, Failure> {
    let settings = format!("delivery.resend_unknown = {}", plan.resend_unknown);
    let fleet = Fleet::start(plan, Manner::Wild, &settings).await?;
    fleet.callers.register().await?;
    let (callers, ledger) = (fleet.callers.clone(), fleet.peer.ledger.clone());
    let started = Instant::now();
    let path = hand_over(&callers, plan.pushes).await?;
    let (misfortunes, rest) = fleet.misfortunes(plan.seed);
    complete(&callers, &path, started).await?;
    let took = started.elapsed();
    let nodes = misfortunes.end().await?;
    // What a stopped server still sends is in the ledger before it is compared.
    tokio::time::sleep(plan.deadline).await;
    let answers = answers(&callers, &path, plan.pushes, &ledger).await?;
    drop((nodes, rest));
    Ok(Report::of(plan, &ledger, &answers, took))
}

/// Hands all pushes over. Returns the path of the delivery.
async fn hand_over(callers: &Callers, pushes: usize) -> Result<String, Failure> {
    let header = json!({"application_id": "0", "notification": {"body": "hello"}});
    let lines = (0..pushes).map(|push| format!("{{\"target\":\"{push:064x}\"}}\n"));
    let body = [format!("{header}\n")].into_iter().chain(lines).collect::<String>();
    loop {
        let request = callers.client.post(callers.url("/v1/notifications:stream"));
        let request =
            request.header("content-type", "application/x-ndjson").header("prefer", "respond-async");
        let response = request.body(body.clone()).send().await?;
        let status = response.status().as_u16();
        let answer: Value = response.json().await?;
        match (status, answer["href"].as_str()) {
            (202, Some(path)) => return Ok(path.to_owned()),
            // Another node may not know the application yet.
            (404 | 503, _) => tokio::time::sleep(LOOK).await,
            _ => return Err(format!("the delivery is refused: {answer}").into()),
        }
    }
}

async fn complete(callers: &Callers, path: &str, started: Instant) -> Result<(), Failure> {
    let mut last = Value::Null;
    while started.elapsed() < LONGEST {
        if let Ok(response) = callers.client.get(callers.url(path)).send().await
            && let Ok(shown) = response.json::<Value>().await
        {
            if shown["state"] == "complete" {
                return Ok(());
            }
            last = shown;
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(format!("the delivery does not end: {last}").into())
}

/// Reads all results, in pieces and from any node. A second result of a target is a violation.
async fn answers(
    callers: &Callers,
    path: &str,
    pushes: usize,
    ledger: &Ledger,
) -> Result<Vec<Option<Told>>, Failure> {
    let mut answers: Vec<Option<Told>> = vec![None; pushes];
    let url = callers.url(&format!("{path}/results"));
    let text = callers.client.get(url).send().await?.error_for_status()?.text().await?;
    let mut is_complete = false;
    for line in text.lines() {
        let line: Value = serde_json::from_str(line)?;
        let Some(index) = line["index"].as_u64() else {
            is_complete = line["complete"] == true;
            continue;
        };
        match usize::try_from(index).ok().and_then(|index| answers.get_mut(index)) {
            Some(slot @ None) => *slot = Some(told_of(&line)),
            Some(Some(_)) => ledger.violation(format!("push {index} has two results")),
            None => ledger.violation(format!("push {index} was never handed over")),
        }
    }
    if !is_complete {
        ledger.violation("the results are not complete".to_owned());
    }
    Ok(answers)
}
