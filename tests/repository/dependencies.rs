//! The dependencies: licences, compiler versions, and crates with a single version.

use std::process::Command;

use onward::export::Table;
use serde_json::Value;
use spdx::{Expression, ParseMode};

/// All crates of the workspace; `None` if some are missing and cannot be downloaded.
///
/// Crates of other features and platforms are included if they were downloaded.
fn packages() -> Option<Vec<Value>> {
    let run = |command: &mut Command| command.output().expect("start the command");
    let verbose = run(Command::new("rustc").arg("-vV")).stdout;
    let verbose = String::from_utf8(verbose).unwrap();
    let host = verbose.lines().find_map(|line| line.strip_prefix("host: "));
    let host = ["--filter-platform", host.expect("rustc prints its host")];
    let attempts: [&[&str]; 5] = [
        &["--offline", "--all-features"],
        &["--offline", "--all-features", host[0], host[1]],
        &["--offline"],
        &["--offline", host[0], host[1]],
        // Downloads what is missing: the crates of members that `cargo test` does not build.
        &host,
    ];
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let metadata = attempts.into_iter().find_map(|options| {
        let mut command = Command::new(&cargo);
        command.args(["metadata", "--format-version", "1", "--locked"]);
        let output = run(command
            .args(options)
            .current_dir(env!("CARGO_MANIFEST_DIR")));
        println!("cargo metadata {}: {}", options.join(" "), output.status);
        output.status.success().then_some(output.stdout)
    });
    let Some(metadata) = metadata else {
        println!("skipped: some crates are not there and cannot be downloaded");
        return None;
    };
    let metadata: Value = serde_json::from_slice(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap().clone();
    assert!(packages.len() > 100, "only {} crates", packages.len());
    Some(packages)
}

fn called(package: &Value) -> String {
    format!(
        "{} {}",
        package["name"].as_str().unwrap(),
        package["version"].as_str().unwrap()
    )
}

/// The rules for dependencies, `deny.toml`.
fn rules() -> Table {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml");
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

/// A crate that depends on the core alone must get no plugin.
#[test]
fn the_core_does_not_depend_on_the_plugins() {
    let Some(packages) = packages() else { return };
    let core = packages
        .iter()
        .find(|package| package["name"] == "onward-core");
    let dependencies = core.unwrap()["dependencies"].as_array().unwrap();
    let plugins = dependencies
        .iter()
        .filter(|crate_| crate_["name"] == "onward");
    let kinds: Vec<_> = plugins.map(|crate_| &crate_["kind"]).collect();
    assert_eq!(kinds, ["dev"]);
}

#[test]
fn every_crate_has_an_allowed_licence() {
    let rules = rules();
    let allowed = rules["licenses"]["allow"].as_array().unwrap();
    let is_allowed = |expression: &str| {
        let parsed = Expression::parse_mode(expression, ParseMode::LAX).unwrap();
        parsed.evaluate(|asked| {
            let asked = asked.license.to_string();
            allowed
                .iter()
                .any(|licence| licence.as_str() == Some(&asked))
        })
    };
    assert!(is_allowed("GPL-3.0-only OR MIT") && !is_allowed("GPL-3.0-only AND MIT"));
    let excluded = rules["graph"]["exclude"].as_array().unwrap();
    let refused = |package: &&Value| {
        let is_excluded = excluded
            .iter()
            .any(|name| name.as_str() == package["name"].as_str());
        !is_excluded && !package["license"].as_str().is_some_and(is_allowed)
    };
    let Some(packages) = packages() else { return };
    let refused = packages.iter().filter(refused);
    let refused: Vec<_> = refused
        .map(|p| format!("{}: {}", called(p), p["license"]))
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

/// A second version of gemm would silently disable AVX-512 in candle's matrix products.
#[test]
fn crates_shared_with_candle_have_a_single_version() {
    let rules = rules();
    let once = rules["bans"]["deny"].as_array().unwrap();
    assert!(once.len() >= 6, "{once:?}");
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");
    let lock: Table = std::fs::read_to_string(lock).unwrap().parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    for name in once.iter().map(|rule| &rule["name"]) {
        let versions = packages.iter().filter(|package| package["name"] == *name);
        let versions: Vec<_> = versions.map(|package| &package["version"]).collect();
        assert_eq!(versions.len(), 1, "{name}: {versions:?}");
    }
}

/// `rust-version` must be at least that of every dependency.
#[test]
fn no_crate_needs_a_newer_compiler_than_rust_version() {
    let number = |version: &str| -> Vec<u32> {
        version
            .split('.')
            .map(|part| part.parse().unwrap())
            .collect()
    };
    let Some(packages) = packages() else { return };
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
        "rust-version is {ours:?}, but {}",
        newer.join(", ")
    );
}
