#![allow(clippy::unwrap_used)]
use axum::http::HeaderValue;

use super::*;
use pushlet_settings::ConfigLayers;

fn peer(address: &str) -> Peer {
    let mut layers = ConfigLayers::new().unwrap();
    let toml = "limits.trusted_proxies = [\"10.0.0.0/8\", \"127.0.0.1\"]";
    layers.text("test.toml".as_ref(), toml).unwrap();
    let proxies = Arc::new(layers.finish().unwrap().limits.trusted_proxies);
    Peer::new(address.parse().unwrap(), &proxies)
}

fn client(peer: &str, forwarded: &[&'static str]) -> String {
    let mut headers = HeaderMap::new();
    for line in forwarded {
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
    }
    self::peer(peer).client(&headers).to_string()
}

#[test]
fn only_a_proxy_is_believed() {
    assert_eq!(client("192.0.2.1", &["203.0.113.5"]), "192.0.2.1");
    assert_eq!(client("10.0.0.1", &["203.0.113.5"]), "203.0.113.5");
    assert_eq!(client("::ffff:10.0.0.1", &["203.0.113.5"]), "203.0.113.5");
    assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
}

#[test]
fn what_the_caller_wrote_before_the_proxy_is_not_believed() {
    assert_eq!(client("10.0.0.1", &["1.1.1.1, 203.0.113.5"]), "203.0.113.5");
    assert_eq!(client("10.0.0.1", &["1.1.1.1", "203.0.113.5,10.0.0.9"]), "203.0.113.5");
    assert_eq!(client("10.0.0.1", &["1.1.1.1, nonsense"]), "10.0.0.1");
    assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
}

#[test]
fn proxies_and_this_machine_are_not_counted() {
    for shared in ["127.0.0.1", "::1", "10.9.9.9"] {
        assert_eq!(peer(shared).counted_as(), None, "{shared}");
    }
    let counted = |address: &str| peer(address).counted_as().unwrap().to_string();
    assert_eq!(counted("192.0.2.1"), "192.0.2.1");
    assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
}
