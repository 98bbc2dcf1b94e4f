//! Puts the parts together.

use crate::config::{self, Config, Problem};
use crate::gateway::{self, Gateway};
use crate::provider::{self, Catalogue, Sandbox};
use crate::transport::{self, Transport};
use crate::web;

/// The gateway that a configuration describes, with its providers loaded. Needs a Tokio runtime.
pub fn gateway(config: &Config) -> Result<Gateway, Problem> {
    let sandbox = Sandbox::new(limits(&config.sandbox))
        .map_err(|error| Problem::new(format_args!("the sandbox can not start: {error}")))?;
    let catalogue = Catalogue::built_in(&sandbox)
        .map_err(|(name, error)| Problem::new(format_args!("the built-in provider {name}: {error}")))?;
    for name in config.endpoints.providers() {
        if catalogue.get(name).is_none() {
            tracing::warn!("endpoints.{name}: there is no provider of this name");
        }
    }
    let transport = Transport::new(transport_settings(config)?)
        .map_err(|error| Problem::new(format_args!("outbound TLS can not start: {error}")))?;
    let settings = gateway::Settings {
        delivery: config.delivery.clone(),
        endpoints: config.endpoints.clone(),
        feedback: config.limits.feedback,
        applications: config.limits.applications,
        places: config.limits.application_requests,
        stream_window: config.limits.stream_window,
        metrics: config.metrics.applications,
    };
    Ok(Gateway::new(catalogue, transport, settings))
}

fn limits(sandbox: &config::Sandbox) -> provider::Limits {
    provider::Limits {
        memory: sandbox.memory,
        call_timeout: sandbox.call_timeout,
        instances: u32::try_from(sandbox.instances).unwrap_or(u32::MAX),
        isolation: match sandbox.isolation {
            config::Isolation::Warm => provider::Isolation::Warm,
            config::Isolation::PerCall => provider::Isolation::PerCall,
        },
        ..provider::Limits::default()
    }
}

fn transport_settings(config: &Config) -> Result<transport::Settings, Problem> {
    let mut extra_roots = Vec::new();
    for path in &config.tls.extra_roots {
        let roots = web::certificates(path);
        extra_roots.extend(roots.map_err(|why| Problem::new(format_args!("tls.extra_roots: {why}")))?);
    }
    Ok(transport::Settings {
        extra_roots,
        // 10,000 channels of an app take 300 KiB.
        max_response: 512 << 10,
        connect_timeout: config.delivery.connect_timeout,
        ping_after: config.delivery.ping_after,
        max_connections: config.delivery.connections_per_identity,
        ..transport::Settings::default()
    })
}
