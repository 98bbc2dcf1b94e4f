//! The side of the caller: a gateway in this process, its applications, and what they are told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pushlet_gateway::{DeliveryResult, Duplicates, Fields, Gateway, Registration, Send, Via};
use pushlet_model::contract::{Disposition, Target};
use pushlet_model::tenant::TenantId;
use pushlet_settings::ConfigLayers;
use rcgen::KeyPair;
use serde_json::json;

use crate::ledger::Told;
use crate::peer::{Certificate, Failure};

/// Applications that a caller registers; each has a key, and so connections, of its own.
pub const APPLICATIONS: usize = 4;
/// The last one sends by GCM, which goes over HTTPS of any version; the others by APNs.
pub const GCM: usize = APPLICATIONS - 1;

/// A gateway with registered applications. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    gateway: Gateway,
    tenant: TenantId,
}

/// How the gateway is set up.
pub struct Setup {
    /// Where APNs' production and development servers, and GCM's, are.
    pub production: SocketAddr,
    pub development: SocketAddr,
    pub deadline: Duration,
    pub resend_unknown: bool,
}

impl Caller {
    pub fn new(certificate: &Certificate, setup: &Setup) -> Result<Self, Failure> {
        let roots = Roots::write(&certificate.authority)?;
        let both = |name: &str| {
            let (production, development) = (setup.production, setup.development);
            format!(
                "endpoints.{name} = {{ production = \"https://{production}\", development = \"https://{development}\" }}\n"
            )
        };
        let text = format!(
            "{}{}tls.extra_roots = [{:?}]\ndelivery.deadline = \"{}ms\"\ndelivery.resend_unknown = {}\n",
            both("apns"),
            both("gcm"),
            roots.0.display().to_string(),
            setup.deadline.as_millis(),
            setup.resend_unknown,
        );
        let mut layers = ConfigLayers::new()?;
        layers.text(&roots.0, &text)?;
        let gateway = pushlet::bootstrap::gateway(&layers.finish()?)?;
        let caller = Self { gateway, tenant: TenantId::default_tenant() };
        for application in 0..APPLICATIONS {
            caller.register(&application.to_string(), application, "production")?;
        }
        Ok(caller)
    }

    /// Registers one more application. `kind`: as the applications that are there already.
    pub fn register(&self, id: &str, kind: usize, mode: &str) -> Result<(), Failure> {
        let mut fields = BTreeMap::new();
        let mut set = |name: &str, value: &str| fields.insert(name.to_owned(), value.as_bytes().to_vec());
        let provider = if kind == GCM {
            set("gcm_api_key", id);
            "gcm"
        } else {
            set("apns_p8", &KeyPair::generate()?.serialize_pem());
            set("apns_key_id", "ABCDE12345");
            set("apns_team_id", "TEAM123456");
            set("apns_topic", "com.example.app");
            set("apns_mode", mode);
            "apns"
        };
        let registration = Registration {
            application_id: Some(id.to_owned()),
            provider: Some(provider.to_owned()),
            environment: None,
            fields,
            strict: true,
        };
        let registered = self.gateway.register(self.tenant.clone(), registration);
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(registered))?;
        Ok(())
    }

    /// Sends pushes, each to a device of its own, and tells what the caller is told of each.
    pub async fn send(&self, application: &str, pushes: std::ops::Range<usize>) -> Vec<Told> {
        let count = pushes.len();
        let notification = json!({ "alert": { "body": "hello" } });
        let send = Send {
            provider: None,
            via: Via::Application(application.to_owned()),
            notification: Fields::Strict(notification.as_object().cloned().unwrap_or_default()),
            targets: pushes.map(|push| Target::Device(format!("{push:064x}")).into()).collect(),
            duplicates: Duplicates::Send,
            native: false,
            validate_only: false,
            capture: false,
            request_id: None,
            deadline: None,
        };
        match self.gateway.send(&self.tenant, send).await {
            Ok(report) => report.results.into_iter().map(|result| told(result.result)).collect(),
            Err(error) => vec![Told::NotDelivered(error.code.into_owned()); count],
        }
    }

    pub async fn close(&self) {
        self.gateway.close(Duration::from_secs(1)).await;
    }
}

fn told(result: DeliveryResult) -> Told {
    match result {
        DeliveryResult::Failed(error) => Told::NotDelivered(error.code.into_owned()),
        DeliveryResult::Lost(_) => Told::Unknown,
        DeliveryResult::Valid => Told::NotDelivered("only checked".to_owned()),
        DeliveryResult::Duplicate(_) => Told::NotDelivered("a duplicate".to_owned()),
        DeliveryResult::Settled(outcome) => match outcome.disposition {
            Disposition::Delivered | Disposition::Replaced(_) => Told::Delivered,
            Disposition::Unknown => Told::Unknown,
            _ => Told::NotDelivered(outcome.code.unwrap_or_default()),
        },
    }
}

/// A file with the authority of the peers, for as long as it is read.
struct Roots(PathBuf);

impl Roots {
    fn write(authority: &str) -> Result<Self, Failure> {
        let name = format!("pushlet-faults-{}-{:016x}.pem", std::process::id(), rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, authority)?;
        Ok(Self(path))
    }
}

impl Drop for Roots {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
