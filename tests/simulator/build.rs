//! Some tests read files that the `openssl` command makes; without it they are left out.

use std::process::Command;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(openssl)");
    println!("cargo::rerun-if-changed=build.rs");
    if Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success()) {
        println!("cargo::rustc-cfg=openssl");
    }
}
