//! The files of a provider: which are watched, how they are built, and what the build makes.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use clap::ArgMatches;
use tokio::time::sleep;

use super::display::say;
use pushlet_settings::Problem;

/// Folders of tools, and what they make.
const SKIPPED: [&str; 9] =
    ["target", "node_modules", ".git", ".venv", "venv", "bindings", "__pycache__", "dist", "build"];
/// Files that are looked at.
const MOST_FILES: usize = 20_000;
/// Where builds put components.
const BUILT: [&str; 3] = ["", "target/wasm32-wasip2/release", "target/wasm32-wasip2/debug"];

/// What is under development.
pub(super) struct Project {
    /// The folder that is watched; None: a file alone.
    folder: Option<PathBuf>,
    build: Option<String>,
    component: Option<PathBuf>,
    answers: PathBuf,
    seen: Option<Seen>,
    /// It was looked at, and built if need be.
    has_begun: bool,
}

/// What differs from the last time.
pub(super) struct Changes {
    pub sources: bool,
    pub answers: bool,
}

/// Digests of names, sizes and times.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    sources: u64,
    answers: u64,
}

impl Project {
    pub fn new(matches: &ArgMatches) -> Result<Self, Problem> {
        let given = |name: &str| matches.get_one::<PathBuf>(name).cloned();
        let path = given("path").unwrap_or_default();
        let about = std::fs::metadata(&path)
            .map_err(|error| Problem::new(format_args!("{}: {error}", path.display())))?;
        let build = matches.get_one::<String>("build").cloned();
        let (folder, build, component, place) = if about.is_dir() {
            let build = build.or_else(|| usual_build(&path)).ok_or_else(|| {
                Problem::new(format_args!(
                    "{}: there is no Cargo.toml, package.json or app.py; say with --build how it is built",
                    path.display()
                ))
            })?;
            (Some(path.clone()), Some(build), given("component"), path)
        } else {
            if build.is_some() || given("component").is_some() {
                return Err(Problem::new("--build and --component are for a folder"));
            }
            let place = path.parent().map(Path::to_owned).unwrap_or_default();
            (None, None, Some(path), place)
        };
        let answers = given("answers").unwrap_or_else(|| place.join("answers.json"));
        Ok(Self { folder, build, component, answers, seen: None, has_begun: false })
    }

    pub fn answers(&self) -> &Path {
        &self.answers
    }

    /// Returns what has changed since this was called last. The first time, everything has.
    pub fn changes(&mut self) -> Changes {
        let now = self.look();
        let before = self.seen.replace(now);
        Changes {
            sources: before.is_none_or(|before| before.sources != now.sources),
            answers: before.is_none_or(|before| before.answers != now.answers),
        }
    }

    /// Waits until something has changed, and then until nothing changes for as long as `look`: a tool may still write.
    pub async fn wait_for_change(&self, look: Duration) {
        while Some(self.look()) == self.seen {
            sleep(look).await;
        }
        let mut last = self.look();
        loop {
            sleep(look).await;
            let now = self.look();
            if now == last {
                return;
            }
            last = now;
        }
    }

    /// Builds it, if it is a folder. At first only what is not built yet. Returns the component and where it is.
    pub async fn build(&mut self) -> Result<(PathBuf, Vec<u8>), Problem> {
        let is_built = !std::mem::replace(&mut self.has_begun, true) && self.is_built();
        if let (Some(folder), Some(build), false) = (&self.folder, &self.build, is_built) {
            say(&format!("\n$ {build}\n"))?;
            let mut shell = Command::new("sh");
            shell
                .arg("-c")
                .arg(build)
                .current_dir(folder)
                .env("PATH", with_venv(folder))
                .stdin(Stdio::null());
            let built = tokio::task::spawn_blocking(move || shell.status()).await.map_err(Problem::new)?;
            let status = built.map_err(|error| Problem::new(format_args!("sh: {error}")))?;
            if !status.success() {
                return Err(Problem::new(format_args!("the build failed ({status})")));
            }
        }
        let file = match &self.component {
            Some(file) => file.clone(),
            None => self
                .newest()
                .ok_or_else(|| Problem::new("the build made no .wasm; name it with --component"))?,
        };
        let component = std::fs::read(&file)
            .map_err(|error| Problem::new(format_args!("{}: {error}", file.display())))?;
        Ok((file, component))
    }

    /// Returns true if the component is newer than all its sources. A second build by tools that draw random numbers would
    /// be another component, which must be compiled anew.
    fn is_built(&self) -> bool {
        let file = self.component.clone().or_else(|| self.newest());
        let Some(built) = file.as_deref().and_then(modified) else { return false };
        let (mut newest, mut left) = (None, MOST_FILES);
        if let Some(folder) = &self.folder {
            self.each_source(folder, &mut left, &mut |file| newest = newest.max(modified(file)));
        }
        newest.is_none_or(|newest| newest <= built)
    }

    /// Returns the component that was written last.
    fn newest(&self) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?;
        let shared = std::env::var_os("CARGO_TARGET_DIR")
            .map(|target| PathBuf::from(target).join("wasm32-wasip2/release"));
        let folders = BUILT.iter().map(|built| folder.join(built)).chain(shared);
        let files = folders.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
        let components = files.map(|entry| entry.path()).filter(|path| is_component(path));
        components.max_by_key(|path| modified(path))
    }

    fn look(&self) -> Seen {
        let mut sources = DefaultHasher::new();
        match &self.folder {
            Some(folder) => {
                let mut left = MOST_FILES;
                self.each_source(folder, &mut left, &mut |file| look_at(file, &mut sources));
            }
            None => self.component.iter().for_each(|file| look_at(file, &mut sources)),
        }
        let mut answers = DefaultHasher::new();
        look_at(&self.answers, &mut answers);
        Seen { sources: sources.finish(), answers: answers.finish() }
    }

    fn each_source(&self, folder: &Path, left: &mut usize, look: &mut dyn FnMut(&Path)) {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).take(*left).collect();
        *left = left.saturating_sub(paths.len());
        paths.sort();
        for path in paths {
            let is_skipped = SKIPPED.iter().any(|name| path.file_name() == Some(name.as_ref()));
            // A link may lead anywhere, and in a circle.
            let is_folder = std::fs::symlink_metadata(&path).is_ok_and(|about| about.is_dir());
            match is_folder {
                _ if is_skipped || is_component(&path) || path == self.answers => {}
                true => self.each_source(&path, left, look),
                false => look(&path),
            }
        }
    }
}

fn usual_build(folder: &Path) -> Option<String> {
    let has = |name: &str| folder.join(name).is_file();
    if has("Cargo.toml") {
        return Some("cargo build --release --target wasm32-wasip2".to_owned());
    }
    if has("package.json") {
        return Some("npm run build".to_owned());
    }
    // The names of the templates.
    has("app.py").then(|| {
        "componentize-py -d wit -w http-provider componentize app -o \"$(basename \"$PWD\").wasm\"".to_owned()
    })
}

/// Returns the search path, with the folder's own Python first.
fn with_venv(folder: &Path) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = folder.join(".venv/bin");
    let Ok(own) = own.canonicalize() else { return path };
    std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&path))).unwrap_or(path)
}

fn is_component(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wasm")
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|about| about.modified()).ok()
}

fn look_at(file: &Path, hasher: &mut DefaultHasher) {
    let about = std::fs::metadata(file).ok();
    (file, about.as_ref().map(std::fs::Metadata::len), about.and_then(|about| about.modified().ok()))
        .hash(hasher);
}
