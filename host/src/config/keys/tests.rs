#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn every_variable_and_flag_names_one_key() {
    for key in KEYS.iter().filter(|key| !key.is_pattern()) {
        let variable = key.variable().trim_start_matches("PUSHLET_").to_lowercase();
        assert_eq!(from_words(&variable, '_').as_deref(), Some(key.path));
        assert_eq!(from_words(&key.flag(), '-').as_deref(), Some(key.path));
    }
}

#[test]
fn a_pattern_covers_names_and_nothing_else() {
    for path in
        ["endpoints.apns.production", "endpoints.web-push.development", "endpoints.apns.channels.production"]
    {
        let path: Vec<&str> = path.split('.').collect();
        assert!(find(&path).is_some(), "{path:?}");
    }
    for path in [
        "endpoints.apns",
        "endpoints.apns.staging",
        "endpoints.AP NS.production",
        "endpoints.a.b.c.production",
    ] {
        let path: Vec<&str> = path.split('.').collect();
        assert!(find(&path).is_none(), "{path:?}");
    }
    assert_eq!(
        from_words("endpoints_apns_channels_production", '_').unwrap(),
        "endpoints.apns.channels.production"
    );
}

#[test]
fn the_nearest_name_is_near() {
    let names = || KEYS.iter().map(|key| key.path.to_owned());
    assert_eq!(nearest("auth.usrname", names()).as_deref(), Some("auth.username"));
    assert_eq!(nearest("delivery.deadlin", names()).as_deref(), Some("delivery.deadline"));
    assert_eq!(nearest("entirely.different", names()), None);
}
