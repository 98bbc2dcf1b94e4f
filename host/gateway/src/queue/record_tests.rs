#![allow(clippy::unwrap_used)]

use super::*;
use pushlet_model::contract::{ConnectionHint, Scope, Throttle};

fn details(index: usize) -> ResultDetails {
    ResultDetails::new(IndexedResult::untried(index, DeliveryResult::Valid))
}

#[test]
fn a_part_comes_back_as_it_was_written() {
    let targets = [
        Target::Device("token".into()),
        Target::Topic("news".into()),
        Target::Condition("'a' in topics".into()),
        Target::Channel("channel".into()),
        Target::Url("https://push.example/x".into()),
    ];
    let recipients =
        targets.map(|target| Recipient { target, options: vec![("auth".into(), "\"x\"".into())] });
    // Digits, an exponent, the order of keys, and what `serde_json` would take for a number of its own.
    let own = r#"{"z":10.50,"a":1E5,"b":{"$serde_json::private::Number":"x"}}"#.to_owned();
    let items = recipients
        .iter()
        .map(|recipient| PartItem::Target(PartTarget::new(recipient.clone(), Some(own.clone()))));
    let items = items.chain([PartItem::Known(Box::new(details(5)))]).collect();
    let text = written(&PartRecord { first: 3, seed: "00".into(), items }).unwrap();
    let part: PartRecord = read(&text).unwrap();
    assert_eq!((part.first, part.items.len()), (3, 6));
    for (item, recipient) in part.items.into_iter().zip(recipients) {
        let PartItem::Target(target) = item else { unreachable!() };
        assert_eq!(target.notification.as_ref(), Some(&own));
        assert_eq!(target.recipient(), recipient);
    }
    assert_eq!(fields(r#"{"z":10.50,"a":1E5}"#).unwrap()["a"].to_string(), "1E5");
    assert_eq!(fields("[]"), Err(RecordError::Invalid));
}

#[test]
fn a_record_of_a_newer_program_is_left_alone() {
    let text = br#"{"v":2,"state":"paused","colour":"red"}"#;
    assert_eq!(read::<DeliveryRecord>(text).err(), Some(RecordError::Newer));
    assert_eq!(read::<OutcomeRecord>(br#"{"v":2,"results":"elsewhere"}"#).err(), Some(RecordError::Newer));
    // What the same version does not know is not looked at.
    let known: OutcomeRecord = read(br#"{"v":1,"begun":"x","colour":"red"}"#).unwrap();
    assert_eq!(known.begun.as_deref(), Some("x"));
    assert_eq!(read::<OutcomeRecord>(b"{}").err(), Some(RecordError::Invalid));
}

#[test]
fn results_come_back_and_have_room_whatever_a_component_says() {
    let long = |text: &str| text.repeat(8 << 10);
    let outcome = Outcome {
        disposition: Disposition::Throttled(Throttle { scope: Scope::Target, retry_after: Some(7000) }),
        id: Some(long("ü")),
        code: Some("Code".into()),
        message: Some(long("x")),
        connection: ConnectionHint::Keep,
    };
    let result =
        IndexedResult { index: 4, result: DeliveryResult::Settled(outcome), attempts: 2, captured: None };
    let one = ResultDetails::new(result);
    let back = |results| {
        let text = written_results(results).unwrap();
        assert!(text.len() <= LARGEST_OUTCOME, "{}", text.len());
        read::<OutcomeRecord>(&text).unwrap().results.unwrap()
    };
    assert_eq!(back(vec![one.clone()]), std::slice::from_ref(&one));
    let many = back(vec![one; 250]);
    assert_eq!(many.len(), 250);
    assert_eq!(many[249].code.as_deref(), Some("Code"));
    assert_eq!((many[249].retry_after, many[249].message.as_ref()), (Some(7000), None));
    assert_eq!(many[249].id.as_ref().map(String::len), Some(SHORT));
}
