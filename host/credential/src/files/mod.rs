//! The files in which secrets are uploaded, and what is read from them.

pub(crate) mod certificate_choice;
mod der;
pub(crate) mod identity;
pub(crate) mod key;
mod legacy_pem;
mod pbe;
pub(crate) mod pem;
pub(crate) mod pkcs12;
pub(crate) mod private_key;
pub(crate) mod service_account;
mod x509;
