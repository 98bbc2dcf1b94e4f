//! The tests that `host/docs/security.md` names exist.

use std::fs;
use std::path::Path;

/// The first folder of a name in the document, and the folder below the workspace that it stands for.
const FOLDERS: &[(&str, &str)] =
    &[("integration/", "tests/integration/tests/"), ("attacks/", "tests/attacks/tests/")];

#[test]
fn each_promise_names_tests_that_exist() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let document = fs::read_to_string(workspace.join("host/docs/security.md")).unwrap();
    // Within back quotes.
    let names: Vec<_> = document.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs")).collect();
    assert!(names.len() > 40, "the document is written in another way: {names:?}");
    let path = |name: &str| {
        let short = FOLDERS.iter().find_map(|(short, folder)| Some((folder, name.strip_prefix(short)?)));
        short.map_or_else(|| name.to_owned(), |(folder, rest)| format!("{folder}{rest}"))
    };
    let exists = |name: &&str| workspace.join(path(name)).is_file();
    let missing: Vec<_> = names.into_iter().filter(|name| !exists(name)).collect();
    assert_eq!(missing, [""; 0]);
}
