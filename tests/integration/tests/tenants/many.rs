//! What a thousand tenants cost a server that they do not use.

use std::time::{Duration, Instant};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use reqwest::Client;
use serde_json::{Value, json};

use super::{ADMIN, with_operator};
use crate::harness::{expect, http_client};
use crate::program::Program;

const TENANTS: usize = 1000;
/// Bytes above those of the empty server.
const MOST: u64 = 300 << 20;

/// With an application that holds a key, registered as its tenant does it.
async fn move_in(client: &Client, program: &Program, number: usize) {
    let tenant = format!("tenant-{number}");
    let put = client.put(program.url(&format!("/v1/tenants/{tenant}"))).bearer_auth(ADMIN).json(&json!({}));
    let made = expect(put, 201).await;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    let settings =
        json!({"apns_key_id": "ABC123DEFG", "apns_team_id": "DEF123GHIJ", "apns_topic": "com.example.app"});
    let body = json!({"provider": "apns", "credentials": {"apns_p8": key}, "settings": settings});
    let put = client.put(program.url("/v1/applications/shop"));
    expect(put.bearer_auth(made["api_key"].as_str().unwrap()).json(&body), 200).await;
}

/// Waits until the server has no more threads and files than this.
async fn settled(program: &Program, threads: usize, files: usize) {
    let start = Instant::now();
    while program.threads() > threads || program.files() > files {
        // Threads for what blocks go when they had nothing to do for ten seconds.
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "{} threads, not {threads}; {} files, not {files}",
            program.threads(),
            program.files()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_thousand_tenants_fit_and_an_idle_one_costs_no_thread_and_no_socket() {
    let program = Program::serve(&with_operator("")).await;
    let empty = program.resident();
    {
        // Whatever the first of its kind starts is not the price of one.
        let client = http_client();
        move_in(&client, &program, 0).await;
    }
    tokio::time::sleep(Duration::from_secs(12)).await;
    let (threads, files) = (program.threads(), program.files());
    {
        let client = http_client();
        for number in 1..TENANTS {
            move_in(&client, &program, number).await;
        }
        let list = client.get(program.url("/v1/tenants?limit=1000")).bearer_auth(ADMIN);
        let list: Value = expect(list, 200).await;
        assert_eq!(list["tenants"].as_array().unwrap().len(), 1000);
        assert_eq!(list["next"], "tenant-998", "and the default tenant is one more");
    }
    let above = program.resident().saturating_sub(empty);
    assert!(above < MOST, "{} MiB above the empty server's {} MiB", above >> 20, empty >> 20);
    settled(&program, threads, files).await;
}
