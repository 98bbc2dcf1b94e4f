//! Computes for ever when it is asked for its manifest.

use pushlet_guests::*;

pub struct EndlessManifest;

impl Guest for EndlessManifest {
    fn describe() -> ProviderManifest {
        spin()
    }
}

export!(EndlessManifest);
