//! Its service has no second world for development.

use pushlet_guests::*;
use pushlet_provider::Environment;

pub struct ProductionOnly;

impl Guest for ProductionOnly {
    fn describe() -> ProviderManifest {
        let mut manifest = manifest();
        manifest.endpoints.retain(|endpoint| endpoint.environment == Environment::Production);
        manifest.environments = vec![Environment::Production];
        manifest
    }
}

export!(ProductionOnly);
