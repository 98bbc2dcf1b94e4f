//! The types and bindings of `wit/provider.wit`, generated.
wasmtime::component::bindgen!({ path: "../wit", world: "http-provider", additional_derives: [PartialEq] });
