//! The program's log: it never holds the server up.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_does_not_stop_the_server() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushlet"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]);
    let mut child = Killed(command.stderr(Stdio::piped()).spawn().unwrap());
    // Small, so that what the pipe holds is known: one line is read, and then no more.
    let mut stderr = BufReader::with_capacity(1, child.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("is listening on ") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "the server ended before it listened");
    }
    let address = line.split("http://").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let client = pushlet_test_support::http_client();
    let get = |path: &str| client.get(format!("http://{address}{path}")).send();
    // More than the pipe and the queue hold; each line has the path, up to 200 letters of it.
    let path = format!("/{}", "a".repeat(199));
    for _ in 0..5_000 {
        assert_eq!(get(&path).await.unwrap().status(), 404);
    }
    let metrics = get("/metrics").await.unwrap().text().await.unwrap();
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("pushlet_log_lines_dropped_total "));
    assert!(dropped.unwrap().parse::<u64>().unwrap() > 0, "{dropped:?}");
}
