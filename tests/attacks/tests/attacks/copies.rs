//! Input that is copied once per target.
