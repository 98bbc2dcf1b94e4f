#![allow(clippy::unwrap_used)]

use super::*;

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

#[test]
fn sizes_are_numbers_or_texts_with_a_binary_unit() {
    for (written, bytes) in
        [("65536", 65536), ("64KiB", 65536), ("64 KiB", 65536), ("1MiB", 1 << 20), ("2GiB", 2 << 30)]
    {
        assert_eq!(read_size(&text(written)).unwrap(), bytes, "{written}");
    }
    assert_eq!(read_size(&Value::Integer(7)).unwrap(), 7);
    for wrong in ["", "KiB", "-1", "1.5MiB", "1MB", "99999999999GiB", "18446744073709551616"] {
        assert!(read_size(&text(wrong)).is_err(), "{wrong}");
    }
    assert!(read_size(&Value::Integer(-1)).is_err());
}

#[test]
fn a_base_url_is_https_and_has_nothing_but_host_port_and_prefix() {
    let url = BaseUrl::parse("https://127.0.0.1:8443/fake/apns/").unwrap();
    assert_eq!((url.host(), url.port(), url.prefix()), ("127.0.0.1", 8443, "/fake/apns"));
    assert_eq!(url.as_str(), "https://127.0.0.1:8443/fake/apns");
    let bare = BaseUrl::parse("https://push.example").unwrap();
    assert_eq!(
        (bare.host(), bare.port(), bare.prefix(), bare.as_str()),
        ("push.example", 443, "", "https://push.example")
    );
    for wrong in [
        "http://push.example",
        "push.example",
        "https://",
        "https://a:b@push.example",
        "https://x/?q",
        "https://x/#f",
    ] {
        assert!(BaseUrl::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn bounds_hold() {
    let wait = ValueKind::Duration { least: Duration::from_secs(1), most: Duration::from_secs(60) };
    assert!(wait.check(&text("1m")).is_ok());
    for wrong in ["0s", "61s", "ten", "10"] {
        assert!(wait.check(&text(wrong)).is_err(), "{wrong}");
    }
    let count = ValueKind::Count { least: 1, most: 4 };
    assert!(count.check(&count.of_text("4")).is_ok());
    assert!(count.check(&count.of_text("5")).is_err());
    assert!(count.check(&count.of_text("four")).unwrap_err().contains("a number from 1 to 4"));
    assert!(ValueKind::Switch.check(&ValueKind::Switch.of_text("yes")).is_err());
    assert!(ValueKind::Choice(&["a", "b"]).check(&text("c")).unwrap_err().contains("one of a, b"));
    assert!(ValueKind::Text.check(&text("")).is_err());
}

fn networks(texts: &[&str]) -> IpNetworks {
    IpNetworks(texts.iter().map(|text| parse_network(text).unwrap()).collect())
}

#[test]
fn an_address_is_in_its_network_and_in_no_other() {
    let networks = networks(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"]);
    for inside in ["10.1.2.3", "10.255.255.255", "192.0.2.7", "::ffff:10.0.0.1", "2001:db8:1::2", "::1"] {
        assert!(networks.contains(inside.parse().unwrap()), "{inside}");
    }
    for outside in ["11.0.0.1", "192.0.2.8", "2001:db9::1", "::2", "127.0.0.1"] {
        assert!(!networks.contains(outside.parse().unwrap()), "{outside}");
    }
    assert!(!IpNetworks::default().contains("10.0.0.1".parse().unwrap()));
}

#[test]
fn a_network_of_everything_contains_everything_of_its_family() {
    let all = networks(&["0.0.0.0/0"]);
    assert!(all.contains("203.0.113.9".parse().unwrap()));
    assert!(!all.contains("2001:db8::1".parse().unwrap()));
    assert!(networks(&["::/0"]).contains("2001:db8::1".parse().unwrap()));
}

#[test]
fn what_is_no_network_is_refused() {
    for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "proxy.example", "10.0.0.1/-1"] {
        assert!(parse_network(wrong).unwrap_err().contains("neither an IP address nor a network"), "{wrong}");
    }
}

#[test]
fn a_server_listens_on_addresses_names_and_unix_sockets() {
    for (text, is_local) in [
        ("127.0.0.1:9292", true),
        ("[::1]:0", true),
        ("[::ffff:127.0.0.1]:80", true),
        ("0.0.0.0:9292", false),
        ("localhost:9292", true),
        ("push.example:80", false),
        ("unix:/run/pushlet.sock", true),
    ] {
        let address = ListenAddress::parse(text).unwrap();
        assert_eq!((address.to_string().as_str(), address.is_local()), (text, is_local));
    }
    for text in [
        "9292",
        ":9292",
        "localhost",
        "localhost:x",
        "a b:1",
        "localhost:70000",
        "unix:",
        "unix:run",
        "::1:80:",
    ] {
        assert!(ListenAddress::parse(text).is_err(), "{text}");
    }
}
