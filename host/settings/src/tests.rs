#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keys::{SECTIONS, keys};
use super::*;

const EXAMPLE: &str = include_str!("../../../pushlet.example.toml");

fn layers(text: &str) -> Result<ConfigLayers, Problem> {
    let mut layers = ConfigLayers::new()?;
    layers.text(Path::new("pushlet.toml"), text)?;
    Ok(layers)
}

fn config(text: &str) -> Result<Config, Problem> {
    layers(text)?.finish()
}

fn problem<T>(result: Result<T, Problem>) -> String {
    result.err().unwrap().to_string()
}

fn variables(pairs: &[(&str, &str)]) -> impl Iterator<Item = (OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect::<Vec<_>>().into_iter()
}

#[test]
fn defaults_are_complete() {
    let config = config("").unwrap();
    assert_eq!(config.listen, ListenAddress::Ip("127.0.0.1:9292".parse().unwrap()));
    assert_eq!(config.delivery.deadline, Duration::from_secs(10));
    assert_eq!(config.limits.request_body, 1 << 20);
    assert_eq!(config.sandbox.isolation, IsolationMode::Warm);
    assert!(config.callers().unwrap().login.is_none());
    // Load balancers close idle connections after 60 s. One that is closed here first would cost a request.
    assert!(config.limits.keep_alive > Duration::from_secs(60));
}

const ENDPOINTS: &str = r#"
# Base URLs in place of a provider's own servers: https://host[:port][/prefix]. By provider, or by one of
# its endpoints, which wins. NAME is a provider that all tenants share, "TENANT/NAME" one that a tenant uploaded
# (in this file only). A host that is named here may have a private address, for this provider alone.
#[endpoints.apns]
#production = "https://127.0.0.1:8443"
#development = "https://127.0.0.1:8443"
#[endpoints.apns.channels]
#production = "https://127.0.0.1:8444"
#development = "https://127.0.0.1:8444"
#[endpoints."acme/webhook"]
#production = "https://127.0.0.1:8445"
"#;

/// The example file, as the declarations of the keys give it.
fn example() -> String {
    let comment = |docs: &str| docs.lines().map(|line| format!("#{line}\n")).collect::<String>();
    let mut text = String::new();
    for section in SECTIONS {
        if section.path == "endpoints." {
            text += ENDPOINTS;
            continue;
        }
        let table = section.path.trim_end_matches('.');
        let title = if table.is_empty() { "\n".to_owned() } else { format!("[{table}]\n") };
        let gap = if table.is_empty() { "" } else { "\n" };
        text += &format!("{gap}{}{title}", comment(section.docs));
        for key in section.keys {
            let name = key.path.strip_prefix(section.path).unwrap();
            let mark = if key.default.is_some() { "" } else { "#" };
            let mut docs = comment(key.docs);
            // The first line is the help text, which has no full stop.
            let first = docs.find('\n').unwrap();
            if !docs[..first].ends_with('?') {
                docs.insert(first, '.');
            }
            text += &format!("{docs}{mark}{name} = {}\n", key.example);
        }
    }
    text
}

#[test]
fn the_example_file_is_what_the_declarations_give() {
    if std::env::var_os("PUSHLET_WRITE_EXAMPLE").is_some() {
        std::fs::write("../../pushlet.example.toml", example()).unwrap();
    }
    let file = std::fs::read_to_string("../../pushlet.example.toml").unwrap();
    assert!(
        file == example(),
        "run: PUSHLET_WRITE_EXAMPLE=1 cargo test --workspace --lib the_example_file, which writes it"
    );
}

#[test]
fn the_example_file_holds_the_defaults() {
    assert_eq!(layers(EXAMPLE).unwrap().shown().unwrap(), layers("").unwrap().shown().unwrap());
}

#[test]
fn the_example_file_mentions_every_key() {
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let table: toml::Table = toml::from_str(&uncommented).unwrap();
    let mut mentioned = Vec::new();
    leaves("", &table, &mut mentioned);
    for key in keys() {
        let found = mentioned.iter().any(|path| key.covers(&path.split('.').collect::<Vec<_>>()));
        assert!(found, "{} is not in pushlet.example.toml", key.path);
    }
    config(&uncommented).unwrap();
}

fn leaves(path: &str, table: &toml::Table, found: &mut Vec<String>) {
    for (name, value) in table {
        let path = format!("{path}{name}");
        match value {
            toml::Value::Table(inner) => leaves(&format!("{path}."), inner, found),
            _ => found.push(path),
        }
    }
}

#[test]
fn an_unknown_key_names_its_line_and_the_nearest_known_one() {
    let text = "listen = \"127.0.0.1:1\"\n\n[delivery]\ndeadlin = \"1s\"\n";
    assert_eq!(
        problem(config(text)),
        "pushlet.toml, line 4: unknown key delivery.deadlin; did you mean delivery.deadline?"
    );
    assert_eq!(
        problem(config("\n[auht]\nusername = \"a\"")),
        "pushlet.toml, line 2: unknown key auht; did you mean auth?"
    );
    assert_eq!(problem(config("nothing_like_it = 1")), "pushlet.toml, line 1: unknown key nothing_like_it");
    assert_eq!(
        problem(config("[endpoints.apns]\nprodution = \"https://x\"")),
        "pushlet.toml, line 2: unknown key endpoints.apns.prodution; did you mean endpoints.apns.production?"
    );
    assert!(problem(config("[listen]\nx = 1")).contains("listen: expected a text in quotes"));
    assert!(problem(config("auth = 3")).contains("expected a table [auth]"));
}

#[test]
fn a_wrong_value_names_its_line() {
    assert_eq!(
        problem(config("[limits]\nfields = \"many\"")),
        "pushlet.toml, line 2: limits.fields: expected a number from 16 to 10000"
    );
    assert!(
        problem(config("[endpoints.apns]\nproduction = \"http://127.0.0.1\""))
            .contains("starts with https://")
    );
    assert!(
        problem(config("listen = \"localhost\"")).contains("line 1: listen: expected an address and port")
    );
}

#[test]
fn a_broken_file_names_its_line_and_does_not_show_it() {
    let message = problem(config("listen = \"127.0.0.1:1\"\n[auth]\npassword = \"sesame\" oops\n"));
    assert!(message.starts_with("pushlet.toml, line 3: "), "{message}");
    assert!(!message.contains("sesame"), "{message}");
}

#[test]
fn flags_win_over_variables_and_those_over_the_file() {
    let text = "[delivery]\ndeadline = \"1s\"\ndrain = \"1s\"\nconnect_timeout = \"1s\"";
    let mut layers = layers(text).unwrap();
    let pairs = [("PUSHLET_DELIVERY_DEADLINE", "2s"), ("PUSHLET_DELIVERY_DRAIN", "2s"), ("HOME", "/")];
    layers.variables(variables(&pairs)).unwrap();
    layers.flag("delivery-deadline", &["3s".to_owned()]).unwrap();
    let delivery = layers.finish().unwrap().delivery;
    assert_eq!(delivery.deadline, Duration::from_secs(3));
    assert_eq!(delivery.drain, Duration::from_secs(2));
    assert_eq!(delivery.connect_timeout, Duration::from_secs(1));
}

#[test]
fn variables_hold_every_kind_of_value() {
    let mut layers = ConfigLayers::new().unwrap();
    let pairs = [
        ("PUSHLET_LIMITS_FIELDS", "99"),
        ("PUSHLET_DELIVERY_RESEND_UNKNOWN", "true"),
        ("PUSHLET_TLS_EXTRA_ROOTS", "/a.pem:/b.pem"),
        ("PUSHLET_ENDPOINTS_APNS_PRODUCTION", "https://127.0.0.1:1"),
        ("PUSHLET_ENDPOINTS_APNS_CHANNELS_DEVELOPMENT", "https://127.0.0.1:2"),
    ];
    layers.variables(variables(&pairs)).unwrap();
    let config = layers.finish().unwrap();
    assert_eq!(config.limits.fields, 99);
    assert!(config.delivery.resend_unknown);
    assert_eq!(config.tls.extra_roots, [PathBuf::from("/a.pem"), PathBuf::from("/b.pem")]);
    let get = |endpoint, environment| {
        config.endpoints.get(None, "apns", endpoint, environment).map(BaseUrl::as_str)
    };
    assert_eq!(get("device", Environment::Production), Some("https://127.0.0.1:1"));
    assert_eq!(get("device", Environment::Development), None);
    assert_eq!(get("channels", Environment::Development), Some("https://127.0.0.1:2"));
    assert_eq!(get("channels", Environment::Production), Some("https://127.0.0.1:1"));
}

#[test]
fn an_unknown_variable_is_an_error_unless_kubernetes_made_it() {
    let mut layers = ConfigLayers::new().unwrap();
    assert_eq!(
        problem(layers.variables(variables(&[("PUSHLET_AUTH_USERNAM", "x")]))),
        "PUSHLET_AUTH_USERNAM: unknown variable; did you mean PUSHLET_AUTH_USERNAME?"
    );
    let message = problem(layers.variables(variables(&[("PUSHLET_LIMITS_FIELDS", "x")])));
    assert!(message.starts_with("PUSHLET_LIMITS_FIELDS: limits.fields: expected a number"), "{message}");
    let fine = [
        ("PUSHLET_CONFIG", "x"),
        ("PUSHLET_SERVICE_HOST", "10.0.0.1"),
        ("PUSHLET_SERVICE_PORT_HTTP", "80"),
        ("PUSHLET_PORT", "tcp://10.0.0.1:80"),
        ("PUSHLET_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("PUSHLET_METRICS_SERVICE_HOST", "10.0.0.1"),
        ("PUSHLET_METRICS_SERVICE_PORT", "9293"),
        ("PUSHLET_METRICS_PORT", "tcp://10.0.0.1:9293"),
        ("PUSHLET_METRICS_PORT_9293_TCP", "tcp://10.0.0.1:9293"),
        ("PUSHLET_METRICS_PORT_9293_TCP_PROTO", "tcp"),
        ("PUSHLET_METRICS_PORT_9293_TCP_PORT", "9293"),
        ("PUSHLET_METRICS_PORT_9293_TCP_ADDR", "10.0.0.1"),
        ("PUSHLET_BUILT_IN_PROVIDERS", "x"),
        ("PUSHLET_PROVIDERS_DIR", "/components"),
    ];
    layers.variables(variables(&fine)).unwrap();
    for odd in ["PUSHLET_PORT", "PUSHLET_METRICS_PORT", "PUSHLET_PORT_80_TCP_X", "PUSHLET_PORT_X_TCP_ADDR"] {
        let told = problem(layers.variables(variables(&[(odd, "9292")])));
        assert!(told.starts_with(&format!("{odd}: unknown variable")), "{told}");
    }
    let config = layers.finish().unwrap();
    assert_eq!(config.providers.dir.as_deref(), Some(Path::new("/components")));
}

#[test]
fn the_specific_endpoint_wins() {
    let config = config(
        "[endpoints.apns]\nproduction = \"https://all\"\n[endpoints.apns.channels]\nproduction = \"https://one/p/\"",
    )
    .unwrap();
    let get = |provider, endpoint| config.endpoints.get(None, provider, endpoint, Environment::Production);
    assert_eq!(get("apns", "device").unwrap().as_str(), "https://all");
    assert_eq!(get("apns", "channels").unwrap().prefix(), "/p");
    assert!(get("gcm", "send").is_none());
}

#[test]
fn no_secret_is_shown() {
    let shown = layers("[auth]\nusername = \"me\"\npassword = \"sesame\"").unwrap().shown().unwrap();
    assert!(shown.contains("username = \"me\""), "{shown}");
    assert!(shown.contains("password = \"(hidden)\""), "{shown}");
    assert!(!shown.contains("sesame"), "{shown}");
}

#[test]
fn everybody_may_call_only_on_loopback() {
    for open in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[::ffff:192.0.2.1]:1"] {
        let config = config(&format!("listen = \"{open}\"")).unwrap();
        assert!(problem(config.callers()).contains("can be reached from other machines"), "{open}");
    }
    for closed in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        let config = config(&format!("listen = \"{closed}\"")).unwrap();
        assert!(config.callers().unwrap().login.is_none(), "{closed}");
    }
    let login = "listen = \"0.0.0.0:1\"\n[auth]\nusername = \"me\"\npassword = \"x\"";
    assert!(config(login).unwrap().callers().unwrap().login.is_some());
    let admin = "listen = \"0.0.0.0:1\"\nadmin.key = \"0123456789abcdef\"";
    assert!(config(admin).unwrap().callers().unwrap().admin.is_some());
}

#[test]
fn half_a_login_is_refused() {
    for (auth, word) in [
        ("username = \"me\"", "no auth.password"),
        ("password = \"x\"", "no auth.username"),
        ("username = \"a:b\"\npassword = \"x\"", "colon"),
        ("username = \"a\"\npassword = \"x\"\npassword_file = \"y\"", "both set"),
        ("username = \"a\"\npassword_file = \"/nonexistent\"", "/nonexistent"),
    ] {
        let message = problem(config(&format!("[auth]\n{auth}")).unwrap().callers());
        assert!(message.contains(word), "{message}");
    }
    assert!(problem(config("[auth]\nusername = \"\"")).contains("must not be empty"));
}

#[test]
fn the_operators_key_is_long_and_given_once() {
    for (admin, word) in [
        ("key = \"short\"", "at least 16"),
        ("key = \"0123456789abcdef\"\nkey_file = \"y\"", "both set"),
        ("key_file = \"/nonexistent\"", "/nonexistent"),
    ] {
        let message = problem(config(&format!("[admin]\n{admin}")).unwrap().callers());
        assert!(message.contains(word), "{message}");
    }
    let shown = layers("admin.key = \"0123456789abcdef\"").unwrap().shown().unwrap();
    assert!(!shown.contains("0123456789abcdef"), "{shown}");
}

#[test]
fn a_password_file_may_end_with_a_line_break() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path();
    std::fs::write(path, "open: sesame \r\n").unwrap();
    let config = config(&format!("[auth]\nusername = \"me\"\npassword_file = {path:?}")).unwrap();
    assert_eq!(config.callers().unwrap().login.unwrap().password.reveal(), "open: sesame ");
}

#[test]
fn an_uploaded_provider_is_named_with_its_tenant() {
    let text = "[endpoints.\"acme.co/hook\"]\nproduction = \"https://one\"\n[endpoints.hook]\nproduction = \"https://two\"";
    let endpoints = config(text).unwrap().endpoints;
    let get = |owner| endpoints.get(owner, "hook", "any", Environment::Production).map(BaseUrl::as_str);
    assert_eq!(get(Some("acme.co")), Some("https://one"));
    assert_eq!(get(Some("other")), None, "what holds for a shared provider holds for no tenant's");
    assert_eq!(get(None), Some("https://two"));
    assert_eq!(endpoints.urls(Some("acme.co"), "hook").count(), 1);
    assert_eq!(
        problem(config("[endpoints.\"acme.co/hook\"]\nprodution = \"https://one\"")),
        "pushlet.toml, line 2: unknown key endpoints.\"acme.co/hook\".prodution; did you mean endpoints.\"acme.co/hook\".production?"
    );
}

#[test]
fn an_override_of_an_unknown_provider_is_told() {
    let known = [("apns".to_owned(), vec!["api".to_owned(), "channels".to_owned()])];
    let told = |text: &str| config(text).unwrap().endpoints.check(&known);
    assert!(told("endpoints.apns.production = \"https://x\"").is_ok());
    assert!(told("endpoints.\"acme/apnz\".production = \"https://x\"").is_ok(), "it may be uploaded later");
    let message = problem(told("endpoints.apn.production = \"https://x\""));
    assert!(message.contains("no provider apn ") && message.contains("did you mean apns?"), "{message}");
    let message = problem(told("endpoints.apns.chanels.production = \"https://x\""));
    assert!(message.ends_with("did you mean channels?"), "{message}");
}

#[test]
fn allowed_hosts_are_bare_names() {
    let callers = |names: &str| config(&format!("allowed_hosts = {names}")).unwrap().callers();
    assert_eq!(callers("[\"push.example\", \"[::2]\"]").unwrap().allowed_hosts, ["push.example", "[::2]"]);
    for wrong in ["https://push.example", "push.example:80", "push.example/x", "a b", "*.example"] {
        let message = problem(callers(&format!("[{wrong:?}]")));
        assert!(message.starts_with("allowed_hosts: "), "{message}");
    }
}

#[test]
fn what_another_configuration_has_otherwise_is_named() {
    let layers = |text: &str| {
        let mut layers = ConfigLayers::new().unwrap();
        layers.text(Path::new("f"), text).unwrap();
        layers
    };
    let before = layers("log.level = \"info\"\n[endpoints.apns]\nproduction = \"https://a.example\"");
    let after = layers("log.level = \"debug\"\nauth.username = \"me\"");
    assert_eq!(before.changed(&after), ["auth.username", "endpoints.apns.production", "log.level"]);
    assert!(before.changed(&before).is_empty());
}
