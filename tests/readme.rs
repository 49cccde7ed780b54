//! Every figure of the README is in `results/`, and says which configuration repeats it.

use std::path::Path;

use serde_json::Value;

#[test]
fn every_result_in_the_readme_has_its_summary_and_configuration() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let mut checked = 0;
    for row in readme.lines().filter(|line| line.starts_with('|') && line.contains("](results/")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [run, epochs, seed, errors, command] = cells[..] else { panic!("a row of results has five cells: {row}") };
        let name = run.trim_start_matches('[').split(']').next().unwrap();
        let folder = root.join("results").join(name);
        assert!(run.contains(&format!("(results/{name}/summary.json)")), "{row}");
        let summary = std::fs::read_to_string(folder.join("summary.json")).unwrap();
        let summary: Value = serde_json::from_str(&summary).unwrap();
        let config = std::fs::read_to_string(folder.join("config.toml")).unwrap();
        let config: onward::export::Table = config.parse().unwrap();
        assert_eq!(summary["epochs"].to_string(), epochs, "{name}");
        assert_eq!(summary["seed"].to_string(), seed, "{name}");
        assert_eq!(config["seed"].as_integer().unwrap().to_string(), seed, "{name}");
        assert!(command.contains("onward train") && command.contains(&format!("--seed {seed}")), "{row}");
        let preferred = summary["test"]["readout"].as_str().unwrap();
        assert!(errors.split(',').next().unwrap().contains(preferred), "{name}: first what validation preferred");
        for error in errors.split(',') {
            let (figure, readout) = error.trim().split_once("% (").expect("an error and its readout");
            let found = &summary["test"]["readouts"][readout.trim_end_matches(')')]["error"];
            assert_eq!(format!("{:.2}", 100. * found.as_f64().unwrap()), figure, "{name}");
            checked += 1;
        }
    }
    assert!(checked > 0, "the README has no results");
}
