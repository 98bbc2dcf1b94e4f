//! The tests that `host/docs/security.md` names exist.

use std::fs;
use std::path::Path;

/// Where a name may stand for a file, below the workspace.
const ROOTS: &[&str] = &["", "tests/it/tests", "tests/attacks/tests"];

#[test]
fn each_promise_names_tests_that_exist() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let document = fs::read_to_string(workspace.join("host/docs/security.md")).unwrap();
    // Within back quotes.
    let names: Vec<_> = document.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs")).collect();
    assert!(names.len() > 40, "the document is written in another way: {names:?}");
    let exists = |name: &&str| ROOTS.iter().any(|root| workspace.join(root).join(name).is_file());
    let missing: Vec<_> = names.into_iter().filter(|name| !exists(name)).collect();
    assert_eq!(missing, [""; 0]);
}
