//! Every key of the configuration, once: its place, kind, default and meaning.
//!
//! The file's tables, the flags (`--auth-username`) and the variables (`PUSHLET_AUTH_USERNAME`) all
//! come from this table; the typed form of the values is in the parent module.

use std::time::Duration;

use super::value::ValueKind;

/// One key.
pub struct ConfigKey {
    /// Dotted path in the file. A segment in angle brackets stands for any name.
    pub path: &'static str,
    pub kind: ValueKind,
    /// As it would stand in the file; None: not set.
    pub default: Option<&'static str>,
    pub help: &'static str,
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const MILLISECOND: Duration = Duration::from_millis(1);
/// A wait that must be some time, and not absurdly long.
const WAIT: ValueKind = ValueKind::Duration { least: MILLISECOND, most: HOUR };
const URL: ValueKind = ValueKind::Url;
const PER_SECOND: ValueKind = ValueKind::Count { least: 1, most: 1_000_000_000 };

const fn key(path: &'static str, kind: ValueKind, default: &'static str, help: &'static str) -> ConfigKey {
    ConfigKey { path, kind, default: Some(default), help }
}

const fn unset(path: &'static str, kind: ValueKind, help: &'static str) -> ConfigKey {
    ConfigKey { path, kind, default: None, help }
}

pub const KEYS: &[ConfigKey] = &[
    key("listen", ValueKind::Address, "\"127.0.0.1:9292\"", "Address and port to listen on"),
    key(
        "allowed_hosts",
        ValueKind::Texts,
        "[]",
        "Names that callers may give in Host without [auth], and pages of which may call; as push.example",
    ),
    unset(
        "data_dir",
        ValueKind::Path,
        "Directory that keeps what is registered and uploaded; else it ends with the server",
    ),
    unset(
        "registry.key",
        ValueKind::Secret,
        "Key that seals secrets in data_dir, 32 bytes in hex; better in a file",
    ),
    unset("registry.key_file", ValueKind::Path, "File that holds the key, instead of registry.key"),
    unset("auth.username", ValueKind::Text, "Name that callers give by HTTP Basic"),
    unset("auth.password", ValueKind::Secret, "Its password; better in a file, see auth.password_file"),
    unset("auth.password_file", ValueKind::Path, "File that holds the password, instead of auth.password"),
    unset(
        "admin.key",
        ValueKind::Secret,
        "The operator's key for /v1/tenants; better in a file, see admin.key_file",
    ),
    unset("admin.key_file", ValueKind::Path, "File that holds the key, instead of admin.key"),
    unset("tls.cert", ValueKind::Path, "PEM file with the server's certificate chain: serve HTTPS"),
    unset("tls.key", ValueKind::Path, "PEM file with the private key of tls.cert"),
    key(
        "tls.extra_roots",
        ValueKind::Paths,
        "[]",
        "PEM files of authorities that push services may have too",
    ),
    unset("endpoints.<provider>.production", URL, "Base URL in place of a provider's production servers"),
    unset("endpoints.<provider>.development", URL, "Base URL in place of a provider's development servers"),
    unset("endpoints.<provider>.<endpoint>.production", URL, "The same for one endpoint of the provider"),
    unset("endpoints.<provider>.<endpoint>.development", URL, "The same for one endpoint of the provider"),
    key("delivery.deadline", WAIT, "\"10s\"", "Longest time for one send, all told"),
    key(
        "delivery.drain",
        ValueKind::Duration { least: Duration::ZERO, most: HOUR },
        "\"30s\"",
        "At shutdown: time that sends under way get to finish",
    ),
    key("delivery.connect_timeout", WAIT, "\"5s\"", "Longest time to connect to a push service"),
    key(
        "delivery.ping_after",
        ValueKind::Duration { least: SECOND, most: Duration::from_secs(24 * 3600) },
        "\"1h\"",
        "Check a connection that was idle this long",
    ),
    key(
        "delivery.connections_per_identity",
        ValueKind::Count { least: 1, most: 64 },
        "4",
        "Most connections for one server and credential",
    ),
    key(
        "delivery.retries",
        ValueKind::Count { least: 0, most: 10 },
        "4",
        "Most times that a push is sent again, within the deadline",
    ),
    key(
        "delivery.resend_unknown",
        ValueKind::Switch,
        "false",
        "Send again when it is unknown whether a push arrived; it may arrive twice",
    ),
    key(
        "limits.request_body",
        ValueKind::Size { least: 1024, most: 1 << 30 },
        "\"1MiB\"",
        "Largest body of a request",
    ),
    key(
        "limits.notifications_body",
        ValueKind::Size { least: 1024, most: 1 << 30 },
        "\"8MiB\"",
        "Largest body of /v1/notifications",
    ),
    key(
        "limits.targets",
        ValueKind::Count { least: 1, most: 1_000_000 },
        "10000",
        "Most targets of one /v1/notifications; a stream has no such limit",
    ),
    key(
        "limits.stream_window",
        ValueKind::Count { least: 1, most: 100_000 },
        "1000",
        "Most targets of one stream under way at a time; as few as keep the push service busy",
    ),
    key(
        "limits.stream_line",
        ValueKind::Size { least: 1024, most: 16 << 20 },
        "\"64KiB\"",
        "Longest line of a stream",
    ),
    key(
        "limits.stream_idle",
        ValueKind::Duration { least: MILLISECOND, most: Duration::from_secs(24 * 3600) },
        "\"5m\"",
        "Longest wait for the next line of a stream",
    ),
    key(
        "limits.idempotency_window",
        ValueKind::Duration { least: SECOND, most: Duration::from_secs(30 * 24 * 3600) },
        "\"24h\"",
        "How long the answer to an Idempotency-Key is kept",
    ),
    key(
        "limits.idempotency_keys",
        ValueKind::Count { least: 1, most: 10_000_000 },
        "10000",
        "Most of these answers per tenant; the oldest go",
    ),
    key(
        "limits.idempotency_memory",
        ValueKind::Size { least: 1 << 20, most: 64 << 30 },
        "\"64MiB\"",
        "Most memory for these answers per tenant",
    ),
    key("limits.fields", ValueKind::Count { least: 16, most: 10_000 }, "256", "Most fields in one request"),
    key(
        "limits.field_name",
        ValueKind::Count { least: 32, most: 4096 },
        "128",
        "Longest name of a field, in bytes",
    ),
    key(
        "limits.connections",
        ValueKind::Count { least: 1, most: 1_000_000 },
        "1024",
        "Most callers' connections at a time",
    ),
    key(
        "limits.connections_per_address",
        ValueKind::Count { least: 1, most: 1_000_000 },
        "256",
        "Most of these from one address, except loopback and limits.trusted_proxies",
    ),
    key(
        "limits.trusted_proxies",
        ValueKind::Texts,
        "[]",
        "Addresses or networks of proxies in front, whose X-Forwarded-For is believed",
    ),
    key(
        "limits.wrong_credentials",
        ValueKind::Count { least: 1, most: 1_000_000 },
        "10",
        "Most wrong credentials from one address in a minute; further ones wait and get 429",
    ),
    key(
        "limits.requests",
        ValueKind::Count { least: 1, most: 1_000_000 },
        "2048",
        "Most requests at a time, all told",
    ),
    key(
        "limits.application_requests",
        ValueKind::Count { least: 1, most: 1_000_000 },
        "1024",
        "Most sends of one application at a time",
    ),
    key(
        "limits.streams",
        ValueKind::Count { least: 1, most: 10_000 },
        "128",
        "Most requests at a time on one HTTP/2 connection",
    ),
    key(
        "limits.keep_alive",
        WAIT,
        "\"75s\"",
        "How long a connection stays open between requests; longer than a load balancer in front keeps it",
    ),
    key("limits.header_timeout", WAIT, "\"30s\"", "Longest wait for a request's head"),
    key("limits.body_timeout", WAIT, "\"30s\"", "Longest wait for a request's whole body"),
    key("limits.write_timeout", WAIT, "\"30s\"", "Longest wait for a caller that does not read its answer"),
    key(
        "limits.min_data_rate",
        ValueKind::Size { least: 1, most: 1 << 30 },
        "\"8KiB\"",
        "Bytes per second that a caller must read of an answer that waits for it",
    ),
    key(
        "limits.feedback",
        ValueKind::Count { least: 1, most: 10_000_000 },
        "10000",
        "Most dead tokens kept per application; the newest stay",
    ),
    unset(
        "limits.memory_bytes",
        ValueKind::Size { least: 1 << 16, most: 1 << 50 },
        "Most memory of all tenants; not set: half of the machine's or container's, at least 256 MiB",
    ),
    unset("limits.tenant.requests_per_second", PER_SECOND, "Most requests of one tenant per second"),
    unset("limits.tenant.pushes_per_second", PER_SECOND, "Most targets that one tenant sends to per second"),
    unset(
        "limits.tenant.concurrent_sends",
        ValueKind::Count { least: 1, most: 1_000_000 },
        "Most sends of one tenant at a time",
    ),
    key(
        "limits.tenant.applications",
        ValueKind::Count { least: 0, most: 10_000_000 },
        "10000",
        "Most registered applications of one tenant",
    ),
    key(
        "limits.tenant.components",
        ValueKind::Count { least: 0, most: 10_000 },
        "20",
        "Most uploaded providers of one tenant",
    ),
    key(
        "limits.tenant.component_bytes",
        ValueKind::Size { least: 0, most: 1 << 50 },
        "\"1GiB\"",
        "Most bytes of these, with all versions",
    ),
    unset(
        "limits.tenant.call_milliseconds",
        ValueKind::Count { least: 1, most: 60_000 },
        "Longest run of one call into an uploaded provider, where sandbox.call_timeout is longer",
    ),
    key(
        "limits.tenant.cpu_milliseconds_per_second",
        ValueKind::Count { least: 1, most: 1_000_000 },
        "200",
        "Most CPU time of one tenant per second, for uploaded providers and other heavy work",
    ),
    unset(
        "limits.tenant.instance_memory_bytes",
        ValueKind::Size { least: 1 << 16, most: 4 << 30 },
        "Most memory of one instance of an uploaded provider, where sandbox.memory is more",
    ),
    key(
        "limits.tenant.memory_bytes",
        ValueKind::Size { least: 1 << 16, most: 1 << 40 },
        "\"512MiB\"",
        "Most memory of one tenant: requests in flight, what is kept for it, its providers' instances",
    ),
    key(
        "sandbox.memory",
        ValueKind::Size { least: 1 << 20, most: 4 << 30 },
        "\"64MiB\"",
        "Most memory of one provider instance",
    ),
    key(
        "sandbox.call_timeout",
        ValueKind::Duration { least: MILLISECOND, most: Duration::from_secs(60) },
        "\"500ms\"",
        "Longest run of one call into a provider",
    ),
    key(
        "sandbox.instances",
        ValueKind::Count { least: 1, most: 10_000 },
        "64",
        "Most provider instances at a time, all told",
    ),
    key(
        "sandbox.isolation",
        ValueKind::Choice(&["warm", "per-call"]),
        "\"warm\"",
        "warm: a tenant's instances are used again; per-call: a new one for every call",
    ),
    unset(
        "metrics.listen",
        ValueKind::Address,
        "Address and port for /metrics and the health checks alone, without [auth]",
    ),
    key(
        "metrics.applications",
        ValueKind::Count { least: 1, most: 100_000 },
        "1000",
        "Most applications of a tenant with metrics of their own",
    ),
    unset(
        "telemetry.otlp_endpoint",
        ValueKind::WebUrl,
        "Base URL of an OpenTelemetry collector that takes OTLP over HTTP",
    ),
    key("telemetry.service_name", ValueKind::Text, "\"pushlet\"", "What this server is called in traces"),
    key(
        "telemetry.sample_one_in",
        ValueKind::Count { least: 1, most: 1_000_000 },
        "1",
        "Trace one in so many requests; those that come with a traceparent as it says",
    ),
    key(
        "providers.allow_shadowing",
        ValueKind::Switch,
        "false",
        "May a tenant upload a provider under the name of a built-in one?",
    ),
    key(
        "providers.allowed_hosts",
        ValueKind::Texts,
        "[\"*\"]",
        "Hosts that uploaded providers may reach: names, *.example.com, or * for all public ones",
    ),
    unset("providers.dir", ValueKind::Path, "Directory of components (*.wasm) that everybody may use"),
    unset(
        "providers.cache_dir",
        ValueKind::Path,
        "Directory for compiled components: starts are faster with one; if not set, it is in data_dir",
    ),
    key(
        "providers.cache_size",
        ValueKind::Size { least: 1 << 20, most: 1 << 40 },
        "\"1GiB\"",
        "Most bytes in providers.cache_dir; the tenant that needs room loses its own oldest files first",
    ),
    key(
        "providers.component_size",
        ValueKind::Size { least: 1 << 20, most: 1 << 30 },
        "\"32MiB\"",
        "Largest component",
    ),
    key(
        "providers.versions",
        ValueKind::Count { least: 2, most: 100 },
        "5",
        "Versions kept of an uploaded provider; the oldest go",
    ),
    unset("providers.compiler", ValueKind::Path, "Program that compiles components in place of this one"),
    key(
        "providers.compile_memory",
        ValueKind::Size { least: 64 << 20, most: 1 << 40 },
        "\"2GiB\"",
        "Most address space of the process that compiles a component",
    ),
    key(
        "providers.compile_cpu",
        ValueKind::Duration { least: SECOND, most: HOUR },
        "\"60s\"",
        "Most CPU time for compiling a component",
    ),
    key("providers.compile_timeout", WAIT, "\"2m\"", "Longest time for compiling a component"),
    key(
        "providers.compile_jobs",
        ValueKind::Count { least: 1, most: 256 },
        "1",
        "Components that are compiled at a time; one of each tenant at most",
    ),
    key("log.format", ValueKind::Choice(&["text", "json"]), "\"text\"", "How a log line is written"),
    key(
        "log.level",
        ValueKind::Choice(&["error", "warn", "info", "debug", "trace"]),
        "\"info\"",
        "Least important kind of line that is logged",
    ),
];
