//! Its manifest is larger than any result may be.

use pushlet_guests::*;

pub struct HugeManifest;

impl Guest for HugeManifest {
    fn describe() -> ProviderManifest {
        ProviderManifest { description: "x".repeat(4 << 20), ..manifest() }
    }
}

export!(HugeManifest);
