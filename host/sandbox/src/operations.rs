//! The calls of one tenant into a component's interface `management`.

use wasmtime::Store;

use super::check::{self, Exchange, Message};
use super::error::ProviderError;
use super::guest::GuestState;
use super::instances::{Instances, LoadedComponent};
use super::management::{CollectionItems, items};
use pushlet_model::contract::management::{self, Operation, Response};
use pushlet_model::contract::{Application, Context, Outcome, Rejection};

impl Instances {
    /// Returns the request of an operation, checked. `Ok(Err(…))`: the provider rejects it.
    pub fn encode_operation(
        &self,
        context: &Context,
        application: &Application,
        collection: &str,
        operation: &Operation,
    ) -> Result<Result<(Message, Exchange), Rejection>, ProviderError> {
        self.recorded("management.encode", &application.id, || {
            let request = self.manage(context, 1, async |management, store| {
                management.call_encode(store, context, application, collection, operation).await
            })?;
            match request {
                Ok(request) => {
                    self.checked(check::request(self.manifest(), application.environment, request)).map(Ok)
                }
                Err(rejection) => Ok(Err(check::rejection(rejection))),
            }
        })
    }

    /// Returns the service's items, checked. `Ok(Err(…))`: the operation failed.
    pub fn decode_operation(
        &self,
        context: &Context,
        application: &Application,
        collection: &str,
        operation: &Operation,
        response: &Response,
    ) -> Result<Result<CollectionItems, Outcome>, ProviderError> {
        // An item is about as large in the answer as in the response.
        let size = response.body.len() / 1024 + 1;
        self.recorded("management.decode", &application.id, || {
            let answer = self.manage(context, size, async |management, store| {
                management.call_decode(store, context, application, collection, operation, response).await
            })?;
            match answer {
                Ok(found) => self.checked(items(operation, found)).map(Ok),
                Err(mut outcome) => self.checked(check::outcome(&mut outcome)).map(|()| Err(outcome)),
            }
        })
    }

    /// Calls the guest's interface `management`, in an instance of its own.
    fn manage<T>(
        &self,
        context: &Context,
        targets: usize,
        call: impl AsyncFnOnce(&management::Guest, &mut Store<GuestState>) -> wasmtime::Result<T>,
    ) -> Result<T, ProviderError> {
        let LoadedComponent { sandbox, manager, .. } = &*self.loaded;
        let manager = manager.as_ref().ok_or(ProviderError::Refused("management".into()))?;
        self.guarded(|| {
            let bounds = self.bounds();
            let mut instance = manager.instantiate(sandbox, &bounds, &self.log)?;
            instance.guest().observe_context(context);
            sandbox.call(&mut instance, &bounds, targets, call)
        })
    }
}
