//! Tables, caches and pools that all tenants share.
