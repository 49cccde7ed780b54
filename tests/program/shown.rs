//! What the program prints about itself: plugins, settings, guides, words.

use serde_json::Value;

use crate::*;

#[test]
fn guides_and_words_are_printed() {
    let listed = succeeds(&["guide"]);
    for guide in listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
    {
        let printed = succeeds(&["guide", guide]);
        assert!(printed.lines().count() > 20, "{printed}");
        // Neither Markdown nor the lines of its tests.
        let left_over = ["```", "](", "[`", "\n# ", "Ok::<"];
        assert!(
            left_over.iter().all(|text| !printed.contains(text)),
            "{printed}"
        );
    }
    assert!(
        listed.contains("training") && listed.contains("glossary"),
        "{listed}"
    );
    let message = fails(2, &["list", "lr", "--json"]);
    assert!(message.contains("onward list --json"), "{message}");
    let message = fails(2, &["guide", "trainign"]);
    assert!(message.contains("did you mean `training`?"), "{message}");
    assert_eq!(
        succeeds(&["list", "glossary"]),
        succeeds(&["guide", "glossary"])
    );
    let words: Value = serde_json::from_str(&succeeds(&["list", "glossary", "--json"])).unwrap();
    assert!(words["perplexity"].is_string(), "{words}");
    assert_eq!(
        succeeds(&["show", "Perplexity"]),
        succeeds(&["show", "perplexity"])
    );
    assert_eq!(succeeds(&["show", "Dense"]), succeeds(&["show", "dense"]));
}

#[test]
fn plugins_are_listed_and_shown() {
    let listed: Value = serde_json::from_str(&succeeds(&["list", "--json"])).unwrap();
    let names = |kind: &str| -> Vec<&str> {
        listed[kind]
            .as_array()
            .unwrap()
            .iter()
            .map(|plugin| plugin["name"].as_str().unwrap())
            .collect()
    };
    assert!(names("architecture").contains(&"progressive"));
    let goodness = names("goodness");
    assert!(
        goodness.contains(&"mean_squares") && goodness.is_sorted(),
        "{goodness:?}"
    );
    assert!(names("data").contains(&"fashion-mnist"));
    let samplers = succeeds(&["list", "samplers"]);
    assert!(
        samplers.contains("label_overlay") && !samplers.contains("dense"),
        "{samplers}"
    );
    for command in ["show", "list"] {
        let shown = succeeds(&[command, "loss"]);
        let expected = ["loss, a setting of", "progressive", "symmetric: "];
        assert!(expected.iter().all(|text| shown.contains(text)), "{shown}");
    }
    let shown = succeeds(&["show", "progressive"]);
    for part in [
        "hidden = [1000, 1000, 1000]",
        "preset nebuly",
        "arXiv 2212.13345",
        "batch (or batch_size)",
        "Allowed:",
    ] {
        assert!(shown.contains(part), "{part} is missing from\n{shown}");
    }
    // The documentation, its table in columns.
    let shown = succeeds(&["show", "sum_squares"]);
    assert!(shown.contains("g[b] = Σᵢ a[b, i]²"), "{shown}");
    assert!(shown.contains("activity  `(B, …)`  non-linear"), "{shown}");
    // Of a setting of layers, no setting of an architecture with the same key.
    let shown = succeeds(&["show", "layer.dropout"]);
    assert!(shown.contains("setting of dense"), "{shown}");
    assert!(!shown.contains("progressive"), "{shown}");
    let shown = succeeds(&["show", "dense.dropout"]);
    assert!(shown.contains("setting of dense\n"), "{shown}");
    fails(2, &["show", "frozen.dropout"]);
    let shown = succeeds(&["show", "digits"]);
    assert_eq!(shown.matches("preset digits").count(), 1, "{shown}");
}
