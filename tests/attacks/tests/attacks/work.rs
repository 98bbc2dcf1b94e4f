//! Work and memory of the host that no tenant pays for.
