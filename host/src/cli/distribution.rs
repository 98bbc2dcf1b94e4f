//! `pushlet provider push` and `pull`: components on their way to a server, or to and from an OCI registry.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, value_parser};

use pushlet_client::oci::{self, Artifact, Reference, SigningKey};
use pushlet_client::{confirm_hosts, upload};

use pushlet_settings::Problem;

const PUSH_EXAMPLES: &str = "\
Without a reference the component goes to the server, under the name in its manifest. A registry on this machine is
asked over HTTP unless --ca is given, any other over HTTPS.

Examples:
  pushlet provider push acme.wasm --server https://push.example --api-key KEY
  pushlet provider push acme.wasm oci://registry.example/team/acme:1.2.0 --sign cosign.key";

const PULL_EXAMPLES: &str = "\
What has another digest, or no signature of the key, is refused before anything of it is loaded. A tag can be moved by
others, so one without a digest needs --key.

Examples:
  pushlet provider pull oci://registry.example/team/acme@sha256:DIGEST -o acme.wasm
  pushlet provider pull oci://registry.example/team/acme:1.2.0 --key cosign.pub -o acme.wasm";

/// Returns true if this is one of the subcommands of `provider` here.
pub fn is_one(matches: &ArgMatches) -> bool {
    matches.subcommand_name().is_some_and(|name| matches!(name, "push" | "pull"))
}

/// Returns the subcommands of `provider` that move components.
pub fn commands() -> [Command; 2] {
    let path = |name: &'static str, value: &'static str| {
        Arg::new(name).value_name(value).value_parser(value_parser!(PathBuf))
    };
    let reference = Arg::new("reference").value_name("REFERENCE");
    let push = Command::new("push")
        .about("Upload a component to the server, or push it to an OCI registry")
        .arg(path("file", "FILE").required(true).help("A WebAssembly component"))
        .arg(reference.clone().help("Where in a registry: oci://HOST[:PORT]/REPOSITORY:TAG"))
        .arg(
            path("sign", "FILE")
                .long("sign")
                .help_heading("Registry")
                .requires("reference")
                .help("The private key that signs it (PEM, PKCS#8, P-256); cosign.key"),
        )
        .args(oci::arguments())
        .arg(confirm_hosts().conflicts_with("reference"))
        .after_help(PUSH_EXAMPLES);
    let pull = Command::new("pull")
        .about("Pull a component from an OCI registry, and verify it")
        .arg(reference.required(true).help("oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]"))
        .arg(path("output", "FILE").long("output").short('o').required(true).help("Where it is written"))
        .arg(oci::key_argument())
        .args(oci::arguments())
        .after_help(PULL_EXAMPLES);
    [push, pull]
}

/// Runs the subcommand of `provider`.
pub async fn run(matches: &ArgMatches) -> Result<(), Problem> {
    match matches.subcommand() {
        Some(("push", inner)) => push(inner).await,
        Some((_, inner)) => pull(inner).await,
        None => Ok(()),
    }
}

async fn push(matches: &ArgMatches) -> Result<(), Problem> {
    let file = path(matches, "file");
    let wrong = |why: &dyn std::fmt::Display| Problem::new(format_args!("{}: {why}", file.display()));
    let component = std::fs::read(file).map_err(|error| wrong(&error))?;
    let Some(reference) = matches.get_one::<String>("reference") else {
        let name = super::kit::load(&component)?.manifest().name.clone();
        return upload(matches, &name, component).await;
    };
    let reference = Reference::parse(reference)?;
    let key = matches.get_one::<PathBuf>("sign").map(|path| SigningKey::read(path)).transpose()?;
    let (imports, exports) = pushlet_sandbox::interface_names(&component).map_err(|error| wrong(&error))?;
    let artifact = Artifact { component, imports, exports };
    let pinned = oci::push(&reference, artifact, key.as_ref(), &oci::access(matches)).await?;
    oci::print(matches, &pinned, key.is_some())
}

async fn pull(matches: &ArgMatches) -> Result<(), Problem> {
    let reference = Reference::parse(matches.get_one::<String>("reference").map_or("", String::as_str))?;
    let key = oci::key(matches)?;
    let (component, pinned) = oci::pull(&reference, key.as_ref(), &oci::access(matches)).await?;
    let file = path(matches, "output");
    std::fs::write(file, component)
        .map_err(|error| Problem::new(format_args!("{}: {error}", file.display())))?;
    oci::print(matches, &pinned, key.is_some())
}

fn path<'a>(matches: &'a ArgMatches, name: &str) -> &'a Path {
    matches.get_one::<PathBuf>(name).map_or(Path::new(""), PathBuf::as_path)
}
