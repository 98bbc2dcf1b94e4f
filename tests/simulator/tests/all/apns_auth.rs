//! Provider tokens and client certificates.

use serde_json::{Value, json};

use super::client::{Answer, Apns, Identity, PAYLOAD, Running, TOKEN, TOPIC, TokenSpec, start};
use pushlet_simulator::{CertificateKind, CertificateSpec, Environment};

async fn push(apns: &Apns, authorization: &str) -> Answer {
    apns.push(TOKEN, &[("authorization", authorization), ("apns-topic", TOPIC)], PAYLOAD).await
}

#[tokio::test]
async fn a_token_is_accepted_in_both_signature_forms() {
    let simulator = start().await;
    let raw = TokenSpec::of(&simulator).bearer();
    let der = TokenSpec { der: true, ..TokenSpec::of(&simulator) }.bearer();
    for bearer in [raw, der] {
        let apns = Apns::without(&simulator).await;
        assert_eq!(push(&apns, &bearer).await.status, 200);
        assert_eq!(push(&apns, &bearer).await.status, 200, "and again on the same connection");
    }
    let received = simulator.received();
    assert_eq!(received.last().unwrap().client_certificate, None);
}

#[tokio::test]
async fn a_token_needs_a_topic() {
    let simulator = start().await;
    let apns = Apns::without(&simulator).await;
    let bearer = TokenSpec::of(&simulator).bearer();
    let answer = apns.push(TOKEN, &[("authorization", &bearer)], PAYLOAD).await;
    assert_eq!(answer.reason(), (400, "MissingTopic".into()));
    let any = [("authorization", bearer.as_str()), ("apns-topic", "org.example.another")];
    assert_eq!(apns.push(TOKEN, &any, PAYLOAD).await.status, 200);
}

#[tokio::test]
async fn bad_tokens_are_refused() {
    let simulator = start().await;
    let changed = |change: fn(&mut TokenSpec)| {
        let mut spec = TokenSpec::of(&simulator);
        change(&mut spec);
        spec.bearer()
    };
    // A signature in which the alphabets of base64 and base64url differ.
    let mut signed_often = std::iter::repeat_with(|| TokenSpec::of(&simulator).sign());
    let good = signed_often.find(|token| token.rsplit_once('.').unwrap().1.contains('_')).unwrap();
    let stranger = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let foreign = TokenSpec { p8: stranger, ..TokenSpec::of(&simulator) }.bearer();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let invalid = [
        ("no token", "bearer x".into()),
        ("Basic", "Basic dTpw".into()),
        ("capital scheme", format!("Bearer {good}")),
        ("padded", format!("bearer {signed}.{signature}==")),
        ("standard alphabet", format!("bearer {signed}.{}", signature.replace('-', "+").replace('_', "/"))),
        ("another key", foreign),
        ("cut", format!("bearer {signed}.{}", &signature[..40])),
        ("algorithm", changed(|spec| spec.header["alg"] = json!("HS256"))),
        ("no key id", changed(|spec| spec.header = json!({"alg": "ES256"}))),
        ("unknown key id", changed(|spec| spec.header["kid"] = json!("SIMKEY9999"))),
        ("unknown team", changed(|spec| spec.claims["iss"] = json!("SIMTEAM999"))),
        ("no team", changed(|spec| spec.claims["iss"] = Value::Null)),
        ("no time", changed(|spec| spec.claims["iat"] = Value::Null)),
    ];
    let apns = Apns::without(&simulator).await;
    for (name, authorization) in invalid {
        let answer = push(&apns, &authorization).await;
        assert_eq!(answer.reason(), (403, "InvalidProviderToken".into()), "{name}");
    }
    assert_eq!(push(&apns, "bearer ").await.reason(), (403, "MissingProviderToken".into()));
    let nothing = apns.push(TOKEN, &[("apns-topic", TOPIC)], PAYLOAD).await;
    assert_eq!(nothing.reason(), (403, "MissingProviderToken".into()));
    for (seconds_ago, status) in [(3700, 403), (-120, 403), (3500, 200)] {
        let bearer = TokenSpec::of(&simulator).issued(seconds_ago).bearer();
        let answer = push(&Apns::without(&simulator).await, &bearer).await;
        assert_eq!(answer.status, status, "{seconds_ago} {}", answer.body);
        if status == 403 {
            assert_eq!(answer.reason().1, "ExpiredProviderToken");
        }
    }
}

#[tokio::test]
async fn a_connection_takes_one_new_token_in_twenty_minutes() {
    let simulator = start().await;
    let of = |seconds_ago| TokenSpec::of(&simulator).issued(seconds_ago).bearer();
    let apns = Apns::without(&simulator).await;
    let first = of(2400);
    assert_eq!(push(&apns, &first).await.status, 200);
    assert_eq!(push(&apns, &of(1300)).await.reason(), (429, "TooManyProviderTokenUpdates".into()));
    assert_eq!(push(&apns, &first).await.status, 200, "the old token is still good");
    assert_eq!(push(&apns, &of(1100)).await.status, 200);
    assert_eq!(push(&apns, &of(0)).await.reason(), (429, "TooManyProviderTokenUpdates".into()));
    let other = Apns::without(&simulator).await;
    assert_eq!(push(&other, &of(0)).await.status, 200, "another connection counts on its own");
}

#[tokio::test]
async fn a_connection_belongs_to_one_team() {
    let simulator = start().await;
    let p8 = simulator.issue_provider_key("OTHERKEY01", "OTHERTEAM1").unwrap();
    let mut other = TokenSpec { p8, ..TokenSpec::of(&simulator) };
    other.header["kid"] = json!("OTHERKEY01");
    other.claims["iss"] = json!("OTHERTEAM1");
    let apns = Apns::without(&simulator).await;
    assert_eq!(push(&apns, &TokenSpec::of(&simulator).bearer()).await.status, 200);
    assert_eq!(push(&apns, &other.bearer()).await.reason(), (403, "UnrelatedKeyIdInToken".into()));
    assert_eq!(push(&Apns::without(&simulator).await, &other.bearer()).await.status, 200);
}

async fn with(simulator: &Running, spec: &CertificateSpec) -> Result<Apns, String> {
    let issued = simulator.issue_certificate(spec).unwrap();
    Apns::connect(simulator, Some(Identity { certificate: issued.certificate_pem, key: issued.key_pem }))
        .await
}

async fn in_environment(simulator: &Running, environment: Environment, spec: &CertificateSpec) -> Apns {
    let issued = simulator.issue_certificate(spec).unwrap();
    let identity = Some(Identity { certificate: issued.certificate_pem, key: issued.key_pem });
    let apns = match environment {
        Environment::Development => Apns::connect(simulator, identity).await,
        Environment::Production => Apns::in_production(simulator, identity).await,
    };
    apns.unwrap()
}

/// Each is good where Apple issues it for, with its own topic.
#[tokio::test]
async fn certificates_of_other_kinds() {
    let simulator = start().await;
    let cases = [
        (CertificateKind::Voip, "com.example.app.voip", PAYLOAD, 200),
        (CertificateKind::Mdm, "com.apple.mgmt.External.1", r#"{"mdm":"magic"}"#, 403),
        (CertificateKind::Website, "web.com.example", PAYLOAD, 403),
        (CertificateKind::PassType, "pass.com.example.coupon", "{}", 403),
    ];
    for (kind, topic, body, in_development) in cases {
        let spec = CertificateSpec::of_kind(kind, topic);
        let production = in_environment(&simulator, Environment::Production, &spec).await;
        let answer = production.push(TOKEN, &[], body).await;
        assert_eq!(answer.status, 200, "{kind:?}: {}", answer.body);
        assert_eq!(simulator.received().last().unwrap().topic.as_deref(), Some(topic));
        let development = in_environment(&simulator, Environment::Development, &spec).await;
        assert_eq!(development.push(TOKEN, &[], body).await.status, in_development, "{kind:?}");
        let other = [("apns-topic", TOPIC)];
        assert_eq!(production.push(TOKEN, &other, PAYLOAD).await.reason(), (400, "TopicDisallowed".into()));
    }
    // Without the marks of an environment, a VoIP certificate is good for both.
    let plain = CertificateSpec {
        development: false,
        production: false,
        ..CertificateSpec::of_kind(CertificateKind::Voip, "com.example.app.voip")
    };
    for environment in [Environment::Development, Environment::Production] {
        let apns = in_environment(&simulator, environment, &plain).await;
        assert_eq!(apns.push(TOKEN, &[], PAYLOAD).await.status, 200);
    }
}

#[tokio::test]
async fn only_a_pass_may_be_empty_and_only_a_certificate_manages_devices() {
    let simulator = start().await;
    let apns = Apns::without(&simulator).await;
    let bearer = TokenSpec::of(&simulator).bearer();
    let push = async |topic: &str, body: &'static str| {
        apns.push(TOKEN, &[("authorization", &bearer), ("apns-topic", topic)], body).await
    };
    assert_eq!(push("pass.com.example.coupon", "{}").await.status, 200);
    assert_eq!(push("pass.com.example.coupon", "").await.reason(), (400, "PayloadEmpty".into()));
    assert_eq!(push("pass.com.example.coupon", "[]").await.reason(), (400, "PayloadEmpty".into()));
    assert_eq!(push("com.example.pass.app", "{}").await.reason(), (400, "PayloadEmpty".into()));
    let mdm = push("com.apple.mgmt.External.1", r#"{"mdm":"magic"}"#).await;
    assert_eq!(mdm.reason(), (400, "TopicDisallowed".into()));
}

/// Several clients in use write the time with a fraction or as text.
#[tokio::test]
async fn the_time_of_a_token_may_be_written_in_several_ways() {
    let simulator = start().await;
    let seconds = super::client::now();
    let with = |iat: Value| {
        let mut spec = TokenSpec::of(&simulator);
        spec.claims["iat"] = iat;
        spec.bearer()
    };
    for iat in [
        json!(seconds),
        json!(seconds as f64 - 0.25),
        json!(seconds.to_string()),
        json!(format!("{seconds}.5")),
    ] {
        let apns = Apns::without(&simulator).await;
        assert_eq!(push(&apns, &with(iat.clone())).await.status, 200, "{iat}");
    }
    for iat in [json!("now"), json!(true), json!(-1), json!([seconds]), json!("NaN"), Value::Null] {
        let apns = Apns::without(&simulator).await;
        assert_eq!(
            push(&apns, &with(iat.clone())).await.reason(),
            (403, "InvalidProviderToken".into()),
            "{iat}"
        );
    }
    let old = with(json!(seconds as f64 - 3700.5));
    assert_eq!(
        push(&Apns::without(&simulator).await, &old).await.reason(),
        (403, "ExpiredProviderToken".into())
    );
}

#[tokio::test]
async fn a_certificate_stands_for_its_topics() {
    let simulator = start().await;
    let one = with(&simulator, &CertificateSpec::for_topic("org.example.one")).await.unwrap();
    let answer = one.push(TOKEN, &[("authorization", "bearer ignored")], PAYLOAD).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(simulator.received().last().unwrap().topic.as_deref(), Some("org.example.one"));

    let further_topics = vec!["org.example.one.voip".to_owned(), "org.example.one.complication".to_owned()];
    let many = CertificateSpec { further_topics, ..CertificateSpec::for_topic("org.example.one") };
    let many = with(&simulator, &many).await.unwrap();
    assert_eq!(many.push(TOKEN, &[], PAYLOAD).await.reason(), (400, "MissingTopic".into()));
    for topic in ["org.example.one", "org.example.one.voip", "org.example.one.complication"] {
        assert_eq!(many.push(TOKEN, &[("apns-topic", topic)], PAYLOAD).await.status, 200, "{topic}");
    }
    let answer = many.push(TOKEN, &[("apns-topic", "org.example.two")], PAYLOAD).await;
    assert_eq!(answer.reason(), (400, "TopicDisallowed".into()));
}

#[tokio::test]
async fn certificates_that_apple_did_not_mean_for_this() {
    let spec = || CertificateSpec::for_topic("org.example.one");
    let nameless = CertificateSpec { topic: None, ..spec() };
    let plain = CertificateSpec { development: false, production: false, ..spec() };
    let development = CertificateSpec { production: false, ..spec() };
    let production = CertificateSpec { development: false, ..spec() };
    for environment in [Environment::Development, Environment::Production] {
        let simulator = start().await;
        let (right, wrong) = match environment {
            Environment::Development => (&development, &production),
            Environment::Production => (&production, &development),
        };
        for (spec, reason) in
            [(&nameless, "BadCertificate"), (&plain, "BadCertificate"), (wrong, "BadCertificateEnvironment")]
        {
            let apns = in_environment(&simulator, environment, spec).await;
            assert_eq!(apns.push(TOKEN, &[], PAYLOAD).await.reason(), (403, reason.to_owned()));
        }
        let apns = in_environment(&simulator, environment, right).await;
        assert_eq!(apns.push(TOKEN, &[], PAYLOAD).await.status, 200);
    }
}

#[tokio::test]
async fn tls_refuses_expired_and_foreign_certificates() {
    let simulator = start().await;
    let expired = CertificateSpec { expired: true, ..CertificateSpec::for_topic(TOPIC) };
    let problem = with(&simulator, &expired).await.err().expect("an expired certificate is refused");
    assert!(problem.contains("CertificateExpired"), "{problem}");
    let foreign = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let identity = Identity { certificate: foreign.cert.pem(), key: foreign.signing_key.serialize_pem() };
    let problem =
        Apns::connect(&simulator, Some(identity)).await.err().expect("a foreign certificate is refused");
    assert!(problem.contains("UnknownCA"), "{problem}");
    let counts = simulator.connections().apns;
    assert_eq!((counts.accepted, counts.open, counts.refused), (0, 0, 2));
    assert!(simulator.received().is_empty());
}
