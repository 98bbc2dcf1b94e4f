//! Deliveries that outlive their callers, in a fleet: cut into parts, which wait in a queue that all nodes work off.
//!
//! - `record`: what the queue keeps; `state`: which parts this node works on
//! - `accept`: from a request to its parts in the queue
//! - `worker`: takes parts, sends them, and stores what became of them
//! - `view`: what callers see of a delivery
//!
//! Each part has one outcome, which changes by compare-and-set: `begun` by one node, then the results of all its targets.
//! A part that another node had begun is not sent again, except where the service recognises that and the operator
//! allows it: its targets are `unknown`.

mod accept;
mod record;
pub(crate) mod state;
mod view;
mod worker;

pub use accept::PendingDelivery;
pub use record::ResultDetails;
pub(crate) use state::Workers;
pub use view::{DeliveryPage, DeliveryView};
