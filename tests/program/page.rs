//! `onward page`: one file for a browser.

use crate::*;

#[test]
fn a_page_has_what_there_is_of_every_run() {
    let base = tempfile::tempdir().unwrap();
    let at = |name: &str| base.path().join(name);
    succeeds(&train(&at("one & <only>"), &[]));
    let text = [
        "train",
        "nlp",
        "--quiet",
        "--epochs",
        "2",
        "--set",
        "hidden=[20,20]",
        "--out",
    ];
    succeeds(&[&text[..], &[str(&at("fables"))]].concat());
    std::fs::create_dir(at("empty")).unwrap();
    let out = at("page.html");
    let runs = ["one & <only>", "fables", "empty"].map(|name| str(&at(name)).to_string());
    let arguments = [
        &["page"],
        &runs.each_ref().map(String::as_str)[..],
        &["--out", str(&out)],
    ]
    .concat();
    let output = onward(&arguments);
    let said = crate::text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("empty: is not the folder of a run"), "{said}");
    let page = std::fs::read_to_string(&out).unwrap();
    for part in [
        "<h2>one &amp; &lt;only&gt;</h2>",
        "validation error",
        "loss of each layer",
        "goodness: positive, negative",
        "layer 1: goodness of test views",
        "learning rate of each layer",
        "Written by this run",
        "test error of a probe",
        "label \\ answer",
        "The worst predictions",
        "data:image/png;base64,",
        "onward train nlp",
        "bits/char",
        "hidden = [",
        "no result",
        "Some parts are missing",
    ] {
        assert!(page.contains(part), "{part}");
    }
    // Nothing is loaded from elsewhere, and nothing runs.
    for part in ["http://", "https://", "<script", "<link"] {
        let found = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!found.contains(part), "{part}");
    }
    assert!(page.len() < 2 << 20, "{}", page.len());
    let message = fails(1, &arguments);
    assert!(message.contains("never overwritten"), "{message}");
    let (empty, other) = (at("empty"), at("other.html"));
    let message = fails(2, &["page", str(&empty), "--out", str(&other)]);
    assert!(message.contains("empty: no run there"), "{message}");
    let message = fails(2, &["page", str(base.path()), "--out", str(&other)]);
    assert!(message.contains("has 2 of them: name those"), "{message}");
    assert!(!other.exists());
}

/// No command repeats such a run.
#[test]
fn a_page_says_that_settings_were_changed_on_the_way() {
    let base = tempfile::tempdir().unwrap();
    let (run, page) = (base.path().join("run"), base.path().join("page.html"));
    succeeds(&train(&run, &[]));
    let more = ["--epochs", "3", "--set", "lr=0.002", "--quiet"];
    succeeds(&[&["resume", str(&run)], &more[..]].concat());
    succeeds(&["page", str(&run), "--out", str(&page)]);
    let page = std::fs::read_to_string(&page).unwrap();
    assert!(
        page.contains("Settings were changed on the way (epochs from 2 to 3"),
        "{page}"
    );
    assert!(!page.contains("The command that repeats it:"));
}

#[test]
fn charts_and_pictures_are_written_as_files() {
    let base = tempfile::tempdir().unwrap();
    let at = |name: &str| base.path().join(name);
    succeeds(&train(&at("one"), &[]));
    succeeds(&train(&at("two"), &["--set", "evaluate_training=20"]));
    let (one, two, out) = (at("one"), at("two"), at("plots"));
    let written = succeeds(&["plot", str(&one), "--out", str(&out)]);
    let names = [
        "loss.svg",
        "goodness.svg",
        "goodness-1.svg",
        "confusion.svg",
        "views.png",
    ];
    for name in names {
        assert!(
            written.contains(name) && out.join(name).is_file(),
            "{name}: {written}"
        );
    }
    // Again: what exists is kept.
    let said = fails(1, &["plot", str(&one), "--out", str(&out)]);
    assert!(said.contains("loss.svg exists and is kept"), "{said}");
    assert!(said.contains("no file was written"), "{said}");
    let both = at("both");
    let written = succeeds(&[
        "plot",
        str(&one),
        str(&two),
        "--format",
        "png",
        "--out",
        str(&both),
    ]);
    assert!(!written.contains(".svg"), "{written}");
    let png = std::fs::read(both.join("two").join("goodness-1.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG"));
    let message = fails(2, &["plot", str(&at("missing")), "--out", str(&at("x"))]);
    assert!(message.contains("missing: no run there"), "{message}");
}
