//! A running server reads its configuration again: on SIGHUP, and when the operator asks by `POST /v1/reload`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use rustls::pki_types::CertificateDer;
use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tokio::signal::unix::Signal;

use crate::bootstrap;
use crate::server::ServerCertificate;
use pushlet_api::log::RunningLog;
use pushlet_api::{LiveConfig, Observability, ReloadReport};
use pushlet_gateway::Gateway;
use pushlet_sandbox::TenantProviders;
use pushlet_settings::{CallerConfig, Config, ConfigLayers, Problem};

/// Keys that are in force after a reload; a name that ends with a dot stands for all keys below it.
const RELOADED: [&str; 9] = [
    "auth.",
    "admin.",
    "limits.tenant.",
    "log.level",
    APPLICATIONS,
    PROVIDERS,
    "tls.cert",
    "tls.key",
    EXTRA_ROOTS,
];

const APPLICATIONS: &str = "registry.applications";
const PROVIDERS: &str = "providers.dir";
const EXTRA_ROOTS: &str = "tls.extra_roots";

/// What a reload reads and what it changes.
pub struct Reloader {
    pub read: Box<dyn Fn() -> Result<ConfigLayers, Problem> + Send + Sync>,
    /// As at the start of the server: keys that need a restart are compared with these.
    pub started: ConfigLayers,
    pub current: Mutex<InForce>,
    pub live: LiveConfig,
    pub certificate: Option<ServerCertificate>,
    pub observability: Observability,
    pub gateway: Gateway,
    pub log: Arc<RunningLog>,
}

/// What is in force.
pub struct InForce {
    pub layers: ConfigLayers,
    pub callers: CallerConfig,
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl Reloader {
    /// Reads everything first: if something is wrong, nothing changes. Blocks.
    pub fn reload(&self) -> Result<ReloadReport, Problem> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let layers = (self.read)()?;
        let config = layers.clone().finish()?;
        let (callers, extra_roots) = (config.callers()?, bootstrap::extra_roots(&config)?);
        // First, since files may describe applications of providers that are new.
        let providers = bootstrap::reload_providers(&config, &self.gateway)?;
        let before = self.gateway.set_shared(providers.clone());
        let mut changed = current.layers.changed(&layers);
        changed.retain(|path| is_reloaded(path));
        if let Err(problem) = self.reload_files(&config, &extra_roots, &mut changed) {
            self.gateway.set_shared(before);
            return Err(problem);
        }
        changed.extend(changed_providers(&before, &providers).map(|name| format!("{PROVIDERS}: {name}")));
        if extra_roots != current.extra_roots && !changed.iter().any(|path| path == EXTRA_ROOTS) {
            changed.push(EXTRA_ROOTS.to_owned());
        }
        changed.extend(changed_secrets(&current.callers, &callers, &changed));
        self.live.set_callers(&callers);
        self.gateway.tenants().set_defaults(config.limits.tenant);
        self.log.set_level(config.log.level);
        let mut needs_restart = self.started.changed(&layers);
        needs_restart.retain(|path| !is_reloaded(path) || self.is_new_tls(path));
        *current = InForce { layers, callers, extra_roots };
        changed.retain(|path| !needs_restart.contains(path));
        tracing::info!(changed = changed.join(","), needs_restart = needs_restart.join(","), "reloaded");
        Ok(ReloadReport { changed, needs_restart })
    }

    /// Takes on applications, the server's certificate and authorities, and adds to `changed` what is not there yet.
    fn reload_files(
        &self,
        config: &Config,
        extra_roots: &[CertificateDer<'static>],
        changed: &mut Vec<String>,
    ) -> Result<(), Problem> {
        let files = config.application_files()?;
        let runtime = Handle::current();
        let mut applications = runtime.block_on(self.gateway.check_files(files.as_deref()));
        if let Some(problem) = applications.problems.pop() {
            return Err(problem);
        }
        // The last steps that can fail are the first that change something.
        if let Some(certificate) = &self.certificate
            && certificate.reload(&config.tls)?
            && !changed.iter().any(|path| ["tls.cert", "tls.key"].contains(&path.as_str()))
        {
            changed.push("tls.cert".to_owned());
        }
        let end = self.certificate.as_ref().and_then(ServerCertificate::ends_at);
        self.observability.set_certificate_end(end);
        let wrong = |error| Problem::new(format_args!("{EXTRA_ROOTS}: {error}"));
        self.gateway.set_extra_roots(extra_roots).map_err(wrong)?;
        let taken = runtime.block_on(self.gateway.take_files(applications, files.is_some()));
        let taken = taken.map_err(|error| Problem::new(format_args!("{APPLICATIONS}: {}", error.message)))?;
        changed.extend(taken.into_iter().map(|application| format!("{APPLICATIONS}: {application}")));
        Ok(())
    }

    /// Reloads with each signal.
    pub async fn on_signal(self: Arc<Self>, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            // With the time, without which newer versions of systemd take the service for hanging.
            let states: Vec<_> =
                [NotifyState::Reloading].into_iter().chain(NotifyState::monotonic_usec_now()).collect();
            notify(&states);
            if let Err(problem) = self.clone().in_background().await {
                tracing::error!(%problem, "nothing was reloaded");
            }
            notify(&[NotifyState::Ready]);
        }
    }

    /// Has `POST /v1/reload` reload.
    pub fn on_request(self: &Arc<Self>) {
        // Weak, since it holds what holds the action.
        let reloader = Arc::downgrade(self);
        self.live.on_reload(move || {
            let reloader = reloader.upgrade();
            async move {
                let ended = || Problem::new("this server is stopping");
                reloader.ok_or_else(ended)?.in_background().await
            }
            .boxed()
        });
    }

    async fn in_background(self: Arc<Self>) -> Result<ReloadReport, Problem> {
        tokio::task::spawn_blocking(move || self.reload()).await.map_err(Problem::new)?
    }

    /// A server that began without TLS goes on without it.
    fn is_new_tls(&self, path: &str) -> bool {
        ["tls.cert", "tls.key"].contains(&path) && self.certificate.is_none()
    }
}

fn is_reloaded(path: &str) -> bool {
    RELOADED.iter().any(|known| if known.ends_with('.') { path.starts_with(known) } else { path == *known })
}

/// Returns the names of shared providers that are new, changed or gone.
fn changed_providers(before: &TenantProviders, after: &TenantProviders) -> impl Iterator<Item = String> {
    let of = |providers: &TenantProviders| -> BTreeMap<String, String> {
        let all = providers.all();
        all.map(|one| (one.manifest().name.clone(), one.digest().to_owned())).collect()
    };
    let (before, after) = (of(before), of(after));
    let names: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
    names.into_iter().filter(move |name| before.get(name) != after.get(name))
}

/// Returns the keys whose files hold another secret than before.
fn changed_secrets(before: &CallerConfig, after: &CallerConfig, known: &[String]) -> Vec<String> {
    let login = |callers: &CallerConfig| {
        callers.login.as_ref().map(|login| (login.username.clone(), login.password.clone()))
    };
    let is_same = match (login(before), login(after)) {
        (Some((name, password)), Some((other, new))) => name == other && password.reveal() == new.reveal(),
        (before, after) => before.is_none() && after.is_none(),
    };
    let is_same_admin = match (&before.admin, &after.admin) {
        (Some(before), Some(after)) => before.reveal() == after.reveal(),
        (before, after) => before.is_none() && after.is_none(),
    };
    let of_files = [("auth.password_file", is_same, "auth."), ("admin.key_file", is_same_admin, "admin.")];
    let new = |(_, is_same, section): &(&str, bool, &str)| {
        !is_same && !known.iter().any(|path| path.starts_with(section))
    };
    of_files.into_iter().filter(new).map(|(path, ..)| path.to_owned()).collect()
}

/// Tells the service manager, if there is one; see sd_notify(3).
pub fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told about this server's state");
    }
}
