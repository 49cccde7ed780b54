//! The documents: figures match `results/`, tables are complete, links are valid.

use std::path::{Path, PathBuf};

use onward::cli::results_table;
use onward::plugin::registry;

/// Published figures and their sources.
const QUOTED: [(&str, &str); 19] = [
    (
        "30.93%",
        "Nøkland and Eidnes 2019: predsim 3×3000 on CIFAR-10",
    ),
    ("2.0%", "Dellaferrera and Kreiman 2022: MNIST 98.0%"),
    (
        "10.38%",
        "Przemyslaw11/BeyondBackpropagation, Mono-Forward, 2×1000, 10.16 to 10.38%",
    ),
    (
        "0.62%",
        "Nøkland and Eidnes 2019, predsim, shifts by 2 pixels",
    ),
    (
        "0.64%",
        "Hinton 2022, section 3.3: 4×2000 units, shifts by 2 pixels, 500 epochs",
    ),
    (
        "1.16%",
        "Hinton 2022, section 3.2: local receptive fields, 60 epochs",
    ),
    ("1.31%", "Hinton 2022, section 3.4"),
    (
        "1.37%",
        "Hinton 2022, section 3.2: 4×2000 units, 100 epochs",
    ),
    (
        "1.47%",
        "Hinton's program, as loeweX/Forward-Forward reports it",
    ),
    (
        "10.27%",
        "Przemyslaw11/BeyondBackpropagation, Forward-Forward with AdamW, 4×2000",
    ),
    (
        "48.02%",
        "nebuly-ai/optimate, 3×2000, batch 5000, 20 epochs per layer, run for this project",
    ),
    (
        "8.54%",
        "Nøkland and Eidnes 2019, predsim, Fashion-MNIST, fully connected",
    ),
    (
        "3.60%",
        "Nøkland and Eidnes 2019, predsim, VGG11B, CIFAR-10",
    ),
    (
        "13.78%",
        "Sun 2025, DeeperForward, 17 layers, CIFAR-10 without augmentation",
    ),
    (
        "20.51%",
        "Sun 2025, DeeperForward, four layers, CIFAR-10 without augmentation",
    ),
    (
        "21.89%",
        "Papachristodoulou 2023, CwComp, CIFAR-10 without augmentation",
    ),
    ("19.7%", "Journé 2023, SoftHebb, CIFAR-10"),
    ("1.3%", "Chen 2024, SCFF: MNIST 98.7%"),
    ("19.25%", "Chen 2024, SCFF: CIFAR-10 80.75%"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn table() -> String {
    let entries = std::fs::read_dir(root().join("results")).unwrap();
    let mut runs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    runs.sort();
    assert!(runs.len() >= 4, "{runs:?}");
    results_table::table(&runs, root())
}

/// Decimal numbers before `%` and ` bits` in a text.
fn figures(text: &str) -> Vec<String> {
    // A line may end before the unit.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
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

/// A text without lists in parentheses, such as the results of single seeds.
fn without_lists(text: &str) -> String {
    let mut parts = text.split('(');
    let mut kept = parts.next().unwrap_or_default().to_string();
    for part in parts {
        match part.split_once(')') {
            Some((inside, rest)) if inside.contains(", ") => kept += rest,
            _ => kept += &format!("({part}"),
        }
    }
    kept
}

fn document(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

#[test]
fn the_table_of_results_is_up_to_date() {
    let results = document("RESULTS.md");
    let (_, rest) = results
        .split_once("<!-- onward report: begin -->\n")
        .unwrap();
    let (found, _) = rest.split_once("<!-- onward report: end -->").unwrap();
    let advice = "run: onward report results/* --write RESULTS.md";
    assert_eq!(found, table(), "{advice}");
}

#[test]
fn every_figure_in_the_text_is_in_the_table() {
    let readme = document("README.md");
    let (_, of_readme) = readme.split_once("## Results").unwrap();
    let (of_readme, _) = of_readme.split_once("\n## ").unwrap();
    let results = document("RESULTS.md");
    let (_, notes) = results.split_once("## Notes").unwrap();
    // The figure of several runs is their mean, not the best of them.
    let known = figures(&without_lists(&table()));
    assert!(known.len() > 10, "{known:?}");
    for (name, text, least) in [
        ("README.md", of_readme, 6),
        ("RESULTS.md", notes, 6),
        ("FIDELITY.md", &document("FIDELITY.md"), 6),
        ("guide/training.md", &document("src/guide/training.md"), 2),
    ] {
        let found = figures(text);
        assert!(found.len() >= least, "{name}: {found:?}");
        for figure in found {
            let is_quoted = QUOTED.iter().any(|(quoted, _)| *quoted == figure);
            let is_known = is_quoted || known.contains(&figure);
            assert!(
                is_known,
                "{name}: {figure} is neither in the table nor a published figure"
            );
        }
    }
}

#[test]
fn every_plugin_and_preset_has_a_row_in_the_table_of_fidelity() {
    let text = document("FIDELITY.md");
    let mut seen = 0;
    for kind in registry::KINDS.iter().filter(|kind| **kind != "data") {
        for info in registry::infos(kind).unwrap() {
            let presets = info
                .presets()
                .into_iter()
                .map(|preset| format!("{} {}", info.name, preset.name));
            for name in [info.name.to_string()].into_iter().chain(presets) {
                let row = text
                    .lines()
                    .find(|line| line.starts_with(&format!("| `{name}`")));
                assert!(row.is_some(), "{kind} {name}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 25, "{seen}");
}

#[test]
fn every_link_of_a_document_is_valid() {
    let mut seen = 0;
    for name in [
        "README.md",
        "RESULTS.md",
        "BENCHMARKS.md",
        "FIDELITY.md",
        "CONTRIBUTING.md",
        "UPDATING.md",
        "CHANGELOG.md",
        "plugins/README.md",
        "python/README.md",
        "examples/outside/README.md",
    ] {
        let folder = root().join(name);
        let folder = folder.parent().unwrap();
        let text = document(name);
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let path = link.split('#').next().unwrap();
            if !path.is_empty() && !path.contains("://") {
                assert!(folder.join(path).exists(), "{name}: {link}");
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn every_path_in_the_documents_for_contributors_exists() {
    let mut seen = 0;
    for name in [
        "CONTRIBUTING.md",
        "src/guide/extending.md",
        "src/guide/machines.md",
        "src/guide/training.md",
        "src/guide/understanding.md",
    ] {
        let text = document(name);
        let quoted = text.split('`').skip(1).step_by(2);
        for path in quoted.filter_map(|quoted| quoted.split_whitespace().next()) {
            let folders = ["src/", "plugins/", "tests/"];
            if folders.iter().any(|folder| path.starts_with(folder)) {
                assert!(root().join(path).exists(), "{name}: {path}");
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn the_readme_is_short() {
    let readme = document("README.md");
    let lines = readme.lines().count();
    assert!(lines <= 150, "{lines} lines");
    let extending = readme
        .lines()
        .position(|line| line.starts_with("## Your own rule"));
    assert!(extending.is_some_and(|line| line < 60), "{extending:?}");
}

#[test]
fn runs_that_differ_only_in_the_seed_share_a_line() {
    let line = table()
        .lines()
        .find(|line| line.starts_with("| [mnist-dropout-1]"))
        .map(String::from)
        .unwrap();
    let links = [1, 2, 3]
        .map(|seed| format!("[mnist-dropout-{seed}](results/mnist-dropout-{seed}/summary.json)"));
    // Best readout on the validation part: (1.31 + 1.38 + 1.41) / 3.
    // Head: (1.31 + 1.38 + 1.37) / 3. Search: (1.36 + 1.33 + 1.41) / 3.
    // Deviations: √(Σ (x − mean)² / 2).
    let result = "1.50% ± 0.09% | 1.37% ± 0.05% (1.31%, 1.38%, 1.41%), 1.35% (head), \
                  1.37% (search)";
    let command = "onward train progressive --data mnist --set layer.dropout=0.1 --seed 1";
    assert_eq!(
        line,
        format!(
            "| {} | mnist | contrast | 100 | 1, 2, 3 | {result} | `{command}` |",
            links.join(", ")
        )
    );
    let of_one_readout = table()
        .lines()
        .find(|line| line.starts_with("| [aesop-backprop-1]"))
        .map(String::from)
        .unwrap();
    let mean =
        "2.615 bits/char ± 0.017 (softmax; 2.595 bits/char, 2.622 bits/char, 2.627 bits/char), 2.180 bits/char (";
    assert!(of_one_readout.contains(mean), "{of_one_readout}");
}

#[test]
fn a_table_is_written_only_between_its_marks() {
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
fn a_command_is_minimal_and_gives_the_same_configuration() {
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
    // With patience, evaluations decide when a run ends.
    let patient = command(run().set("patience", 2).set("evaluate_every", 5));
    assert!(patient.contains("evaluate_every=5"), "{patient}");
    assert!(command(run().preset("nebuly"))
        .starts_with("onward train progressive --preset nebuly --data mnist"));
    let other = run().set("goodness", "mean_squares").set("epochs", 2);
    let found = command(other);
    assert!(
        found.contains("--set goodness=mean_squares") && found.ends_with("--epochs 2 --seed 3"),
        "{found}"
    );
}
