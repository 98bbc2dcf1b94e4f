//! From the bytes of a component to a provider, by the shortest way: loaded already, compiled already, or
//! compiled now.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use wasmtime::component::Component;

use super::artefacts::{Artefact, Artefacts};
use super::compiler::Compiler;
use super::load::{check, digest, invalid};
use super::{GuestLog, LoadError, Provider, Sandbox, Trust};
use crate::error::Error;

/// Loads components. What is alive is not loaded twice, whoever uploaded it: instances are per tenant.
pub struct Loader {
    sandbox: Arc<Sandbox>,
    compiler: Compiler,
    artefacts: Option<Artefacts>,
    alive: Mutex<HashMap<String, Weak<Provider>>>,
}

impl Loader {
    pub fn new(sandbox: Arc<Sandbox>, compiler: Compiler) -> Self {
        Self { sandbox, compiler, artefacts: None, alive: Mutex::default() }
    }

    /// Keeps what is compiled in a folder of at most `most` bytes. `key`: what proves that it is ours; else
    /// one is kept beside it.
    pub fn keep_artefacts(
        &mut self,
        directory: &Path,
        key: Option<&[u8; 32]>,
        most: usize,
    ) -> Result<(), Error> {
        let opened = Artefacts::open(directory, key, most, &self.sandbox.engine).map_err(Error::internal)?;
        self.artefacts = Some(opened);
        Ok(())
    }

    pub fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }

    /// Most bytes of a component.
    pub fn largest_component(&self) -> usize {
        self.sandbox.limits.component
    }

    /// Checks a component, compiles it if need be, and asks it for its manifest. What it prints meanwhile,
    /// and the frames of a trap, go to `log`. May take long: not for an async thread.
    pub fn load(&self, bytes: &[u8], trust: Trust, log: &Arc<GuestLog>) -> Result<Arc<Provider>, LoadError> {
        let interfaces = check(&self.sandbox, bytes)?;
        let digest = digest(bytes);
        if let Some(provider) = self.alive(&digest).filter(|provider| provider.trust() == trust) {
            return Ok(provider);
        }
        let component = self.component(bytes, &digest, trust)?;
        let provider = Provider::of(&self.sandbox, &component, interfaces, digest.clone(), trust, log)?;
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.retain(|_, provider| provider.strong_count() > 0);
        alive.insert(digest, Arc::downgrade(&provider));
        Ok(provider)
    }

    fn alive(&self, digest: &str) -> Option<Arc<Provider>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).get(digest).and_then(Weak::upgrade)
    }

    fn component(&self, bytes: &[u8], digest: &str, trust: Trust) -> Result<Component, LoadError> {
        let engine = &self.sandbox.engine;
        let kept = self.artefacts.as_ref().and_then(|artefacts| artefacts.get(digest));
        if let Some(component) = kept.and_then(|artefact| artefact.load(engine).ok()) {
            return Ok(component);
        }
        let artefact = match trust {
            Trust::BuiltIn => engine.precompile_component(bytes).map_err(invalid)?,
            Trust::Uploaded => self.compiler.compile(bytes)?,
        };
        let artefact = Artefact::compiled(artefact);
        let component = artefact.load(engine).map_err(invalid)?;
        if let Some(Err(error)) = self.artefacts.as_ref().map(|artefacts| artefacts.put(digest, &artefact)) {
            tracing::warn!(%error, "a compiled component could not be kept");
        }
        Ok(component)
    }
}
