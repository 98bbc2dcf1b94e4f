//! Tenants who each send through a component of their own, uploaded as anybody uploads one.

use super::{Pace, decades, plan, point, warm_up};
use crate::failure::{Failure, at};
use crate::gateway::{Gateway, Programs, Service, Setup};
use crate::linked::{self, Mode};
use crate::load::Plan;
use crate::run::bench::{Bench, measure};
use crate::run::svg::Curve;

const OPERATOR: &str = "the-operators-own-key";
const APNS: &str = "apns";
/// Uploads at a time, and processes that compile.
const JOBS: usize = 2;

/// Up to `top` tenants, in one server to which more and more of them come.
pub fn curve(programs: &Programs, pace: Pace, top: u64) -> Result<Curve, Failure> {
    let bench = Bench::start(programs, 0)?;
    let gateway = bench.gateway(&Setup { more: settings(&bench, top), ..Setup::of(Mode::Warm) })?;
    let component = linked::component(&programs.linked, APNS)?;
    let mut keys = Vec::new();
    let mut points = Vec::new();
    for count in decades(top) {
        keys.extend(tenants(&bench, &gateway, &component, keys.len() as u64..count)?);
        let plan = Plan { keys: keys.clone(), ..plan(&bench, gateway.address(), pace) };
        warm_up(&plan, count)?;
        points.push(point(count as f64, &measure(&bench, gateway.server(), &plan)?));
    }
    Ok(Curve { title: "tenants with a component of their own".into(), points })
}

/// Room for all, each with an instance that stays, and no limit of CPU time: it is what is measured. Each tenant's
/// component sends to the sink.
fn settings(bench: &Bench, top: u64) -> String {
    let sink = format!("https://127.0.0.1:{}", bench.ports().apns);
    let endpoints = (0..top).map(|number| {
        format!(
            "endpoints.\"tenant-{number}/{APNS}\" = {{ production = {sink:?}, development = {sink:?} }}\n"
        )
    });
    let endpoints: String = endpoints.collect();
    let room = format!(
        "admin.key = \"{OPERATOR}\"\nproviders.allow_shadowing = true\nproviders.compile_jobs = {JOBS}\n\
         sandbox.instances = {}\nlimits.tenant.cpu_milliseconds_per_second = 1000000\n",
        top + 100
    );
    endpoints + &room
}

/// Makes them, some at a time; their keys, in no order.
fn tenants(
    bench: &Bench,
    gateway: &Gateway,
    component: &[u8],
    numbers: std::ops::Range<u64>,
) -> Result<Vec<String>, Failure> {
    let numbers: Vec<u64> = numbers.collect();
    let parts = numbers.chunks(numbers.len().div_ceil(JOBS).max(1));
    std::thread::scope(|scope| {
        let make = |part: &[u64]| {
            part.iter().map(|number| tenant(bench, gateway, &variant(component, *number), *number)).collect()
        };
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || make(part))).collect();
        let mut keys = Vec::new();
        for thread in threads {
            let made: Result<Vec<String>, Failure> =
                thread.join().map_err(|_| Failure::new("making tenants panicked"))?;
            keys.extend(made?);
        }
        Ok(keys)
    })
}

fn tenant(bench: &Bench, gateway: &Gateway, component: &[u8], number: u64) -> Result<String, Failure> {
    let path = format!("PUT /v1/tenants/tenant-{number}");
    let made = gateway.call(&path, Some(OPERATOR), "application/json", b"{}")?;
    let made: serde_json::Value = serde_json::from_str(&made).map_err(at(&path))?;
    let key = made.get("api_key").and_then(serde_json::Value::as_str);
    let key = key.ok_or_else(|| Failure::new(format!("{path}: {made}")))?;
    let upload = format!("PUT /v1/providers/{APNS}");
    gateway.call(&upload, Some(key), "application/wasm", component)?;
    gateway.register("token", 1, Service::ApnsToken, bench.files(), Some(key))?;
    Ok(key.to_owned())
}

/// A component with a custom section more, so that no two tenants have the same code.
fn variant(component: &[u8], number: u64) -> Vec<u8> {
    // Section 0, ten bytes long: a name of one letter, and the number.
    let section = [0, 10, 1, b'n'].into_iter().chain(number.to_be_bytes());
    component.iter().copied().chain(section).collect()
}
