//! What the crates that this one is built from ask of whoever uses it: their licences, and their compilers.

use std::process::Command;

use serde_json::Value;

/// Licences that ask for no more than to be named; the MPL asks for changes of its own files besides.
const ALLOWED: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// All crates of the lock file; those of this platform alone, if the others are not at hand.
fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let verbose = Command::new("rustc")
        .arg("-vV")
        .output()
        .expect("the compiler can be started")
        .stdout;
    let verbose = String::from_utf8(verbose).unwrap();
    let host = verbose
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("a compiler has a host");
    let metadata = [&[][..], &["--filter-platform", host]]
        .into_iter()
        .find_map(|platform| {
            let mut command = Command::new(&cargo);
            command
                .args(["metadata", "--format-version", "1", "--locked", "--offline"])
                .args(platform);
            let output = command
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .output()
                .expect("cargo can be started");
            output.status.success().then_some(output.stdout)
        });
    let metadata: Value =
        serde_json::from_slice(&metadata.expect("cargo knows the crates")).unwrap();
    let packages = metadata["packages"].as_array().unwrap().clone();
    assert!(packages.len() > 100, "only {} crates", packages.len());
    packages
}

fn called(package: &Value) -> String {
    format!(
        "{} {}",
        package["name"].as_str().unwrap(),
        package["version"].as_str().unwrap()
    )
}

/// Whether an SPDX expression can be met by licences that are allowed: `OR` binds less than `AND`.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    any(&mut spaced.split_whitespace().peekable())
}

type Words<'a, 'b> = &'a mut std::iter::Peekable<std::str::SplitWhitespace<'b>>;

fn any(words: Words<'_, '_>) -> bool {
    let mut found = all(words);
    while words.next_if_eq(&"OR").is_some() {
        found |= all(words);
    }
    found
}

fn all(words: Words<'_, '_>) -> bool {
    let mut found = one(words);
    while words.next_if_eq(&"AND").is_some() {
        found &= one(words);
    }
    found
}

fn one(words: Words<'_, '_>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let found = any(words);
        return words.next() == Some(")") && found;
    }
    let found = words
        .next()
        .is_some_and(|licence| ALLOWED.contains(&licence));
    // An exception only permits more.
    if words.next_if_eq(&"WITH").is_some() {
        words.next();
    }
    found
}

#[test]
fn every_crate_has_a_licence_that_is_allowed() {
    let refused = |package: &&Value| !package["license"].as_str().is_some_and(is_allowed);
    let refused: Vec<String> = packages()
        .iter()
        .filter(refused)
        .map(|p| format!("{}: {}", called(p), p["license"]))
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn an_expression_is_read_as_spdx_has_it() {
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0-only OR MIT", true),
        ("MIT AND GPL-3.0-only", false),
        ("GPL-3.0-only AND MIT OR ISC", true),
        ("MIT AND (GPL-3.0-only OR ISC)", true),
        ("Apache-2.0 WITH LLVM-exception OR GPL-3.0-only", true),
        ("(GPL-3.0-only OR LGPL-3.0-only) AND MIT", false),
    ] {
        assert_eq!(is_allowed(expression), expected, "{expression}");
    }
}

/// What the manifests promise cannot be less than what a dependency asks for.
#[test]
fn no_crate_needs_a_newer_compiler_than_is_promised() {
    let number = |version: &str| -> Vec<u32> {
        version
            .split('.')
            .map(|part| part.parse().unwrap())
            .collect()
    };
    let packages = packages();
    let ours = packages
        .iter()
        .find(|package| package["name"] == "onward")
        .unwrap()["rust_version"]
        .as_str()
        .unwrap();
    let ours = [number(ours), vec![0]].concat();
    let newer = |package: &&Value| {
        package["rust_version"]
            .as_str()
            .is_some_and(|version| number(version) > ours)
    };
    let newer: Vec<String> = packages
        .iter()
        .filter(newer)
        .map(|p| format!("{} needs {}", called(p), p["rust_version"]))
        .collect();
    assert!(
        newer.is_empty(),
        "rust-version says {ours:?}, but {}",
        newer.join(", ")
    );
}
