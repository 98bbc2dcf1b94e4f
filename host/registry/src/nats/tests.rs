#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use pushlet_test_support::Nats;
use zeroize::Zeroizing;

use super::*;
use crate::tests::{Folder, key};
use crate::{FileStorage, MemoryStorage, Registry, conformance};

fn settings(nats: &Nats) -> NatsSettings {
    NatsSettings {
        servers: nats.url().split(',').map(str::to_owned).collect(),
        replicas: 3,
        login: NatsLogin::None,
        roots: Vec::new(),
    }
}

fn open(nats: &Nats) -> Arc<dyn Storage> {
    Arc::new(NatsStorage::open(&settings(nats), Box::new(MemoryStorage::default())).unwrap())
}

#[test]
fn nats_keeps_what_a_storage_promises() {
    let servers = std::cell::RefCell::new(Vec::new());
    conformance::run(|| {
        let nats = Nats::single("");
        let storage = open(&nats);
        servers.borrow_mut().push(nats);
        storage
    });
    let nats = Nats::single("");
    conformance::run_shared(|| open(&nats));
}

#[test]
fn a_cluster_keeps_it_too_while_one_server_is_away() {
    let mut nats = Nats::cluster();
    conformance::run_shared(|| open(&nats));
    let storage = open(&nats);
    nats.kill(0);
    // An election takes up to nine seconds.
    let put = |value: &[u8]| {
        let key = RecordKey::new(&["acme", "a"]);
        let change = [StorageChange::Put(Table::Applications, key.clone(), value.to_vec())];
        let mut tries = 0;
        while let Err(error) = storage.commit(&change) {
            assert!(matches!(error, StorageError::Unreachable(_)), "{error}");
            tries += 1;
            assert!(tries < 600, "{error}");
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(storage.get(Table::Applications, &key).unwrap(), Some(value.to_vec()));
    };
    put(b"without one");
    nats.kill(1);
    let change = StorageChange::Put(Table::Applications, RecordKey::new(&["acme", "a"]), b"lost".to_vec());
    let refused = storage.commit(&[change]).unwrap_err();
    assert!(matches!(refused, StorageError::Unreachable(_)), "{refused}");
    assert!(storage.check().is_err());
    assert_eq!(
        storage.get(Table::Applications, &RecordKey::new(&["acme", "a"])).unwrap(),
        Some(b"without one".to_vec()),
        "what is known is read without a majority"
    );
    nats.start_node(0);
    nats.start_node(1);
    put(b"again");
    storage.check().unwrap();
}

#[test]
fn a_node_starts_from_its_snapshot_without_nats_and_catches_up() {
    let mut nats = Nats::single("");
    let (folder, writer) = (Folder::new(), open(&nats));
    let snapshot = || Box::new(FileStorage::open_snapshot(folder.path()).unwrap());
    let change =
        |id: &str| StorageChange::Put(Table::Applications, RecordKey::new(&["acme", id]), b"1".to_vec());
    writer.commit(&[change("a"), change("b")]).unwrap();
    drop(NatsStorage::open(&settings(&nats), snapshot()).unwrap());
    writer
        .commit(&[change("c"), StorageChange::Delete(Table::Applications, RecordKey::new(&["acme", "a"]))])
        .unwrap();
    nats.kill_all();
    let ids = |storage: &NatsStorage| -> Vec<String> {
        let all = storage.scan(Table::Applications, &RecordKey::new(&["acme"])).unwrap();
        all.into_iter().map(|(key, _)| key.parts::<2>().unwrap()[1].clone()).collect()
    };
    let node = NatsStorage::open(&settings(&nats), snapshot()).unwrap();
    assert_eq!(ids(&node), ["a", "b"]);
    let refused = node.commit(&[change("d")]).unwrap_err();
    assert!(matches!(refused, StorageError::Unreachable(_)), "{refused}");
    assert!(node.check().is_err());
    let before = node.log().last();
    nats.start_node(0);
    while ids(&node) != ["b", "c"] {
        assert_ne!(node.log().after(before, Duration::from_secs(60)).until, before);
        std::thread::sleep(Duration::from_millis(20));
    }
    node.commit(&[change("d")]).unwrap();

    // Without a snapshot there is nothing to start from.
    nats.kill_all();
    let error = NatsStorage::open(&settings(&nats), Box::new(MemoryStorage::default())).err().unwrap();
    assert!(matches!(error, StorageError::Unreachable(_)), "{error}");
}

#[test]
fn a_registry_that_is_empty_does_not_empty_what_a_node_knows() {
    let folder = Folder::new();
    let snapshot = || Box::new(FileStorage::open_snapshot(folder.path()).unwrap());
    let nats = Nats::single("");
    let storage = NatsStorage::open(&settings(&nats), snapshot()).unwrap();
    drop(Registry::open(Arc::new(storage), key(), 1).unwrap());
    drop(nats);
    let other = Nats::single("");
    let node = NatsStorage::open(&settings(&other), snapshot()).unwrap();
    assert!(Registry::open(Arc::new(node), key(), 1).is_ok());
}

#[test]
fn nodes_that_start_together_agree_on_the_secrets_of_the_registry() {
    let nats = Nats::single("");
    let hashes: Vec<_> = std::thread::scope(|scope| {
        let start = || {
            let registry = Registry::open(open(&nats), key(), 1).unwrap();
            registry.hasher().hash("acme", "key")
        };
        let nodes: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
        nodes.into_iter().map(|node| node.join().unwrap()).collect()
    });
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
}

#[test]
fn logs_in_with_a_seed_and_over_tls() {
    let certificate = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let folder = Folder::new();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("cert.pem"), certificate.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), certificate.signing_key.serialize_pem()).unwrap();
    // The nkey of the bytes 1 to 32, and its seed.
    let public = "UB43KVROR7TFJ6KAPCYRF2FJROTZAH4FHLTJLPWX4DRZCC5NASLGJBFE";
    let seed = "SUAACAQDAQCQMBYIBEFAWDANBYHRAEISCMKBKFQXDAMRUGY4DUPB6IC5CQ";
    let nats = Nats::single(&format!(
        "authorization {{ users: [ {{ nkey: {public} }} ] }}\n\
         tls {{ cert_file: \"{}\", key_file: \"{}\" }}",
        path("cert.pem").display(),
        path("key.pem").display()
    ));
    let servers = vec![nats.url().replace("nats://", "tls://")];
    let login = NatsLogin::Nkey(Zeroizing::new(format!("{seed}\n")));
    let right = NatsSettings { servers: servers.clone(), replicas: 1, login, roots: vec![path("cert.pem")] };
    let storage = NatsStorage::open(&right, Box::new(MemoryStorage::default())).unwrap();
    storage.check().unwrap();
    for wrong in [
        NatsSettings {
            servers: servers.clone(),
            replicas: 1,
            login: NatsLogin::None,
            roots: vec![path("cert.pem")],
        },
        NatsSettings {
            servers,
            replicas: 1,
            login: NatsLogin::Nkey(Zeroizing::new(seed.to_owned())),
            roots: Vec::new(),
        },
    ] {
        let refused = NatsStorage::open(&wrong, Box::new(MemoryStorage::default())).err().unwrap();
        assert!(matches!(refused, StorageError::Unreachable(_)), "{refused}");
    }
}

/// A JWT as NATS's decentralised accounts have them: `signer` says this of `subject`.
fn jwt(signer: &nkeys::KeyPair, subject: &nkeys::KeyPair, claims: &serde_json::Value) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let payload = serde_json::json!({
        "jti": "test", "iat": 1_700_000_000, "name": "test",
        "iss": signer.public_key(), "sub": subject.public_key(), "nats": claims,
    });
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", part(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#), part(&payload.to_string()));
    let signature = URL_SAFE_NO_PAD.encode(signer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

/// A credentials file of a user of an account.
fn credentials(account: &nkeys::KeyPair) -> NatsLogin {
    let user = nkeys::KeyPair::new_user();
    let claims = serde_json::json!({
        "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1,
    });
    NatsLogin::Credentials(Zeroizing::new(format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        jwt(account, &user, &claims),
        user.seed().unwrap()
    )))
}

#[test]
fn logs_in_with_a_credentials_file() {
    let (operator, account) = (nkeys::KeyPair::new_operator(), nkeys::KeyPair::new_account());
    let itself = serde_json::json!({"type": "operator", "version": 2});
    let limits = serde_json::json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let claims = serde_json::json!({
        "type": "account", "version": 2, "limits": limits, "default_permissions": {"pub": {}, "sub": {}},
    });
    // NATS keeps its own books in an account of its own, which must not have JetStream.
    let (system, mut of_system) = (nkeys::KeyPair::new_account(), claims.clone());
    for name in ["mem_storage", "disk_storage", "streams", "consumer"] {
        of_system["limits"][name] = 0.into();
    }
    let nats = Nats::single(&format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}",
        jwt(&operator, &operator, &itself),
        system.public_key(),
        account.public_key(),
        jwt(&operator, &account, &claims),
        system.public_key(),
        jwt(&operator, &system, &of_system),
    ));
    let login = |login| NatsSettings { login, ..settings(&nats) };
    let right = login(credentials(&account));
    let storage = NatsStorage::open(&right, Box::new(MemoryStorage::default())).unwrap();
    storage.check().unwrap();
    let other = credentials(&nkeys::KeyPair::new_account());
    for wrong in [NatsLogin::None, other, NatsLogin::Credentials(Zeroizing::new("no such file".to_owned()))] {
        let refused = NatsStorage::open(&login(wrong), Box::new(MemoryStorage::default())).err().unwrap();
        assert!(matches!(refused, StorageError::Unreachable(_)), "{refused}");
    }
}

/// The age of outcomes, and the most parts of a tenant, as the streams have it.
fn bounds_of(registry: &Registry) -> Option<(Duration, i64)> {
    let connection = registry.fleet().unwrap().0.connection.clone();
    let jetstream = connection.jetstream().clone();
    let read = async move {
        let work = jetstream.get_stream(queue::WORK).await.map_err(unreachable)?;
        let log = jetstream.get_stream("pushlet_deliveries").await.map_err(unreachable)?;
        Ok((log.cached_info().config.max_age, work.cached_info().config.max_messages_per_subject))
    };
    connection.wait(LOOK_UP, read).ok()
}

fn wait_for_bounds(registry: &Registry, hours: u64, parts: i64) {
    let wanted = Some((Duration::from_secs(3600 * hours), parts));
    let start = std::time::Instant::now();
    while bounds_of(registry) != wanted {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", bounds_of(registry));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A node of a fleet. `answers`: how long an Idempotency-Key is known.
fn join(nats: &Nats, answers: Duration, hours: u64, parts: usize) -> Registry {
    let storage = NatsStorage::open(&settings(nats), Box::new(MemoryStorage::default())).unwrap();
    let (name, deliveries) = ("node".to_owned(), Duration::from_secs(3600 * hours));
    let fleet = FleetSettings { name, version: "1", answers, feedback: 5000, deliveries, parts };
    Registry::join(storage, key(), 10, fleet).unwrap()
}

/// The crate's own `create_with_ttl` forgets the age of a key that was deleted before.
#[test]
fn a_key_that_was_freed_and_taken_again_is_forgotten_in_time() {
    let nats = Nats::single("");
    let node = join(&nats, Duration::from_secs(3), 1, 5);
    wait_for_bounds(&node, 2, 5);
    let (fleet, tenant) = (node.fleet().unwrap(), crate::tests::acme());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let claim = || runtime.block_on(fleet.claim(&tenant, "order-7")).unwrap();
    let Claim::Taken(first) = claim() else { panic!("nobody had it") };
    assert!(matches!(claim(), Claim::InFlight));
    runtime.block_on(fleet.resolve(first, None));
    let Claim::Taken(_) = claim() else { panic!("it was freed") };
    assert!(matches!(claim(), Claim::InFlight));
    let start = std::time::Instant::now();
    while !matches!(claim(), Claim::Taken(_)) {
        assert!(start.elapsed() < Duration::from_secs(60), "the key is never forgotten");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A follower may answer a direct read, and be behind.
#[test]
fn no_stream_is_read_from_a_follower() {
    let nats = Nats::single("");
    let node = join(&nats, Duration::from_secs(60), 1, 5);
    wait_for_bounds(&node, 2, 5);
    let connection = node.fleet().unwrap().0.connection.clone();
    let jetstream = connection.jetstream().clone();
    let read = async move {
        let all = jetstream.streams().try_collect::<Vec<_>>().await.map_err(unreachable)?;
        Ok(all.into_iter().map(|stream| (stream.config.name, stream.config.allow_direct)).collect::<Vec<_>>())
    };
    let streams = connection.wait(LOOK_UP, read).unwrap();
    let direct: Vec<_> =
        streams.iter().filter(|(name, direct)| *direct && !name.starts_with("OBJ_")).collect();
    assert!(streams.len() > 5 && direct.is_empty(), "{streams:?}");
}

#[test]
fn the_queue_is_brought_to_its_configuration_and_loses_nothing_by_it() {
    let nats = Nats::single("");
    let join = |hours: u64, parts: usize| join(&nats, Duration::from_secs(60), hours, parts);
    let (tenant, id) = (crate::tests::acme(), "a".repeat(32));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let put = |registry: &Registry, count: usize| {
        let parts = (0..count).map(|_| Zeroizing::new(b"part".to_vec())).collect();
        runtime.block_on(registry.queue().unwrap().put_parts(&tenant, &id, parts))
    };
    let first = join(2, 5);
    wait_for_bounds(&first, 4, 5);
    put(&first, 3).unwrap();
    assert!(matches!(put(&first, 3), Err(StorageError::Full(_))));
    let second = join(3, 9);
    wait_for_bounds(&second, 6, 9);
    put(&second, 3).unwrap();

    // Narrower bounds would drop what was accepted: they hold for this node, and for the streams once the queue is empty.
    let third = join(1, 10);
    wait_for_bounds(&third, 6, 10);
    let fourth = join(1, 2);
    assert!(matches!(put(&fourth, 1), Err(StorageError::Full(_))));
    let queue = fourth.queue().unwrap();
    assert_eq!(runtime.block_on(queue.waiting()).unwrap(), [(tenant.clone(), 6)], "nothing is lost");
    runtime.block_on(async {
        let source = queue.source(&tenant).await.unwrap();
        for _ in 0..6 {
            source.take().await.unwrap().unwrap().done().await;
        }
    });
    drop((first, second, third));
    wait_for_bounds(&fourth, 2, 2);
}

/// What one caller drops while another reads it is waited for by nobody.
#[test]
fn many_callers_take_reports_at_once_and_each_is_told_to_one() {
    let nats = Nats::single("");
    let nodes = [(); 2].map(|()| join(&nats, Duration::from_secs(60), 1, 5));
    wait_for_bounds(&nodes[0], 2, 5);
    let (fleets, tenant) = (nodes.each_ref().map(|node| node.fleet().unwrap()), crate::tests::acme());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let now = std::time::SystemTime::now();
    for round in 0..3 {
        (0..3000).for_each(|number| fleets[0].report(&tenant, "app", &format!("{round}-{number}"), now));
        let all_are_there =
            async || fleets[1].feedback(&tenant, "app", 0).await.unwrap().tokens.len() == 3000;
        let start = std::time::Instant::now();
        while !runtime.block_on(all_are_there()) {
            assert!(start.elapsed() < Duration::from_secs(60), "they do not arrive");
        }
        let takes = (0..12_u32).zip(fleets.into_iter().cycle()).map(|(number, fleet)| {
            let tenant = &tenant;
            async move {
                tokio::time::sleep(Duration::from_millis(10) * number).await;
                fleet.take_feedback(tenant, "app").await.unwrap()
            }
        });
        let taken = runtime.block_on(futures_util::future::join_all(takes)).concat();
        let distinct: std::collections::BTreeSet<_> = taken.iter().map(|dead| &dead.device_token).collect();
        assert_eq!((taken.len(), distinct.len()), (3000, 3000));
    }
}
