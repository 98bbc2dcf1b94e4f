//! The program's own word on whether it can do its work.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Status and body, once the status is this one.
async fn once(address: &str, status: u16) -> String {
    let client = pushlet_test_support::http_client();
    let start = Instant::now();
    loop {
        let response = client.get(format!("{address}/readyz")).send().await.unwrap();
        let (got, text) = (response.status().as_u16(), response.text().await.unwrap());
        if got == status {
            return text;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{got}: {text}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_disk_that_takes_nothing_is_seen_and_its_recovery_too() {
    let folder = std::env::temp_dir().join(format!("pushlet-readiness-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).unwrap();
    let (data, key) = (folder.join("data"), folder.join("key"));
    std::fs::write(&key, "5e".repeat(32)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushlet"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
    command.arg("--registry-key-file").arg(&key).stderr(Stdio::piped());
    let mut child = Killed(command.spawn().unwrap());
    let mut log = BufReader::new(child.0.stderr.take().unwrap());
    let address = log
        .by_ref()
        .lines()
        .find_map(|line| line.unwrap().split_once("is listening on ").map(|(_, address)| address.to_owned()));
    let address = address.unwrap();
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));

    once(&address, 200).await;
    std::os::unix::fs::symlink("/dev/full", data.join(".probe")).unwrap();
    let told = once(&address, 503).await;
    assert!(told.contains("the registry cannot be written: the disk is full"), "{told}");
    std::fs::remove_file(data.join(".probe")).unwrap();
    once(&address, 200).await;
    std::fs::rename(&data, folder.join("gone")).unwrap();
    assert!(once(&address, 503).await.contains("the registry cannot be written"));
    std::fs::rename(folder.join("gone"), &data).unwrap();
    once(&address, 200).await;
    drop(child);
    std::fs::remove_dir_all(folder).unwrap();
}
