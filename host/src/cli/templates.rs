//! `pushlet provider new`: a small whole provider in a folder of its own, of `providers/templates`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command, value_parser};

use pushlet_model::contract::WIT;
use pushlet_model::text::is_name;
use pushlet_settings::Problem;

/// A file of a template: its path, and its text, in which the provider is called `acme`.
type TemplateFile = (&'static str, &'static str);

/// The templates, by language.
const TEMPLATES: [(&str, &[TemplateFile]); 3] = [
    (
        "rust",
        &[
            ("Cargo.toml", include_str!("../../../providers/templates/rust/Cargo.toml")),
            ("src/lib.rs", include_str!("../../../providers/templates/rust/src/lib.rs")),
            (".gitignore", include_str!("../../../providers/templates/rust/gitignore")),
            ("README.md", include_str!("../../../providers/templates/rust/README.md")),
        ],
    ),
    (
        "js",
        &[
            ("package.json", include_str!("../../../providers/templates/javascript/package.json")),
            ("provider.js", include_str!("../../../providers/templates/javascript/provider.js")),
            ("provider.test.js", include_str!("../../../providers/templates/javascript/provider.test.js")),
            ("component.js", include_str!("../../../providers/templates/javascript/component.js")),
            ("console.js", include_str!("../../../providers/templates/javascript/console.js")),
            ("text.js", include_str!("../../../providers/templates/javascript/text.js")),
            ("wit/javascript.wit", include_str!("../../../providers/templates/javascript/javascript.wit")),
            ("wit/deps/cli.wit", include_str!("../../../providers/templates/javascript/cli.wit")),
            ("wit/deps/io.wit", include_str!("../../../providers/templates/javascript/io.wit")),
            (".gitignore", include_str!("../../../providers/templates/javascript/gitignore")),
            ("README.md", include_str!("../../../providers/templates/javascript/README.md")),
        ],
    ),
    (
        "python",
        &[
            ("requirements.txt", include_str!("../../../providers/templates/python/requirements.txt")),
            ("app.py", include_str!("../../../providers/templates/python/app.py")),
            ("test_app.py", include_str!("../../../providers/templates/python/test_app.py")),
            (".gitignore", include_str!("../../../providers/templates/python/gitignore")),
            ("README.md", include_str!("../../../providers/templates/python/README.md")),
        ],
    ),
];

/// The longest name of a provider.
const LONGEST_NAME: usize = 32;

const EXAMPLE: &str = "\
The folder has the contract, a provider that is whole, its tests, and a README with the commands that build it.

Example:
  pushlet provider new acme --lang js";

pub fn command() -> Command {
    let languages = TEMPLATES.map(|(language, _)| language);
    Command::new("new")
        .about("Write a small whole provider into a new folder, to begin with")
        .arg(
            Arg::new("name").value_name("NAME").required(true).help("The provider's name, which is its type"),
        )
        .arg(
            Arg::new("lang")
                .long("lang")
                .value_name("LANGUAGE")
                .required(true)
                .value_parser(PossibleValuesParser::new(languages))
                .help("The language"),
        )
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("The new folder; its name is the provider's by default"),
        )
        .after_help(EXAMPLE)
}

/// Writes the folder, and returns what to tell its author.
pub fn write(matches: &ArgMatches) -> Result<String, Problem> {
    let text = |name: &str| matches.get_one::<String>(name).map_or("", String::as_str);
    let (name, language) = (text("name"), text("lang"));
    let begins_well = name.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    if !is_name(name, LONGEST_NAME) || !begins_well {
        return Err(Problem::new(format_args!(
            "{name}: a provider's name is 1 to {LONGEST_NAME} of a-z, 0-9, - and _, and begins with a letter"
        )));
    }
    let folder = matches.get_one::<PathBuf>("dir").cloned().unwrap_or_else(|| PathBuf::from(name));
    if folder.exists() {
        return Err(Problem::new(format_args!("{}: it is there already", folder.display())));
    }
    let template = TEMPLATES.iter().find(|(known, _)| *known == language).map(|(_, files)| *files);
    for (path, content) in template.unwrap_or_default() {
        put(&folder.join(path), &named(content, name))?;
    }
    put(&folder.join("wit/provider.wit"), WIT)?;
    let place = folder.display();
    Ok(format!(
        "{place} has a provider in {language}. Its README.md says how to build, check and upload it.\n"
    ))
}

/// Gives the template's provider its name. Cargo writes `_` for `-` in the name of what it builds.
fn named(content: &str, name: &str) -> String {
    let mut letters = name.chars();
    let title: String =
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect();
    let built = format!("release/{}.wasm", name.replace('-', "_"));
    content.replace("release/acme.wasm", &built).replace("acme", name).replace("Acme", &title)
}

fn put(path: &Path, content: &str) -> Result<(), Problem> {
    let wrong = |error| Problem::new(format_args!("{}: {error}", path.display()));
    path.parent().map_or(Ok(()), fs::create_dir_all).map_err(wrong)?;
    fs::write(path, content).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_gets_its_name_everywhere() {
        assert_eq!(named("name = \"acme\" # Acme", "my-chat"), "name = \"my-chat\" # My-chat");
        assert_eq!(named("release/acme.wasm acme.wasm", "my-chat"), "release/my_chat.wasm my-chat.wasm");
    }
}
