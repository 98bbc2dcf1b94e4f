//! Its manifest names an endpoint without TLS.

use pushlet_guests::*;

pub struct UnsoundManifest;

impl Guest for UnsoundManifest {
    fn describe() -> ProviderManifest {
        let mut manifest = manifest();
        manifest.endpoints[0].origin = Origin::Fixed("http://127.0.0.1:22".into());
        manifest
    }
}

export!(UnsoundManifest);
