//! Files of one crate that import each other in a circle.
//!
//! An import is a `use` or a path in code; a name that another file re-exports counts as an import of the file that
//! defines it, so a module that only re-exports ties nothing together. Imports of the crate root are not counted: it
//! declares the modules, and holds what all of them share.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::structure::{root, rust_files};

/// Circles that still exist, one a line: it may only shrink.
const KNOWN: &str = include_str!("../known_circles.txt");
const PARENTS: &[&str] = &["host", "providers"];
/// Re-exports of re-exports, at most.
const LONGEST_CHAIN: usize = 8;

type Words = Vec<String>;

/// A production file of a crate.
struct Module {
    file: String,
    /// Its path in the crate: empty for `lib.rs`.
    path: Words,
    /// The names that its `use` items bind, and the paths that they are bound to.
    names: BTreeMap<String, Words>,
    /// The paths that its code uses, as absolute ones of this crate or of another.
    imports: Vec<Words>,
}

#[test]
fn files_of_a_crate_form_no_circle() {
    let known: BTreeSet<String> =
        KNOWN.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    let mut found = BTreeSet::new();
    for source in sources() {
        let modules = modules(&source);
        for circle in circles(&modules) {
            let files = circle.join(" ");
            assert!(known.contains(&files), "a circle of files: {files}\n{}", arrows(&modules, &circle));
            found.insert(files);
        }
    }
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(gone.is_empty(), "known_circles.txt lists circles that no longer exist as they stand: {gone:#?}");
}

#[test]
fn a_circle_is_found() {
    let file = |file: &str, path: &[&str], source: &str| {
        let path = path.iter().map(|word| (*word).to_owned()).collect();
        module(file.to_owned(), path, source)
    };
    let modules = [
        file("lib.rs", &[], "mod a; mod b; mod c; pub use b::Second; // crate::a"),
        file("a.rs", &["a"], "use crate::{Second, c::{self, Third as Other}}; const X: &str = \"crate::b\";"),
        file("b.rs", &["b"], "struct Second; fn f() { super::a::g(); }"),
        file("c.rs", &["c"], "#[cfg(test)] mod tests { use crate::a::X; }\n/* crate::a */ pub struct Third;"),
    ];
    assert_eq!(circles(&modules), [["a.rs", "b.rs"]]);
}

/// The source folders of the crates.
fn sources() -> Vec<String> {
    let mut found = vec!["host/src".to_owned()];
    for parent in PARENTS {
        for entry in fs::read_dir(root().join(parent)).unwrap() {
            let path = entry.unwrap().path();
            if path.join("Cargo.toml").is_file() {
                found.push(format!("{parent}/{}/src", path.file_name().unwrap().to_string_lossy()));
            }
        }
    }
    found
}

fn modules(source: &str) -> Vec<Module> {
    let files = rust_files(source).into_iter().map(|file| file.to_string_lossy().into_owned());
    let production = files.filter(|file| {
        !file.ends_with("tests.rs") && !file.contains("/tests/") && !file.ends_with("/src/main.rs")
    });
    production
        .map(|file| {
            let text = fs::read_to_string(root().join(&file)).unwrap();
            let path = module_path(Path::new(&file).strip_prefix(source).unwrap());
            module(file, path, &text)
        })
        .collect()
}

fn module_path(file: &Path) -> Words {
    let mut words: Words =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    words.pop_if(|last| last == "mod" || last == "lib");
    words
}

fn module(file: String, path: Words, source: &str) -> Module {
    let tokens = without_tests(tokens(source));
    let mut module = Module { file, path, names: BTreeMap::new(), imports: Vec::new() };
    let (mut children, mut uses, mut code) = (BTreeSet::new(), Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "use" => {
                let end = at + tokens[at..].iter().position(|token| token == ";").unwrap_or(1);
                let public = at > 0 && ["pub", ")"].contains(&tokens[at - 1].as_str());
                tree(&tokens[at + 1..end], &[], &mut |path, name| uses.push((path, name, public)));
                at = end;
            }
            "mod" => _ = children.insert(tokens[at + 1].clone()),
            _ => code.push(tokens[at].clone()),
        }
        at += 1;
    }
    for (path, name, public) in uses {
        let path = absolute(&module.path, &children, &path);
        // A public re-export that this file does not use itself ties it to nothing.
        if !public || code.contains(&name) {
            module.imports.push(path.clone());
        }
        if name != "*" {
            module.names.insert(name, path);
        }
    }
    let paths = paths(&code).into_iter().map(|path| absolute(&module.path, &children, &path));
    module.imports.extend(paths);
    module
}

/// Identifiers and punctuation, without comments, strings and attributes' contents that are strings.
fn tokens(source: &str) -> Words {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = source;
    let mut tokens = Vec::new();
    while let Some(first) = rest.chars().next() {
        let end = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let close = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 2;
            rest[start..].find(&close).map_or(rest.len(), |end| start + end + close.len())
        } else if first == '"' {
            string(rest)
        } else if first == '\'' {
            character(rest)
        } else if word(first) {
            let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
            tokens.push(rest[..end].to_owned());
            end
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[end..];
    }
    tokens
}

/// The number of `#` of a raw string that begins here.
fn raw_string(text: &str) -> Option<usize> {
    let text = text.strip_prefix('r')?;
    let hashes = text.len() - text.trim_start_matches('#').len();
    text[hashes..].starts_with('"').then_some(hashes)
}

/// The length of a string literal.
fn string(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

/// The length of a character literal, or of the quote of a lifetime.
fn character(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match (letters.next(), letters.next()) {
        (Some((_, '\\')), _) => text[3..].find('\'').map_or(1, |end| end + 4),
        (_, Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// Leaves out every item with `#[cfg(test)]`.
fn without_tests(tokens: Words) -> Words {
    let marker = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if tokens[at..].iter().take(marker.len()).eq(marker.iter()) {
            at += item(&tokens[at..]);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// How many tokens an item has: to its semicolon, or to its closing brace.
fn item(tokens: &[String]) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "{" => depth += 1,
            "}" if depth <= 1 => return at + 1,
            "}" => depth -= 1,
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// Calls `found` with the path and the bound name of each leaf of a `use` tree.
fn tree(tokens: &[String], before: &[String], found: &mut impl FnMut(Words, String)) {
    let mut path = before.to_vec();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "{" => {
                let inside = &tokens[at + 1..tokens.len() - 1];
                split(inside).into_iter().for_each(|member| tree(member, &path, found));
                return;
            }
            "as" => return found(path, tokens[at + 1].clone()),
            "*" => return found(path, "*".to_owned()),
            "::" => {}
            "self" if !path.is_empty() => {}
            word => path.push(word.to_owned()),
        }
        at += 1;
    }
    if let Some(last) = path.last().cloned() {
        found(path, last);
    }
}

/// The members of a group, which are separated by commas outside of groups.
fn split(tokens: &[String]) -> Vec<&[String]> {
    let mut depth = 0;
    let members = tokens.split(|token| {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        token == "," && depth == 0
    });
    members.filter(|member| !member.is_empty()).collect()
}

/// The paths of code with at least two segments.
fn paths(code: &[String]) -> Vec<Words> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let mut path = vec![code[at].clone()];
        while code.get(at + 1).is_some_and(|token| token == "::") && at + 2 < code.len() {
            path.push(code[at + 2].clone());
            at += 2;
        }
        if path.len() > 1 {
            found.push(path);
        }
        at += 1;
    }
    found
}

/// A path that begins with `crate` if it is of this crate.
fn absolute(module: &[String], children: &BTreeSet<String>, path: &[String]) -> Words {
    let within = |module: &[String], rest: &[String]| [&["crate".to_owned()], module, rest].concat();
    let supers = path.iter().take_while(|word| *word == "super").count();
    match path.first().map(String::as_str) {
        Some("self") => within(module, &path[1..]),
        Some("super") => within(&module[..module.len().saturating_sub(supers)], &path[supers..]),
        Some(first) if children.contains(first) => within(module, path),
        _ => path.to_vec(),
    }
}

/// The groups of files in which each can be reached from each other by imports.
fn circles(modules: &[Module]) -> Vec<Vec<&str>> {
    let mut reached: Vec<BTreeSet<usize>> = (0..modules.len()).map(|from| imported(modules, from)).collect();
    for through in 0..modules.len() {
        let further = reached[through].clone();
        for from in reached.iter_mut().filter(|from| from.contains(&through)) {
            from.extend(&further);
        }
    }
    let mut circles = BTreeSet::new();
    for start in 0..modules.len() {
        let circle = reached[start].iter().filter(|other| reached[**other].contains(&start));
        let mut files: Vec<&str> = circle.map(|member| modules[*member].file.as_str()).collect();
        files.sort_unstable();
        if !files.is_empty() {
            circles.insert(files);
        }
    }
    circles.into_iter().collect()
}

/// The imports among the files of a circle, one a line.
fn arrows(modules: &[Module], circle: &[&str]) -> String {
    let mut lines = String::new();
    for (from, module) in modules.iter().enumerate().filter(|(_, from)| circle.contains(&from.file.as_str()))
    {
        let to = imported(modules, from).into_iter().map(|to| modules[to].file.as_str());
        to.filter(|to| circle.contains(to)).for_each(|to| lines += &format!("  {} -> {to}\n", module.file));
    }
    lines
}

/// The modules that a module imports, without itself and the crate root.
fn imported(modules: &[Module], from: usize) -> BTreeSet<usize> {
    let imports = modules[from].imports.iter();
    let defined = imports.filter_map(|path| defined_in(modules, path, LONGEST_CHAIN));
    defined.filter(|to| *to != from && !modules[*to].path.is_empty()).collect()
}

/// The module whose file defines what an absolute path names.
fn defined_in(modules: &[Module], path: &[String], chain: usize) -> Option<usize> {
    let find = |path: &[String]| modules.iter().position(|module| module.path == path);
    let (first, path) = path.split_first()?;
    if first != "crate" || chain == 0 {
        return None;
    }
    let mut depth = 0;
    while depth < path.len() && find(&path[..depth + 1]).is_some() {
        depth += 1;
    }
    let here = find(&path[..depth])?;
    let Some(name) = path.get(depth) else { return Some(here) };
    let onward = |target: &Words| [target.as_slice(), &path[depth + 1..]].concat();
    match modules[here].names.get(name) {
        // Bound to what another crate defines: no import of a file.
        Some(target) => defined_in(modules, &onward(target), chain - 1),
        None => Some(here),
    }
}
