//! The bindings that are committed are what `wit-bindgen` makes of the contract. Its macro would make them in each
//! build, for a minute of processor time.
//!
//! `PUSHLET_WRITE_BINDINGS=1 cargo test -p pushlet-bindings` writes them, after a change of the contract or of
//! wit-bindgen's version. This crate does not use the SDK, so that it compiles while the SDK does not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::{env, fs};

use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_core::{Files, WorldGenerator as _};
use wit_bindgen_rust::{Opts, WithOption};

/// One file of bindings.
struct Bindings {
    /// The Rust file, from the workspace's folder.
    file: &'static str,
    /// The file or folder of the WIT, from there as well.
    wit: &'static str,
    /// A world of the WIT, or one in WIT that is made of its interfaces.
    world: &'static str,
    /// The module of the SDK that it is, and its macro that exports the world.
    exported: Option<(&'static str, &'static str)>,
    /// An interface of which another module has the types, and that module.
    shared: Option<(&'static str, &'static str)>,
}

/// The module of the SDK that has the contract's types, as `with` wants it.
const TYPES: Option<(&str, &str)> =
    Some(("pushlet:provider/types@1.0.0", "crate::bindings::pushlet::provider::types"));

const ALL: [Bindings; 8] = [
    Bindings {
        file: "providers/sdk/src/bindings.rs",
        wit: "wit",
        world: "package pushlet:sdk; world described { export pushlet:provider/manifest@1.0.0; }",
        exported: Some(("pushlet_provider::bindings", "export_manifest")),
        shared: None,
    },
    Bindings {
        file: "providers/sdk/src/codec_bindings.rs",
        wit: "wit",
        world: "package pushlet:sdk; world coded { export pushlet:provider/codec@1.0.0; }",
        exported: Some(("pushlet_provider::codec_bindings", "export_codec")),
        shared: TYPES,
    },
    Bindings {
        file: "providers/sdk/src/manager_bindings.rs",
        wit: "wit",
        world: "http-manager",
        exported: Some(("pushlet_provider::manager_bindings", "export_http_manager")),
        shared: TYPES,
    },
    Bindings {
        file: "providers/sdk/src/stream_bindings.rs",
        wit: "wit",
        world: "package pushlet:sdk; world spoken { export pushlet:provider/session@1.0.0; }",
        exported: Some(("pushlet_provider::stream_bindings", "export_session")),
        shared: TYPES,
    },
    imports("tests/guests/imports/dice.rs", "tests/guests/imports/dice.wit"),
    imports("tests/guests/imports/handles.rs", "tests/guests/imports/handles.wit"),
    imports("tests/guests/imports/http.rs", "tests/guests/imports/http.wit"),
    imports("tests/guests/imports/sockets.rs", "tests/guests/imports/sockets.wit"),
];

/// What a hostile guest imports. The WIT file has one world.
const fn imports(file: &'static str, wit: &'static str) -> Bindings {
    Bindings { file, wit, world: "guest", exported: None, shared: None }
}

#[test]
fn the_committed_bindings_are_those_of_the_contract() {
    for bindings in &ALL {
        let file = workspace().join(bindings.file);
        let generated = generate(bindings);
        if env::var_os("PUSHLET_WRITE_BINDINGS").is_some() {
            fs::write(&file, &generated).unwrap();
        }
        let committed = fs::read_to_string(&file).unwrap_or_default();
        assert!(committed == generated, "{} is old: PUSHLET_WRITE_BINDINGS=1 writes it", bindings.file);
    }
}

fn generate(bindings: &Bindings) -> String {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(workspace().join(bindings.wit)).expect(bindings.wit);
    let (package, name) = match bindings.world {
        own if own.contains('{') => (resolve.push_str("world.wit", own).expect(own), None),
        name => (package, Some(name)),
    };
    let world = resolve.select_world(&[package], name).expect(bindings.file);
    let mut options = Opts { format: true, generate_all: bindings.shared.is_none(), ..Opts::default() };
    if let Some((module, export)) = bindings.exported {
        options.pub_export_macro = true;
        options.default_bindings_module = Some(module.to_owned());
        options.export_macro_name = Some(export.to_owned());
        options.additional_derive_attributes = vec!["PartialEq".to_owned()];
    }
    if let Some((interface, module)) = bindings.shared {
        options.with.push((interface.to_owned(), WithOption::Path(module.to_owned())));
    }
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files).expect(bindings.file);
    let (_, source) = files.iter().next().expect("a file");
    String::from_utf8(source.to_vec()).unwrap()
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
