//! What passes the checks of a guest's output is safe to send and to hand on.

use arbitrary::Unstructured;
use pushlet_model::contract::codec::Answer;
use pushlet_model::contract::manifest::{Endpoint, Origin, ProviderManifest, TargetKind, Transport};
use pushlet_model::contract::{Disposition, Environment, Throttle};
use pushlet_sandbox as provider;

use crate::contract;

const DAY: u64 = 24 * 3600 * 1000;

/// What `encode` answered is refused, or it is safe to send.
pub fn encoded(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let (Ok(targets), Ok(encoded)) = (u.int_in_range(0..=4), contract::encoded(&mut u)) else { return };
    let manifest = manifest();
    let Ok(prepared) = provider::check_encoded(&manifest, Environment::Production, targets, encoded) else {
        return;
    };

    let exchanges = prepared.exchanges.iter().flat_map(|exchange| &exchange.covers);
    let refusals = prepared.refusals.iter().flat_map(|(covers, _)| covers);
    let mut covered: Vec<u32> = exchanges.chain(refusals).copied().collect();
    covered.sort_unstable();
    assert!(covered.iter().copied().eq(0..u32::try_from(targets).unwrap()), "{covered:?} of {targets}");

    for message in &prepared.messages {
        assert_eq!(manifest.endpoints[message.endpoint].environment, Environment::Production);
    }
    for exchange in &prepared.exchanges {
        let path = exchange.path.as_str();
        assert!(path.starts_with('/') && !path.contains(['\r', '\n', ' ', '#']), "{path:?}");
        assert!(exchange.url.is_some() || !path.starts_with("//"), "{path:?}");
        assert!(exchange.url.is_some() || !path.split(['/', '?']).any(|part| part == ".."), "{path:?}");
        let open =
            manifest.endpoints[prepared.messages[exchange.message].endpoint].origin == Origin::AnyHttps;
        assert_eq!(exchange.url.is_some(), open);
        assert!(exchange.url.as_ref().is_none_or(|url| url.scheme() == "https" && url.username().is_empty()));
    }
    let common = prepared.messages.iter().flat_map(|message| message.headers.keys());
    let own = prepared.exchanges.iter().flat_map(|exchange| exchange.headers.iter().map(|(name, _)| name));
    for name in common.chain(own) {
        let host = ["authorization", "host", "content-length", "transfer-encoding", "connection"];
        assert!(!host.contains(&name.as_str()), "{name}");
    }
}

/// What `decode` answered is refused, or there is one sound outcome for each target.
pub fn replies(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let answers = contract::some(&mut u, 3, contract::answer);
    let (Ok(answers), Ok(replies)) = (answers, contract::some(&mut u, 3, contract::reply)) else { return };
    let Ok(replies) = provider::check_replies(&answers, replies) else { return };
    assert_eq!(replies.len(), answers.len());
    for (Answer { targets, .. }, reply) in answers.iter().zip(&replies) {
        assert_eq!(reply.outcomes.len(), targets.len());
        let native = reply.native.as_deref();
        assert!(native.is_none_or(|native| serde_json::from_str::<serde_json::Value>(native).is_ok()));
        for outcome in &reply.outcomes {
            let texts = [&outcome.code, &outcome.message, &outcome.id];
            assert!(texts.iter().all(|text| text.as_ref().is_none_or(|text| text.len() <= 4096)));
            match &outcome.disposition {
                Disposition::Replaced(token) => assert!(!token.is_empty() && token.len() <= 4096),
                Disposition::Unavailable(Some(wait))
                | Disposition::Throttled(Throttle { retry_after: Some(wait), .. }) => assert!(*wait <= DAY),
                _ => {}
            }
        }
    }
}

/// One fixed endpoint and one for any server.
fn manifest() -> ProviderManifest {
    let endpoint = |name: &str, environment, origin| Endpoint {
        name: name.into(),
        environment,
        transport: Transport::Https,
        origin,
    };
    ProviderManifest {
        name: "test".into(),
        title: String::new(),
        vendor: "nobody".into(),
        version: "1".into(),
        description: String::new(),
        also_answers: Vec::new(),
        settings: Vec::new(),
        credentials: Vec::new(),
        options: Vec::new(),
        targets: vec![TargetKind::Device],
        endpoints: vec![
            endpoint("push", Environment::Development, Origin::Fixed("https://dev.push.example".into())),
            endpoint("push", Environment::Production, Origin::Fixed("https://push.example".into())),
            endpoint("open", Environment::Production, Origin::AnyHttps),
        ],
        targets_per_exchange: 3,
        targets_per_call: 500,
        target_options: Vec::new(),
        environments: vec![Environment::Production, Environment::Development],
        response_headers: Vec::new(),
        entropy: 0,
        examples: Vec::new(),
    }
}
