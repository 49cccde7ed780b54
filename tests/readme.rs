//! Every figure of the README's table is in `results/`, and so is the configuration that its command leads to.

use std::path::{Path, PathBuf};

use onward::cli::results_table;

/// Figures of others, and who reports them.
const QUOTED: [(&str, &str); 5] = [
    ("88.65%", "nebuly-ai/optimate, RecurrentFCNetFF, 2×1000, batch 5000, 3 epochs, as it was run for this project"),
    ("1.16%", "Hinton 2022, section 3.2: local receptive fields, 60 epochs"),
    ("1.37%", "Hinton 2022, section 3.2: 4×2000 units, 100 epochs"),
    ("1.47%", "Hinton's program, as loeweX/Forward-Forward reports it"),
    ("48.02%", "nebuly-ai/optimate, 3×2000, batch 5000, 20 epochs for each layer, as it was run for this project"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn table() -> String {
    let entries = std::fs::read_dir(root().join("results")).unwrap();
    let mut runs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    runs.sort();
    assert!(runs.len() >= 4, "{runs:?}");
    results_table::table(&runs, root()).unwrap()
}

/// What stands in a text before `%` and ` bits`, with decimals.
fn figures(text: &str) -> Vec<String> {
    let text = text.replace("%", "% ").replace(" bits", "bits ");
    let ends = |word: &&str| {
        ["%", "bits"]
            .iter()
            .any(|end| word.trim_end_matches(['.', ',', ')', '*']).ends_with(end))
    };
    let words = text
        .split_whitespace()
        .filter(ends)
        .filter(|word| word.contains('.'));
    words
        .map(|word| word.trim_matches(['(', ')', ',', '*']).to_string())
        .collect()
}

#[test]
fn the_table_of_results_is_what_the_command_writes() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme
        .split_once("<!-- onward report: begin -->\n")
        .unwrap();
    let (found, _) = rest.split_once("<!-- onward report: end -->").unwrap();
    assert_eq!(
        found,
        table(),
        "write it anew: onward report results/* --write README.md"
    );
}

#[test]
fn every_figure_in_the_text_is_one_of_the_table() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, results) = readme.split_once("## Results").unwrap();
    let (results, _) = results.split_once("\n## ").unwrap();
    let known = figures(&table());
    let found = figures(results);
    assert!(found.len() > 10 && known.len() > 10, "{found:?} {known:?}");
    for figure in found {
        let is_quoted = QUOTED.iter().any(|(quoted, _)| *quoted == figure);
        assert!(
            is_quoted || known.contains(&figure),
            "{figure} is neither in the table nor quoted"
        );
    }
}

#[test]
fn runs_that_differ_in_their_seed_alone_share_a_line() {
    let line = table()
        .lines()
        .find(|line| line.starts_with("| [mnist-dropout-1]"))
        .map(String::from)
        .unwrap();
    let links = [1, 2, 3]
        .map(|seed| format!("[mnist-dropout-{seed}](results/mnist-dropout-{seed}/summary.json)"));
    // (1.31 + 1.38 + 1.41) / 3 by the readouts that validation prefers, (1.31 + 1.38 + 1.37) / 3 by the head,
    // (1.36 + 1.33 + 1.41) / 3 by the search.
    let result = "1.37% (mean of 1.31%, 1.38%, 1.41%), 1.35% (head), 1.37% (search)";
    let command = "onward train progressive --data mnist --set layer.dropout=0.1 --seed 1";
    assert_eq!(
        line,
        format!(
            "| {} | mnist | 100 | 1, 2, 3 | {result} | `{command}` |",
            links.join(", ")
        )
    );
    let of_one_readout = table()
        .lines()
        .find(|line| line.starts_with("| [aesop-backprop-1]"))
        .map(String::from)
        .unwrap();
    let mean =
        "2.615 bits/char (softmax; mean of 2.595 bits/char, 2.622 bits/char, 2.627 bits/char), 2.180 bits/char (";
    assert!(of_one_readout.contains(mean), "{of_one_readout}");
}

#[test]
fn a_table_goes_between_its_marks_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("README.md");
    std::fs::write(
        &file,
        "before\n<!-- onward report: begin -->\nold\n<!-- onward report: end -->\nafter\n",
    )
    .unwrap();
    results_table::write(&file, "| new |\n").unwrap();
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        written,
        "before\n<!-- onward report: begin -->\n| new |\n<!-- onward report: end -->\nafter\n"
    );
    std::fs::write(&file, "no marks").unwrap();
    let error = results_table::write(&file, "| new |\n")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("README.md") && error.contains("onward report: begin"),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "no marks");
}

#[test]
fn a_command_is_as_short_as_it_can_be_and_leads_to_the_same_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let command = |builder: onward::RunBuilder| {
        std::fs::write(&file, builder.config().unwrap().to_toml()).unwrap();
        results_table::command(&file).unwrap()
    };
    let run = || onward::Run::builder("progressive").seed(3);
    assert_eq!(
        command(run()),
        "onward train progressive --data digits --seed 3"
    );
    let wide = run()
        .data("mnist")
        .set("hidden", vec![20, 30])
        .set("evaluate_every", 5);
    assert_eq!(
        command(wide),
        "onward train progressive --data mnist --set 'hidden=[20,30]' --seed 3"
    );
    assert!(command(run().preset("nebuly"))
        .starts_with("onward train progressive --preset nebuly --data mnist"));
    let other = run().set("goodness", "mean_squares").set("epochs", 2);
    let found = command(other);
    assert!(
        found.contains("--set goodness=mean_squares") && found.ends_with("--epochs 2 --seed 3"),
        "{found}"
    );
}
