//! Webhooks: tenants hear of dead and replaced tokens, refused or expiring credentials, quarantines and limits, by the
//! [Standard Webhooks](https://www.standardwebhooks.com) specification.
//!
//! - `events`: what happened, gathered for a second
//! - `queue`: the messages of one webhook that have not arrived, and its attempts
//! - `hooks`: which webhooks there are in memory; `operations`: how a tenant changes them
//! - `watch`: makes messages of events; `worker`: sends them, again and again

mod events;
mod hooks;
mod operations;
mod queue;
mod watch;
mod worker;

pub use hooks::WebhookView;
pub(crate) use hooks::{TenantWebhooks, Webhooks};
pub use operations::{ChangedWebhook, WebhookRequest};
pub use queue::WebhookAttempt;
