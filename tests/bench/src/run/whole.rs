//! The table: every route and provider, natively, warm and per call side by side.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::Pace;
use super::bench::{Bench, DELIVERED};
use super::contest::{Contestant, contest};
use super::h2load::{self, Ceiling};
use super::relay::Relay;
use super::table::{self, Row};
use crate::failure::{Failure, at};
use crate::gateway::{Gateway, Programs, Service, Setup};
use crate::guard::{self, Route};
use crate::linked::{self, Mode, Repeat, Subject};
use crate::load::{Manner, Plan};
use crate::process::which;
use crate::say;

const JSON: &str = "application/json";
const BATCH: usize = 100;
/// Registration ids of one GCM exchange.
const IDS: usize = 1000;
const RELAY: &str = "bare relay";
const SHARDED: &str = "bare relay, sharded";
/// Tells apart what differs between two builds.
const CONTROL: &str = "warm, as linked beside native";
const STREAM: &str = ":stream";
const CLASSIC: &str = "classic, keep-alive, APNs token";

/// Measures and prints.
pub fn whole(programs: &Programs, pace: Pace) -> Result<(), Failure> {
    say(&format!("{}\n", table::machine()));
    codecs(programs, pace)?;
    let bench = Bench::start(programs, 0)?;
    let starts = starts(&bench, pace)?;
    let ceiling = h2load::ceiling(&bench, pace.ceiling)?;
    say(&ceiling.as_ref().map_or_else(|| format!("{}.\n", h2load::INSTALL), Ceiling::said));
    let mut rows = rows(&bench, pace)?;
    count_allocations(&bench, &mut rows)?;
    say(&table::table(&rows, ceiling.as_ref().map(|ceiling| ceiling.cpu)));
    if let Some(ceiling) = &ceiling {
        let stream = rows.iter().rfind(|row| row.what.contains(STREAM) && row.mode == Mode::Warm.name());
        if let Some(row) = stream {
            let share = row.measured.pushes_per_second() / ceiling.requests_per_second * 100.0;
            say(&format!(
                "Throughput of :stream, warm: {share:.0} % of h2load's, alone, against the same sink.\n"
            ));
        }
    }
    say(&starts);
    say(NOT_MEASURED);
    Ok(())
}

const NOT_MEASURED: &str = "Not measured: real push services and networks; more cores than this machine has. The sink \
     and the load generator share the cores with the server under test, so throughput is that of all three together, and CPU per push (user and system time of the server's process \
     alone) is the figure to compare. The relay has no authentication, registry, limits, deadlines, retries or \
     log. RSS is after each line's own run; natively it holds the components too, which are loaded and not \
     called.\n";

/// Microseconds of the codecs alone by the wall clock: on one thread, and per call on two at once, where each
/// push takes half the time if they do not wait for each other.
fn codecs(programs: &Programs, pace: Pace) -> Result<(), Failure> {
    let mut text = "| codec: encode + decode | µs per push | × native |\n|---|---:|---:|\n".to_owned();
    for subject in Subject::ALL {
        text += &codec(programs, subject, pace)?;
    }
    say(&text);
    Ok(())
}

/// The lines of one codec.
fn codec(programs: &Programs, subject: Subject, pace: Pace) -> Result<String, Failure> {
    let mut text = String::new();
    let mut native = None;
    let alone = subject.modes().iter().map(|mode| (*mode, 1));
    // A message that is encrypted takes a hundred times as long.
    let calls = if subject == Subject::WebPush { pace.calls / 50 } else { pace.calls };
    for (mode, threads) in alone.chain([(Mode::PerCall, 2)]) {
        let repeat = Repeat { subject, mode, threads, warm_up: calls / 10, times: calls / 5 };
        // The best of five: what disturbs only ever adds.
        let mut best = f64::MAX;
        for _ in 0..5 {
            best = best.min(timed(&programs.linked, &repeat)?);
        }
        if mode == Mode::Native {
            native = Some(best);
        }
        let ratio = native.map(|native: f64| format!("{:.1}", best / native)).unwrap_or_default();
        let at_once = if threads > 1 { format!(", {threads} threads") } else { String::new() };
        text.push_str(&format!("| {}, {}{at_once} | {best:.2} | {ratio} |\n", subject.name(), mode.name()));
    }
    Ok(text)
}

/// Microseconds per push.
fn timed(linked: &Path, repeat: &Repeat) -> Result<f64, Failure> {
    let output = linked::codec(linked, repeat)?.stderr(Stdio::inherit()).output().map_err(at("codec"))?;
    String::from_utf8_lossy(&output.stdout).trim().parse().map_err(at("codec"))
}

/// How long the product takes to be ready, without a cache of compiled components and with one, and its memory then.
fn starts(bench: &Bench, pace: Pace) -> Result<String, Failure> {
    let setup = Setup::of(Mode::Warm);
    let [mut cold, mut cached] = [Vec::new(), Vec::new()];
    let mut resident = 0;
    // The first reads the program's file from the disk, which is not meant.
    bench.gateway(&setup)?;
    for _ in 0..pace.starts {
        bench.forget_compiled()?;
        cold.push(bench.gateway(&setup)?.time_to_ready());
        let mut gateway = bench.gateway(&setup)?;
        cached.push(gateway.time_to_ready());
        resident = gateway.process().resident();
    }
    let middle = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    Ok(format!(
        "From the start of the process to the first good /readyz: {:.0} ms without a cache of compiled components, \
         {:.0} ms with one (the middle of {}); RSS then: {:.1} MiB with all built-in providers.\n",
        middle(cold),
        middle(cached),
        pace.starts,
        f64::from(u32::try_from(resident).unwrap_or(u32::MAX)) / 1024.0,
    ))
}

fn rows(bench: &Bench, pace: Pace) -> Result<Vec<Row>, Failure> {
    let [relay, sharded] = [Relay::start(bench, false)?, Relay::start(bench, true)?];
    let relays = [(RELAY, &relay), (SHARDED, &sharded)];
    let relays =
        relays.map(|(mode, relay)| Contestant { mode, process: &relay.process, address: &relay.address });
    let mut servers = Vec::new();
    for mode in Mode::ALL {
        servers.push((mode.name(), started(bench, &Setup::of(mode))?));
    }
    let control = started(bench, &Setup { linked: true, ..Setup::of(Mode::Warm) })?;
    let contestants = servers.iter().map(|(mode, gateway)| Contestant::of(mode, gateway));
    let modes: Vec<Contestant<'_>> = contestants.collect();
    let mut all = modes.clone();
    all.push(Contestant::of(CONTROL, &control));
    all.extend(relays);

    let mut rows = contest(bench, &all, CLASSIC, pace, |_| bench.classic("", "token"))?;
    let peaks: Vec<f64> = rows.iter().map(|row| row.measured.pushes_per_second()).collect();
    let half = |index: usize| Plan {
        manner: Manner::Rate(peaks.get(index).map_or(1.0, |peak| peak / 2.0)),
        ..bench.classic("", "token")
    };
    rows.extend(contest(bench, &all, "the same at half of each one's peak", pace, half)?);
    for (what, plan) in plans(bench, pace) {
        // The relays take streams too.
        let streamers = if matches!(plan.manner, Manner::Stream(_)) { &relays[..] } else { &[] };
        let contestants = [&modes, streamers].concat();
        rows.extend(contest(bench, &contestants, &what, pace, |_| plan.clone())?);
    }
    // Natively there is no codec for it.
    let sandboxed: Vec<_> =
        modes.iter().filter(|contestant| contestant.mode != Mode::Native.name()).copied().collect();
    let what = format!("/v1/notifications, {BATCH} subscriptions, Web Push");
    rows.extend(contest(bench, &sandboxed, &what, pace, |_| web_push(BATCH))?);
    Ok(rows)
}

/// By callgrind, where it is there, of one caller: of the classic route and of a stream, in `pushlet-linked`, which
/// has the names of its functions.
fn count_allocations(bench: &Bench, rows: &mut [Row]) -> Result<(), Failure> {
    if which("valgrind").is_none() {
        say("Allocations were not counted: valgrind is not installed (apt-get install valgrind).\n");
        return Ok(());
    }
    for (mode, route) in guard::GATEWAYS {
        let is_meant = |row: &&mut Row| match route {
            Route::Classic => row.what == CLASSIC,
            Route::Stream => row.what.contains(STREAM),
        };
        if let Some(row) = rows.iter_mut().filter(is_meant).find(|row| row.mode == mode.name()) {
            row.allocations = Some(guard::counted(bench, bench.directory(), mode, route)?.allocations);
        }
    }
    Ok(())
}

/// With an application of each kind.
fn started(bench: &Bench, setup: &Setup) -> Result<Gateway, Failure> {
    let gateway = bench.gateway(setup)?;
    for (name, service) in [
        ("token", Service::ApnsToken),
        ("certificate", Service::ApnsCertificate),
        ("fcm", Service::Fcm),
        ("gcm", Service::Gcm),
        ("webpush", Service::WebPush),
    ] {
        gateway.register(name, 1, service, bench.files(), None)?;
    }
    Ok(gateway)
}

fn plans(bench: &Bench, pace: Pace) -> Vec<(String, Plan)> {
    let classic = |name: &str| bench.classic("", name);
    let new_connections = Plan { manner: Manner::NewConnections, ..classic("token") };
    let gcm = Plan { accepted: r#""success":1"#.into(), ..classic("gcm") };
    let stream = Plan { manner: Manner::Stream(pace.stream), ..bench.stream("", "token") };
    vec![
        ("classic, new connections, APNs token".to_owned(), new_connections),
        ("classic, keep-alive, APNs certificate".to_owned(), classic("certificate")),
        ("classic, keep-alive, FCM".to_owned(), classic("fcm")),
        ("classic, keep-alive, GCM".to_owned(), gcm),
        (format!("/v1/notifications, {BATCH} targets, APNs token"), batch("token", BATCH)),
        (format!("/v1/notifications, {IDS} targets, GCM, one exchange"), batch("gcm", IDS)),
        (format!("/v1/notifications{STREAM}, {} targets, APNs token", pace.stream), stream),
    ]
}

/// Many targets in one request.
fn batch(application: &str, targets: usize) -> Plan {
    Plan {
        path: "/v1/notifications".into(),
        content_type: JSON.into(),
        body: format!(
            r#"{{"application_id":"{application}-000000","notification":{{"title":"Order","body":"On its way"}},"targets":[{{tokens}}]}}"#
        ),
        accepted: DELIVERED.into(),
        targets,
        connections: 8,
        ..Plan::default()
    }
}

/// Many subscriptions in one request, each of which gets a message that is encrypted for it.
fn web_push(targets: usize) -> Plan {
    // RFC 8291 section 5.
    let keys = r#"{"p256dh":"BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4","auth":"BTBZMqHH6r4Tts7J_aSIgg"}"#;
    let target = format!(r#"{{"url":"https://push.example/p/{{token}}","options":{keys}}}"#);
    let list = vec![target; targets].join(",");
    let plan = batch("webpush", targets);
    Plan { body: plan.body.replace("{tokens}", &list), ..plan }
}
