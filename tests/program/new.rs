//! `onward new`: the files that it writes, the names that it refuses, and conformance.

use std::path::Path;
use std::process::Command;

use onward::conformance::{self, Outcome};
use onward::export::Table;
use onward::plugin::registry::KINDS;

// Each template is the `src/lib.rs` of a new crate.
#[path = "../../templates/architecture.rs"]
mod architecture;
#[path = "../../templates/data.rs"]
mod data;
#[path = "../../templates/goodness.rs"]
mod goodness;
#[path = "../../templates/layer.rs"]
mod layer;
#[path = "../../templates/sampler.rs"]
mod sampler;

#[test]
fn every_template_conforms() {
    for kind in KINDS {
        let verdict = conformance::of_plugin(kind, "my_plugin");
        verdict.assert_passed();
        let skipped = verdict
            .trials
            .iter()
            .find(|trial| trial.outcome != Outcome::Passed);
        assert!(skipped.is_none(), "{}", skipped.unwrap());
    }
}

/// Runs `onward new` in a folder; returns exit code, stdout and stderr.
fn new_in(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onward"));
    let output = command
        .arg("new")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn a_new_crate_is_complete_and_prints_the_next_steps() {
    let base = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let name = format!("a-{kind}");
        let (code, printed, said) = new_in(base.path(), &[&name, "--kind", kind]);
        assert_eq!(code, Some(0), "{said}");
        let read =
            |file: &str| std::fs::read_to_string(base.path().join(&name).join(file)).unwrap();
        let plugin = format!("a_{kind}");
        let lib = read("src/lib.rs");
        assert!(lib.contains(&format!("\"{plugin}\",")), "{lib}");
        let attempt = lib
            .lines()
            .find_map(|line| line.strip_prefix("//! cargo run --release -- "))
            .unwrap();
        assert!(
            attempt.contains(&plugin)
                && printed.contains(attempt)
                && read("README.md").contains(attempt)
        );
        assert!(printed.contains(&format!("cd {name}\n")), "{printed}");
        for file in ["src/main.rs", "tests/conforms.rs"] {
            assert!(
                read(file).contains(&format!("use {plugin} as _;")),
                "{file}"
            );
        }
        let manifest: Table = read("Cargo.toml").parse().unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some(name.as_str()));
        let path = manifest["dependencies"]["onward"]["path"].as_str().unwrap();
        assert!(
            Path::new(path).join("../templates").is_dir(),
            "{path} is not the source of this program"
        );
        for file in [
            "src/lib.rs",
            "src/main.rs",
            "tests/conforms.rs",
            "README.md",
            "Cargo.toml",
            ".gitignore",
        ] {
            for left in ["my_plugin", "my-plugin", "KIND", "TRY", "VERSION"] {
                assert!(!read(file).contains(left), "{left} is left in {file}");
            }
        }
    }
}

#[test]
fn a_plugin_is_added_to_a_crate_that_exists() {
    let base = tempfile::tempdir().unwrap();
    let at = |file: &str| base.path().join(file);
    let read = |file: &str| std::fs::read_to_string(at(file)).unwrap();
    assert_eq!(new_in(base.path(), &["first"]).0, Some(0));
    let before = read("first/src/lib.rs");
    let add = ["second", "--kind", "layer", "--into", "first"];
    let (code, printed, said) = new_in(base.path(), &add);
    assert_eq!(code, Some(0), "{said}");
    let expected = format!("{}\n\nmod second;\n", before.trim_end());
    assert_eq!(read("first/src/lib.rs"), expected);
    assert!(read("first/src/second.rs").contains("\"second\","));
    for line in [
        "cd first",
        "cargo test --release",
        "train progressive --set layer=second",
    ] {
        assert!(printed.contains(line), "{line} is missing from\n{printed}");
    }
    assert!(!printed.contains("cargo add"), "{printed}");
    let (code, _, said) = new_in(base.path(), &add);
    assert!(
        code == Some(1) && said.contains("second.rs: already exists"),
        "{said}"
    );
    assert_eq!(read("first/src/lib.rs"), expected);
    // A module that is declared, and is not there yet.
    let root = at("first/src/lib.rs");
    std::fs::write(&root, format!("{expected}pub mod third;\n")).unwrap();
    let (code, _, said) = new_in(base.path(), &["third", "--into", "first"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(read("first/src/lib.rs").matches("mod third;").count(), 1);
    std::fs::write(&root, &expected).unwrap();
    std::fs::remove_file(at("first/src/third.rs")).unwrap();
    // Two plugins of a name would end every program of the crate.
    let (code, _, said) = new_in(base.path(), &["first", "--into", "first"]);
    let problem = "lib.rs: registers a plugin `first` already";
    assert!(code == Some(1) && said.contains(problem), "{said}");
    assert!(!at("first/src/first.rs").exists());

    // A program without a library and without onward.
    std::fs::create_dir_all(at("own/src")).unwrap();
    let manifest = "[package]\nname = \"own\"\nversion = \"0.1.0\"\n";
    std::fs::write(at("own/Cargo.toml"), manifest).unwrap();
    let (code, _, said) = new_in(base.path(), &["third", "--into", "own"]);
    assert!(code == Some(1) && said.contains("src/lib.rs"), "{said}");
    std::fs::write(at("own/src/main.rs"), "fn main() {}\n").unwrap();
    let (code, printed, said) = new_in(base.path(), &["third", "--into", "own"]);
    assert!(
        code == Some(0) && printed.contains("cargo add --path "),
        "{said}{printed}"
    );
    assert_eq!(read("own/src/main.rs"), "fn main() {}\n\nmod third;\n");
    assert_eq!(std::fs::read_dir(at("own")).unwrap().count(), 2);
    let (code, _, said) = new_in(base.path(), &["third", "--into", "nowhere"]);
    assert!(code == Some(1) && said.contains("nowhere"), "{said}");
}

#[test]
fn the_readme_shows_the_commands_that_are_printed() {
    let base = tempfile::tempdir().unwrap();
    let (_, printed, _) = new_in(base.path(), &["my-rule"]);
    let readme = include_str!("../../README.md");
    assert!(
        readme.contains("\ncargo run --release -- new my-rule --kind goodness "),
        "the README has another command"
    );
    let commands: Vec<&str> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    assert_eq!(commands.len(), 3, "{printed}");
    for command in &commands[..2] {
        assert!(
            readme.contains(&format!("\n{command}\n")),
            "{command} is not in the README"
        );
    }
}

#[test]
fn nothing_is_overwritten_and_usage_errors_write_nothing() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("taken")).unwrap();
    let (code, _, said) = new_in(base.path(), &["taken"]);
    assert!(
        code == Some(1) && said.contains("taken") && said.contains("never overwritten"),
        "{code:?} {said}"
    );
    assert_eq!(
        std::fs::read_dir(base.path().join("taken"))
            .unwrap()
            .count(),
        0
    );
    std::fs::remove_dir(base.path().join("taken")).unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["2nd"], "a letter, then letters"),
        (&["../up"], "a letter, then letters"),
        (&["match"], "reserved"),
        (&["onward"], "reserved"),
        (&["lib"], "reserved"),
        (&["main"], "reserved"),
        (
            &["sum-squares"],
            "the package onward already has a goodness `sum_squares`",
        ),
        (&["rule", "--kind", "goodnes"], "goodness"),
        (&["rule", "--path", "."], "plugins/Cargo.toml"),
        (&[], "<NAME>"),
    ];
    for (arguments, expected) in cases {
        let (code, _, said) = new_in(base.path(), arguments);
        assert!(
            code == Some(2) && said.contains(expected),
            "{arguments:?}: {code:?} {said}"
        );
        assert!(!said.contains("panicked"), "{said}");
    }
    assert_eq!(
        std::fs::read_dir(base.path()).unwrap().count(),
        0,
        "a usage error leaves files behind"
    );
    // A name may contain the name in the template.
    assert_eq!(new_in(base.path(), &["my_plugin_two"]).0, Some(0));
    let code = std::fs::read_to_string(base.path().join("my_plugin_two/src/main.rs")).unwrap();
    assert!(
        code.contains("use my_plugin_two as _;") && !code.contains("two_two"),
        "{code}"
    );
    // Another kind may use the same name.
    assert_eq!(
        new_in(base.path(), &["sum-squares", "--kind", "layer"]).0,
        Some(0)
    );
}
