//! Compiled code that may be run, and where it comes from.

use std::borrow::Cow;

use wasmtime::Engine;
use wasmtime::component::Component;

use super::{BUILT_IN, PRECOMPILED};

/// What this program compiled, in this process, its child, one before it, or while it was built.
pub(super) struct CompiledArtefact(Cow<'static, [u8]>);

impl CompiledArtefact {
    /// `bytes` must be what our compiler gave us.
    pub(super) fn compiled(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    /// Returns the code that is a part of the program, if there is some for this component of its own. It may be for other
    /// machines than this one.
    pub(super) fn precompiled(component: &[u8]) -> Option<Self> {
        let (name, _) = BUILT_IN.iter().find(|(_, built_in)| *built_in == component)?;
        let (_, code) = PRECOMPILED.iter().find(|(precompiled, _)| precompiled == name)?;
        Some(Self((*code).into()))
    }

    /// Returns the code. When it is loaded, it takes as many bytes of memory.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    #[allow(unsafe_code)]
    pub(super) fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: deserializing is unsafe because the bytes become machine code. A `CompiledArtefact` is made in three
        // places: of what our own compiler gave us, of a file whose tag proves that it was the first, and of what is a
        // part of this program.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::code_config::code_config;
    use super::*;

    #[test]
    fn the_programs_own_code_is_for_its_own_components_and_for_engines_like_its_own() {
        let own = Engine::new(&code_config()).unwrap();
        // Its code would never look whether its time is over.
        let other = Engine::new(code_config().epoch_interruption(false)).unwrap();
        for (name, component) in BUILT_IN {
            let code = CompiledArtefact::precompiled(component);
            assert_eq!(code.is_some(), cfg!(feature = "precompiled"), "{name}");
            assert!(code.iter().all(|code| code.load(&own).is_ok() && code.load(&other).is_err()), "{name}");
            assert!(CompiledArtefact::precompiled(&[component, &b"\0"[..]].concat()).is_none(), "{name}");
        }
    }
}
