//! Every key of the configuration, once: its place, type, kind, default and meaning.
//!
//! The file's tables, the flags (`--auth-username`), the variables (`PUSHLET_AUTH_USERNAME`), the typed [`Config`], the
//! help text (first line of each comment) and `pushlet.example.toml` (all lines) come from here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml::Table;
use url::Url;

use super::section::{ConfigKey, ConfigSection, ReadSection, read_field, read_table, section};
use super::value::{HiddenText, IpNetworks, ListenAddress, ValueKind, count, duration, size};
use super::{AddressFamily, EndpointsConfig, IsolationMode, LogFormat, LogLevel, Problem};
use pushlet_model::tenant::TenantLimits;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// A wait that is not zero and not absurdly long.
const WAIT: ValueKind = duration(MILLISECOND, HOUR);
pub(crate) const MILLION: i64 = 1_000_000;

/// Returns all keys, in the order of the file.
pub fn keys() -> impl Iterator<Item = &'static ConfigKey> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

pub(crate) const SECTIONS: &[ConfigSection] = &[
    Config::SECTION,
    RegistryConfig::SECTION,
    AuthConfig::SECTION,
    AdminConfig::SECTION,
    TlsConfig::SECTION,
    super::ENDPOINTS,
    DeliveryConfig::SECTION,
    LimitsConfig::SECTION,
    super::TENANT_LIMITS,
    SandboxConfig::SECTION,
    MetricsConfig::SECTION,
    TelemetryConfig::SECTION,
    ProvidersConfig::SECTION,
    WebhooksConfig::SECTION,
    LogConfig::SECTION,
];

section! {
    /// Every key of Pushlet's configuration, with its default. A key that has no default is commented out.
    ///
    ///   pushlet serve --config pushlet.toml
    ///
    /// Each key is a flag and a variable too: `username` in [auth] is --auth-username and PUSHLET_AUTH_USERNAME.
    /// A flag wins over a variable, a variable over this file, this file over the defaults.
    /// Durations are written as "1m 30s", sizes as a number of bytes or as "64KiB". Unknown keys are refused.
    /// Relative paths begin at the directory that Pushlet is started in.
    Config "" {
        /// Address and port to listen on; a UNIX socket as unix:/run/pushlet.sock
        /// Anything but loopback, localhost and a UNIX socket needs [auth] or [admin]. Sockets that systemd opened
        /// (LISTEN_FDS) are used instead: the first for this, the second for metrics.listen.
        listen: ListenAddress = ValueKind::Listen, "127.0.0.1:9292";
        /// Let another server of the same user listen on the same address, so that the next one starts before this ends
        reuse_port: bool = ValueKind::Switch, false;
        /// Names that callers may give in Host without [auth], and pages of which may call; as push.example
        /// Without [auth], only requests for these, localhost and loopback addresses are answered, so that no web page
        /// can call through a browser on this machine. With [auth], a page of one of these names may call too: that of
        /// the console behind a proxy that changes the Host header.
        allowed_hosts: Vec<String> = ValueKind::Texts, [];
        /// Directory that keeps what is registered and uploaded; else it ends with the server
        /// It also keeps the feedback and the responses to Idempotency-Keys. One server at a time may use it; it needs
        /// a key, see [registry]. Other users must not be able to write it; a directory that does not exist yet is
        /// created private.
        data_dir: Option<PathBuf> = ValueKind::Path, (unset "/var/lib/pushlet");
    } {
        registry: RegistryConfig,
        auth: AuthConfig,
        admin: AdminConfig,
        tls: TlsConfig,
        endpoints: EndpointsConfig,
        delivery: DeliveryConfig,
        limits: LimitsConfig,
        sandbox: SandboxConfig,
        metrics: MetricsConfig,
        telemetry: TelemetryConfig,
        providers: ProvidersConfig,
        webhooks: WebhooksConfig,
        log: LogConfig,
    }
}

section! {
    /// What is registered: the key that secrets are sealed with, 32 random bytes in hex, as `openssl rand -hex 32`
    /// prints them, and where a fleet of servers keeps it. Keep a copy of the key elsewhere: without it the secrets are
    /// lost. `pushlet rotate-key` changes it.
    RegistryConfig "registry." {
        /// Key that seals secrets, 32 bytes in hex; better in a file
        key: Option<HiddenText> = ValueKind::Secret, (unset "64 hex digits");
        /// File that holds the key, instead of registry.key
        /// Other users must not be able to write it.
        key_file: Option<PathBuf> = ValueKind::Path, (unset "/run/secrets/pushlet-registry");
        /// Directory of applications (*.toml): registered at the start and by a reload, read-only in the API
        /// A file has provider, environment, tenant, [settings], and in [credentials] the names of the secrets' files.
        /// An application whose file is gone is removed.
        applications: Option<PathBuf> = ValueKind::Path, (unset "apps.d");
        /// NATS servers of a fleet's registry, with commas; not set: this server is alone
        /// As nats://a:4222,nats://b:4222, or tls://. All servers of a fleet have the same URL, key and limits;
        /// data_dir is then each server's own snapshot of the registry.
        url: Option<String> = ValueKind::Text, (unset "nats://127.0.0.1:4222");
        /// NATS servers that keep a copy of each record; 1 for a single server
        replicas: usize = count(1, 5), 3;
        /// File with the credentials for NATS (.creds)
        credentials: Option<PathBuf> = ValueKind::Path, (unset "/run/secrets/pushlet.creds");
        /// File with the seed of the nkey for NATS, instead of registry.credentials
        nkey: Option<PathBuf> = ValueKind::Path, (unset "/run/secrets/pushlet.nk");
    }
}

section! {
    /// HTTP Basic authentication of callers. Without [auth] and [admin], every process on this machine may call.
    AuthConfig "auth." {
        /// Name that callers give by HTTP Basic
        username: Option<String> = ValueKind::Text, (unset "me");
        /// Its password; better in a file, see auth.password_file
        password: Option<HiddenText> = ValueKind::Secret, (unset "change me");
        /// File that holds the password, instead of auth.password
        password_file: Option<PathBuf> = ValueKind::Path, (unset "/run/secrets/pushlet");
    }
}

section! {
    /// The operator, who creates tenants with `Authorization: Bearer KEY`. Without it there are no /v1/tenants; with
    /// it, every call needs a key or [auth].
    AdminConfig "admin." {
        /// The operator's key for /v1/tenants; better in a file, see admin.key_file
        key: Option<HiddenText> = ValueKind::Secret, (unset "at least 16 characters");
        /// File that holds the key, instead of admin.key
        key_file: Option<PathBuf> = ValueKind::Path, (unset "/run/secrets/pushlet-admin");
    }
}

section! {
    /// Certificates: the server's own, and those of push services.
    TlsConfig "tls." {
        /// PEM file with the server's certificate chain: serve HTTPS
        cert: Option<PathBuf> = ValueKind::Path, (unset "server.pem");
        /// PEM file with the private key of tls.cert
        key: Option<PathBuf> = ValueKind::Path, (unset "server.key");
        /// PEM files of authorities that push services may have, in addition to the system's
        extra_roots: Vec<PathBuf> = ValueKind::Paths, [];
    }
}

section! {
    /// How pushes are delivered.
    DeliveryConfig "delivery." {
        /// Longest time for one send, all told
        deadline: Duration = WAIT, "10s";
        /// At shutdown: how long sends in flight may take to finish
        drain: Duration = duration(Duration::ZERO, HOUR), "30s";
        /// At shutdown: how long to go on before that, with /readyz at 503 stopping, so that callers go elsewhere
        /// Each response asks its caller to connect again. As long as load balancers take to notice.
        lame_duck: Duration = duration(Duration::ZERO, HOUR), "0s";
        /// Longest time to connect to a push service
        connect_timeout: Duration = WAIT, "5s";
        /// Check a connection that was idle this long
        ping_after: Duration = duration(SECOND, DAY), "1h";
        /// Most connections for one server and credential
        connections_per_identity: usize = count(1, 64), 4;
        /// Most times that a push is sent again, within the deadline
        /// It is sent again only when the push service was in trouble.
        retries: u32 = count(0, 10), 4;
        /// Proxy for all connections to push services, by HTTP CONNECT: http://[user:password@]host:port
        /// Better in a file if it holds a password. Not set: that of HTTPS_PROXY or ALL_PROXY, if there is one, for all
        /// but this machine and NO_PROXY. "none": no proxy.
        proxy: Option<HiddenText> = ValueKind::Secret, (unset "http://proxy.example:3128");
        /// File that holds the proxy's URL, instead of delivery.proxy
        proxy_file: Option<PathBuf> = ValueKind::Path, (unset "/run/secrets/pushlet-proxy");
        /// Names, addresses and networks that are reached without delivery.proxy
        no_proxy: Vec<String> = ValueKind::Texts, [];
        /// Addresses of this machine that connections to push services come from; one of each family at most
        bind: Vec<String> = ValueKind::Texts, [];
        /// any: IPv6 and IPv4 by turns; prefer-ipv4, ipv4 or ipv6
        address_family: AddressFamily = ValueKind::Choice(&["any", "prefer-ipv4", "ipv4", "ipv6"]), "any";
        /// Send again when it is unknown whether a push arrived; it may arrive twice
        resend_unknown: bool = ValueKind::Switch, false;
    }
}

section! {
    /// Limits of requests, connections and memory.
    LimitsConfig "limits." {
        /// Largest body of a request
        request_body: usize = size(1024, 1 << 30), "1MiB";
        /// Largest body of /v1/notifications
        notifications_body: usize = size(1024, 1 << 30), "8MiB";
        /// Most targets of one /v1/notifications; a stream has no such limit
        targets: usize = count(1, MILLION), 10000;
        /// Most targets of one stream in flight; as few as keep the push service busy
        stream_window: usize = count(1, 100_000), 1000;
        /// Longest line of a stream
        stream_line: usize = size(1024, 16 << 20), "64KiB";
        /// Longest wait for the next line of a stream
        stream_idle: Duration = duration(MILLISECOND, DAY), "5m";
        /// How long the response to an Idempotency-Key is kept
        idempotency_window: Duration = duration(SECOND, Duration::from_secs(30 * 24 * 3600)), "24h";
        /// Most of these responses per tenant; the oldest go
        idempotency_keys: usize = count(1, 10 * MILLION), 10000;
        /// Most memory for these responses per tenant
        idempotency_memory: usize = size(1 << 20, 64 << 30), "64MiB";
        /// How long an async delivery of a fleet may wait; it can be read for twice as long
        async_window: Duration = duration(Duration::from_secs(60), Duration::from_secs(30 * 24 * 3600)), "24h";
        /// Most parts of one tenant's async deliveries that wait, of 250 targets each
        async_parts: usize = count(1, 100_000), 2000;
        /// Most fields in one request
        fields: usize = count(16, 10_000), 256;
        /// Longest name of a field, in bytes
        field_name: usize = count(32, 4096), 128;
        /// Most callers' connections at a time
        /// Requests on further connections get 503.
        connections: usize = count(1, MILLION), 1024;
        /// Most of these from one address, except loopback and limits.trusted_proxies
        /// An IPv6 network of 64 bits counts as one address.
        connections_per_address: usize = count(1, MILLION), 256;
        /// Addresses or networks of proxies in front, whose X-Forwarded-For is believed
        /// As ["10.0.0.0/8"]. The caller's address is the last one in X-Forwarded-For that is not one of these.
        trusted_proxies: IpNetworks = ValueKind::Texts, [];
        /// Most wrong credentials from one address in a minute; further ones wait and get 429
        /// The right ones still work.
        wrong_credentials: u32 = count(1, MILLION), 10;
        /// Most requests at a time, all told
        /// Further ones get 503.
        requests: usize = count(1, MILLION), 2048;
        /// Most sends of one application at a time
        /// Further ones get 503, so that an application whose push service hangs leaves room for others.
        application_requests: usize = count(1, MILLION), 1024;
        /// Most requests at a time on one HTTP/2 connection
        streams: u32 = count(1, 10_000), 128;
        /// How long a connection stays open between requests; longer than a load balancer in front keeps it
        /// Load balancers often keep theirs for 60 seconds. A connection that has not authenticated is closed after ten
        /// seconds.
        keep_alive: Duration = WAIT, "75s";
        /// Longest wait for a request's head
        header_timeout: Duration = WAIT, "30s";
        /// Longest wait for a request's whole body
        body_timeout: Duration = WAIT, "30s";
        /// Longest wait for a caller that does not read its response
        write_timeout: Duration = WAIT, "30s";
        /// Bytes per second that a caller must read of a response that waits for it
        /// A slower caller is disconnected once it is behind by write_timeout.
        min_data_rate: usize = size(1, 1 << 30), "8KiB";
        /// Most dead tokens kept per application; the newest stay
        feedback: usize = count(1, 10 * MILLION), 10000;
        /// Most memory of all tenants; not set: half of the machine's or container's, at least 256 MiB
        /// For requests in flight, responses of push services, what is kept for tenants, and instances of their
        /// providers. Beyond it, requests get 503 before the system runs out of memory. One tenant alone gets at most
        /// half of it.
        memory_bytes: Option<usize> = size(1 << 16, 1 << 50), (unset "2GiB");
    } {
        tenant: TenantLimits,
    }
}

section! {
    /// What one call into a provider component may use.
    SandboxConfig "sandbox." {
        /// Most memory of one provider instance
        memory: usize = size(1 << 20, 4 << 30), "64MiB";
        /// Longest run of one call into a provider
        call_timeout: Duration = duration(MILLISECOND, Duration::from_secs(60)), "500ms";
        /// Most provider instances at a time, all told
        instances: usize = count(1, 10_000), 64;
        /// warm: a tenant's instances are used again; per-call: a new one for every call
        isolation: IsolationMode = ValueKind::Choice(&["warm", "per-call"]), "warm";
    }
}

section! {
    /// Metrics and health checks.
    MetricsConfig "metrics." {
        /// Address and port for /metrics and the health checks alone, without [auth]
        /// It has no TLS either: use an address that only your own network reaches. Not set: /metrics is at `listen`,
        /// for those who may call.
        listen: Option<SocketAddr> = ValueKind::Address, (unset "127.0.0.1:9293");
        /// Most applications of a tenant with metrics of their own
        /// All tenants together have four times as many at most; the others are counted together, as "other".
        applications: usize = count(1, 100_000), 1000;
    }
}

section! {
    /// What is exported to an OpenTelemetry collector: traces (a span for each request), the log and the metrics.
    TelemetryConfig "telemetry." {
        /// Base URL of an OpenTelemetry collector that takes OTLP over HTTP
        /// As binary Protobuf. Not set: nothing is exported.
        otlp_endpoint: Option<Url> = ValueKind::WebUrl, (unset "http://127.0.0.1:4318");
        /// What this server is called there
        service_name: String = ValueKind::Text, "pushlet";
        /// Export a span for each request
        traces: bool = ValueKind::Switch, true;
        /// Trace one in so many requests; those that come with a traceparent as it says
        sample_one_in: u32 = count(1, MILLION), 1;
        /// Export the lines of the log, of log.level and above
        logs: bool = ValueKind::Switch, true;
        /// Export what /metrics shows
        metrics: bool = ValueKind::Switch, true;
        /// How often metrics are exported
        metrics_interval: Duration = duration(SECOND, HOUR), "60s";
    }
}

section! {
    /// Providers that tenants upload, or that lie in a directory.
    ProvidersConfig "providers." {
        /// May a tenant upload a provider under the name of a built-in one?
        allow_shadowing: bool = ValueKind::Switch, false;
        /// Hosts that uploaded providers may reach: names, *.example.com, or * for all public ones
        allowed_hosts: Vec<String> = ValueKind::Texts, ["*"];
        /// Directory of components (*.wasm) that all tenants share
        dir: Option<PathBuf> = ValueKind::Path, (unset "providers.d");
        /// Directory for compiled components: starts are faster with one; if not set, it is in data_dir
        /// Without either, the server listens at once too, and compiles uploaded providers before they are used, or
        /// when they are.
        cache_dir: Option<PathBuf> = ValueKind::Path, (unset "cache");
        /// Most bytes in providers.cache_dir; the tenant that needs room loses its own oldest files first
        /// After these, the tenant with the most files loses some; what this server runs itself stays. Files that this
        /// server did not write are left alone.
        cache_size: usize = size(1 << 20, 1 << 40), "1GiB";
        /// Largest component
        component_size: usize = size(1 << 20, 1 << 30), "32MiB";
        /// Versions kept of an uploaded provider; the oldest go
        versions: usize = count(2, 100), 5;
        /// Program that compiles components in place of this one
        /// It is called as `PROGRAM compile --memory=BYTES --cpu=SECONDS`.
        compiler: Option<PathBuf> = ValueKind::Path, (unset "pushlet-compiler");
        /// Most address space of the process that compiles a component
        compile_memory: usize = size(64 << 20, 1 << 40), "2GiB";
        /// Most CPU time for compiling a component
        compile_cpu: Duration = duration(SECOND, HOUR), "60s";
        /// Longest time for compiling a component
        compile_timeout: Duration = WAIT, "2m";
        /// Components that are compiled at a time; one of each tenant at most
        /// The next place goes to the tenant whose components took the least time recently; a component that waits for
        /// a minute gets 503 compiler_busy.
        compile_jobs: usize = count(1, 256), 1;
        /// Do uploaded components, compiling and heavy work of requests get the processor only when nothing else wants it?
        /// Other programs of the machine count too: one that always computes leaves them a seventieth.
        low_priority: bool = ValueKind::Switch, true;
    }
}

section! {
    /// Webhooks, which tell tenants of dead tokens, refused credentials and limits that are reached.
    WebhooksConfig "webhooks." {
        /// Hosts that webhooks may reach though they are not on the public internet; as "hooks.internal"
        private_hosts: Vec<String> = ValueKind::Texts, [];
        /// How long after a failure a message is sent again; four times as long each time, up to half a day
        first_retry: Duration = duration(MILLISECOND, HOUR), "5s";
        /// How long a message may fail until its webhook is switched off
        give_up: Duration = duration(MILLISECOND, Duration::from_secs(30 * 24 * 3600)), "5d";
    }
}

section! {
    /// The log, which goes to standard error.
    LogConfig "log." {
        /// How a log line is written
        format: LogFormat = ValueKind::Choice(&["text", "json"]), "text";
        /// Least important kind of line that is logged
        level: LogLevel = ValueKind::Choice(&["error", "warn", "info", "debug", "trace"]), "info";
    }
}
