//! What authors of providers use: the check of a component, its pushes while it is written, and its way to a registry.

mod checks;
mod developing;
mod distribution;
mod mistakes;
mod oci_registry;
mod replaying;
