//! From a send to its campaign: the application, the provider, the notification, the targets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::deliver::Campaign;
use super::{Fate, Fields, Inner, Report, Send, Via};
use crate::contract::manifest::{ProviderManifest, TargetKind};
use crate::contract::{Disposition, Notification, Target};
use crate::error::Error;
use crate::notification;
use crate::provider::Provider;
use crate::registry::Application;
use crate::tenant::TenantId;

impl Inner {
    pub(super) async fn send(&self, tenant: &TenantId, send: Send) -> Result<Report, Error> {
        let Send { provider: named, via, notification, targets, native, deadline } = send;
        let deadline =
            Instant::now() + deadline.unwrap_or(self.delivery.deadline).min(self.delivery.deadline);
        let application = match via {
            Via::Application(id) => self.registry.get(tenant, &id)?,
            Via::Inline(fields) => Arc::new(self.inline(tenant, named.as_deref(), fields).await?),
        };
        let provider = self.provider(&application.provider)?.clone();
        let manifest = provider.manifest();
        answers_to(manifest, named.as_deref())?;
        targets.iter().try_for_each(|target| knows(manifest, target))?;
        let notification = self.notification(notification, manifest)?;
        let instances = provider.instances(tenant);
        let campaign = Campaign::new(
            self,
            &provider,
            &instances,
            &application,
            &notification,
            &targets,
            native,
            deadline,
        )?;
        let (fates, native) = campaign.run().await;
        report_dead_tokens(&application, &targets, &fates);
        Ok(Report { provider: manifest.name.clone(), fates, native })
    }

    fn notification(&self, fields: Fields, manifest: &ProviderManifest) -> Result<Notification, Error> {
        match fields {
            Fields::Classic(fields) => notification::from_form(fields, manifest),
            Fields::Strict(fields) => {
                let others: Vec<_> =
                    self.catalogue.all().map(|other| other.manifest().name.as_str()).collect();
                notification::from_json(fields, manifest, &others)
            }
        }
    }

    /// An application that lives for one send, made of the secret that came with it.
    async fn inline(
        &self,
        tenant: &TenantId,
        named: Option<&str>,
        fields: BTreeMap<String, Vec<u8>>,
    ) -> Result<Application, Error> {
        let takes = |provider: &&Arc<Provider>| {
            let manifest = provider.manifest();
            let inline =
                manifest.credentials.iter().filter(|kind| kind.inline).flat_map(|kind| &kind.secrets);
            named.is_none_or(|name| name == manifest.name)
                && inline.map(|secret| &secret.name).any(|name| fields.contains_key(name))
        };
        let provider = self.catalogue.all().find(takes).cloned().ok_or_else(|| {
            Error::field(
                "missing_identifier",
                "application_id",
                "an application_id or gcm_api_key are required for this call",
            )
        })?;
        self.application(&provider, tenant, String::new(), fields).await
    }
}

/// Does the provider serve requests of this `type`?
fn answers_to(manifest: &ProviderManifest, named: Option<&str>) -> Result<(), Error> {
    match named {
        Some(name) if name != manifest.name && !manifest.also_answers.iter().any(|other| other == name) => {
            let message = format!("the application is registered for {}, not for {name}", manifest.name);
            Err(Error::field("invalid_type", "type", message))
        }
        _ => Ok(()),
    }
}

fn knows(manifest: &ProviderManifest, target: &Target) -> Result<(), Error> {
    let (kind, name) = match target {
        Target::Device(_) => (TargetKind::Device, "device tokens"),
        Target::Topic(_) => (TargetKind::Topic, "topics"),
        Target::Condition(_) => (TargetKind::Condition, "conditions"),
        Target::Channel(_) => (TargetKind::Channel, "channels"),
        Target::Url(_) => (TargetKind::Url, "URLs"),
    };
    if manifest.targets.contains(&kind) {
        return Ok(());
    }
    Err(Error::field("unsupported_target", "target", format!("{} does not send to {name}", manifest.name)))
}

/// What the service said of dead tokens is kept for those who ask by `application_feedback`.
fn report_dead_tokens(application: &Application, targets: &[Target], fates: &[Fate]) {
    for (target, fate) in targets.iter().zip(fates) {
        if let (Target::Device(token), Fate::Settled(outcome)) = (target, fate)
            && let Disposition::Unregistered(since) = &outcome.disposition
        {
            let since = since.and_then(|ms| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
            application.feedback.report(token, since.unwrap_or_else(SystemTime::now));
        }
    }
}
