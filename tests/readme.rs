//! Every figure of the README's table is in `results/`, and so is the configuration that its command leads to.

use std::path::{Path, PathBuf};

use onward::report;
use onward_plugins as _;

#[test]
fn the_table_of_results_is_what_the_command_writes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(root.join("results")).unwrap();
    let mut runs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    runs.sort();
    assert!(runs.len() >= 4, "{runs:?}");
    let table = report::table(&runs, root).unwrap();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let found: Vec<&str> = readme.lines().filter(|line| line.contains("](results/")).collect();
    let expected: Vec<&str> = table.lines().filter(|line| line.contains("](results/")).collect();
    assert_eq!(found, expected, "write it anew: onward report results/* --write README.md");
}

#[test]
fn a_table_goes_between_its_marks_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("README.md");
    std::fs::write(&file, "before\n<!-- onward report: begin -->\nold\n<!-- onward report: end -->\nafter\n").unwrap();
    report::write(&file, "| new |\n").unwrap();
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(written, "before\n<!-- onward report: begin -->\n| new |\n<!-- onward report: end -->\nafter\n");
    std::fs::write(&file, "no marks").unwrap();
    let error = report::write(&file, "| new |\n").unwrap_err().to_string();
    assert!(error.contains("README.md") && error.contains("onward report: begin"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "no marks");
}

#[test]
fn a_command_is_as_short_as_it_can_be_and_leads_to_the_same_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let command = |builder: onward::RunBuilder| {
        std::fs::write(&file, builder.config().unwrap().to_toml()).unwrap();
        report::command(&file).unwrap()
    };
    let run = || onward::Run::builder("progressive").seed(3);
    assert_eq!(command(run()), "onward train progressive --data digits --seed 3");
    let wide = run().data("mnist").set("hidden", vec![20, 30]).set("evaluate_every", 5);
    assert_eq!(command(wide), "onward train progressive --data mnist --set hidden=[20,30] --seed 3");
    assert!(command(run().preset("nebuly")).starts_with("onward train progressive --preset nebuly --data mnist"));
    let other = run().set("goodness", "mean_squares").set("epochs", 2);
    let found = command(other);
    assert!(found.contains("--set goodness=mean_squares") && found.ends_with("--epochs 2 --seed 3"), "{found}");
}
