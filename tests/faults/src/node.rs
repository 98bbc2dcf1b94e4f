//! A run against a server that is not ours: Node's `http2`.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::caller::{Caller, Setup};
use crate::ledger::{Ledger, Told};
use crate::peer::{Certificate, Failure};
use crate::run::{Plan, Report};

const BATCH: usize = 250;

/// A running server. It ends when this is dropped.
struct Server {
    address: SocketAddr,
    /// Ended by its `Drop`.
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _files: Files,
}

/// What the server says at the end.
#[derive(Deserialize)]
struct Books {
    processed: Vec<(usize, u32)>,
    events: BTreeMap<String, u64>,
}

/// Key and certificate, for as long as they are needed.
struct Files(PathBuf);

/// Runs a plan against Node; `proxy` and `resend_unknown` are not looked at.
pub async fn run(plan: Plan) -> Result<Report, Failure> {
    let certificate = Certificate::new()?;
    let mut server = Server::start(&certificate, plan.seed).await?;
    let setup = Setup {
        production: server.address,
        development: server.address,
        deadline: plan.deadline,
        resend_unknown: false,
    };
    let caller = Caller::new(&certificate, &setup)?;
    let started = Instant::now();
    let mut answers: Vec<Option<Told>> = Vec::with_capacity(plan.pushes);
    for (number, start) in (0..plan.pushes).step_by(2 * BATCH).enumerate() {
        let middle = plan.pushes.min(start + BATCH);
        let application = (number % 3).to_string();
        let (one, two) = tokio::join!(
            caller.send(&application, start..middle),
            caller.send("0", middle..plan.pushes.min(middle + BATCH))
        );
        answers.extend(one.into_iter().chain(two).map(Some));
    }
    let took = started.elapsed();
    caller.close().await;
    let books = server.books().await?;
    let ledger = Ledger::new(plan.pushes);
    for (push, times) in books.processed {
        (0..times).for_each(|_| ledger.process(push));
    }
    let events = books.events.into_iter().collect();
    Ok(Report { plan, verdict: ledger.compare(&answers, false), violations: Vec::new(), events, took })
}

impl Server {
    async fn start(certificate: &Certificate, seed: u64) -> Result<Self, Failure> {
        let files = Files::write(certificate)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("node/peer.js");
        let mut child = Command::new("node")
            .arg(script)
            .args([files.0.join("key.pem"), files.0.join("chain.pem")])
            .arg(seed.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    "Node.js is needed for this run: there is no `node` in the PATH".into()
                }
                _ => Failure::from(error),
            })?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("node has no pipes".into());
        };
        let mut output = BufReader::new(output).lines();
        let port = output.next_line().await?.ok_or("node ended at once")?.parse()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self { address, _child: child, input, output, _files: files })
    }

    async fn books(&mut self) -> Result<Books, Failure> {
        self.input.write_all(b"\n").await?;
        let line = self.output.next_line().await?.ok_or("node ended without its books")?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Files {
    fn write(certificate: &Certificate) -> io::Result<Self> {
        let name = format!("pushlet-faults-{}-{:016x}", std::process::id(), rand::random::<u64>());
        let files = Self(std::env::temp_dir().join(name));
        std::fs::create_dir(&files.0)?;
        std::fs::write(files.0.join("key.pem"), &certificate.key)?;
        std::fs::write(files.0.join("chain.pem"), &certificate.chain)?;
        Ok(files)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
