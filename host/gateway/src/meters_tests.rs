#![allow(clippy::unwrap_used)]
use super::*;

fn text(meters: &Meters) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &meters.registry).unwrap();
    text
}

#[test]
fn an_outcome_is_a_series_from_its_first_push_on() {
    let meters = Meters::new(10);
    let meter = meters.of(&TenantId::new("acme"), "shop", "apns");
    assert!(!text(&meters).contains("outcome="));
    meter.count(Status::Delivered);
    meters.of(&TenantId::new("acme"), "shop", "apns").count(Status::Delivered);
    let labels = r#"tenant="acme",application="shop",provider="apns",outcome="delivered""#;
    assert!(text(&meters).contains(&format!("pushlet_pushes_total{{{labels}}} 2\n")), "{}", text(&meters));
    assert_eq!(meter.outcomes().collect::<Vec<_>>(), [(Status::Delivered, 2)]);
}

/// The values of the counters whose labels begin like this.
fn counts(text: &str, labels: &str) -> Vec<u64> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("pushlet_pushes_total{")?.split_once("} "));
    let lines = lines.filter(|(names, _)| names.starts_with(labels));
    lines.map(|(_, count)| count.parse().unwrap()).collect()
}

#[test]
fn applications_and_tenants_beyond_the_bound_share_counters() {
    let meters = Meters::new(4);
    for tenant in 0..40 {
        for application in 0..20 {
            let tenant = TenantId::new(&format!("t{tenant}"));
            meters.of(&tenant, &format!("a{application}"), "apns").count(Status::Rejected);
        }
    }
    let text = text(&meters);
    assert_eq!(counts(&text, "").iter().sum::<u64>(), 800, "none is lost");
    assert!(counts(&text, "").len() <= 4 * 4 + 4 * 4 + 1, "{text}");
    assert_eq!(counts(&text, r#"tenant="t0",application="a"#), [1; 4]);
    assert_eq!(counts(&text, r#"tenant="t0",application="other""#), [16]);
    assert_eq!(counts(&text, r#"tenant="other",application="other",provider="other""#).len(), 1);
    let used: u64 =
        meters.of_tenants().iter().flat_map(|meter| meter.take_new()).map(|(_, count)| count).sum();
    assert_eq!(used, 800, "each tenant's use is known");
    assert!(meters.of_tenants().iter().all(|meter| meter.take_new().is_empty()));
    let own = meters.of(&TenantId::new("t0"), "a0", "apns");
    assert_eq!(&*own.names().application, "a0", "who has counters keeps them");
    meters.forget(&TenantId::new("t0"));
    assert!(!self::text(&meters).contains(r#"tenant="t0""#));
}

#[test]
fn the_names_that_one_tenant_makes_up_take_no_counters_from_others() {
    let meters = Meters::new(100);
    for number in 0..10_000 {
        let (application, provider) = (format!("a{number}"), format!("p{}", number % 100));
        meters.of(&TenantId::new("flood"), &application, &provider).count(Status::Rejected);
    }
    let neighbour = TenantId::new("neighbour");
    for number in 0..50 {
        meters.of(&neighbour, &format!("a{number}"), "apns").count(Status::Delivered);
    }
    let text = text(&meters);
    assert_eq!(counts(&text, r#"tenant="neighbour",application="a"#), [1; 50]);
    assert_eq!(counts(&text, r#"tenant="flood",application="a"#).len(), 100);
    let others = counts(&text, r#"tenant="flood",application="other""#);
    assert_eq!((others.len(), others.iter().sum::<u64>()), (MOST_PROVIDERS + 1, 9_900));
}
