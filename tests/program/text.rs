//! Texts: tokenizers, and what is for text or images alone.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::*;

#[test]
fn a_tokenizer_is_trained_reported_and_never_overwritten() {
    let base = tempfile::tempdir().unwrap();
    let path = |name: &str| base.path().join(name).to_str().unwrap().to_string();
    let text =
        "The fox saw the crow, and the crow saw the fox.\n".repeat(40) + "A zebra, quite unseen.\n";
    std::fs::write(path("a.txt"), &text).unwrap();
    let report = |kind: &[&str], out: &str| -> Value {
        let (corpus, out) = (path("a.txt"), path(out));
        serde_json::from_str(&succeeds(
            &[&["tokenize", &corpus, "--out", &out], kind].concat(),
        ))
        .unwrap()
    };
    let found = report(&["--kind", "char"], "char.json");
    assert_eq!(
        (&found["vocabulary"], &found["train"]["tokens_per_char"]),
        (&Value::from(19), &Value::from(1.0))
    );
    assert!(
        found["held_out"]["unknown"].as_f64().unwrap() > 0.01,
        "{found}"
    );
    // Of many files, training holds out whole ones.
    std::fs::create_dir(path("many")).unwrap();
    for number in 10..35 {
        let first = if number == 34 { "zebra" } else { "crow" };
        let text = format!("A {first}. {}", "The fox saw the crow.\n".repeat(5));
        std::fs::write(path(&format!("many/{number}.txt")), text).unwrap();
    }
    let many = [
        "tokenize",
        &path("many"),
        "--kind",
        "char",
        "--out",
        &path("many.json"),
    ];
    let many: Value = serde_json::from_str(&succeeds(&many)).unwrap();
    assert!(many["held_out"]["unknown"].as_f64() > Some(0.), "{many}");
    let words = report(&["--kind", "word", "--vocab", "4"], "word.json");
    assert_eq!(words["vocabulary"], 4);
    let pieces = report(&["--kind", "bpe", "--vocab", "270"], "bpe.json");
    assert_eq!(
        (&pieces["vocabulary"], &pieces["held_out"]["unknown"]),
        (&Value::from(270), &Value::from(0.0))
    );
    let before = std::fs::read(path("bpe.json")).unwrap();
    std::fs::remove_file(path("bpe.json")).unwrap();
    report(&["--kind", "bpe", "--vocab", "270"], "bpe.json");
    assert_eq!(std::fs::read(path("bpe.json")).unwrap(), before);
    let message = fails(
        1,
        &[
            "tokenize",
            &path("a.txt"),
            "--kind",
            "char",
            "--out",
            &path("bpe.json"),
        ],
    );
    assert!(message.contains("never overwritten"), "{message}");
    assert_eq!(std::fs::read(path("bpe.json")).unwrap(), before);
    let refused = |code: i32, file: &str, more: &[&str], expected: &str| {
        let out = path("new.json");
        let message = fails(
            code,
            &[&["tokenize", &path(file), "--out", &out], more].concat(),
        );
        assert!(
            message.contains(expected) && !Path::new(&out).exists(),
            "{more:?}: {message}"
        );
    };
    refused(2, "a.txt", &["--kind", "chars"], "--kind chars");
    refused(2, "a.txt", &["--kind", "wrod"], "did you mean `word`?");
    let data = format!("text:{}", path("a.txt"));
    let message = fails(
        2,
        &["train", "nlp", "--data", &data, "--set", "tokenizer=wrod"],
    );
    let expected = ["(from --set tokenizer=wrod)", "did you mean `word`?"];
    assert!(
        expected.iter().all(|text| message.contains(text)),
        "{message}"
    );
    // The next command trains on the same files.
    std::fs::write(path("b.txt"), &text).unwrap();
    let (out, files) = (path("both.json"), [path("a.txt"), path("b.txt")]);
    let both = [
        "tokenize", &files[0], &files[1], "--kind", "char", "--out", &out,
    ];
    let said = crate::text(&onward(&both).stderr);
    let more = format!(
        "--data text:{} --set 'data.more=[\"{}\"]'",
        files[0], files[1]
    );
    assert!(said.contains(&more), "{said}");
    let of_characters = ["--kind", "char", "--vocab", "9"];
    refused(
        2,
        "a.txt",
        &of_characters,
        "expected no N, since all characters",
    );
    refused(
        2,
        "a.txt",
        &["--kind", "bpe", "--vocab", "12"],
        "`vocab` = 12 (from --vocab 12): expected N from 256",
    );
    refused(
        2,
        "a.txt",
        &["--kind", "bpe", "--vocab", "-3"],
        "--vocab -3",
    );
    refused(
        2,
        "a.txt",
        &["--kind", "bpe", "--vocab", "5000"],
        "or more text",
    );
    refused(1, "none.txt", &["--kind", "char"], "none.txt");
    std::fs::write(path("latin.txt"), b"caf\xe9").unwrap();
    refused(
        1,
        "latin.txt",
        &["--kind", "char"],
        "latin.txt: is not UTF-8 at byte 3",
    );
}

#[test]
fn text_and_images_are_not_interchangeable() {
    let base = tempfile::tempdir().unwrap();
    let path = |name: &str| base.path().join(name).to_str().unwrap().to_string();
    succeeds(&train(&base.path().join("run"), &[]));
    let message = fails(2, &["generate", &path("run"), "--prompt", "a"]);
    assert!(message.contains("onward predict"), "{message}");
    let new = path("new");
    let concat = [
        "train",
        "progressive",
        "--quiet",
        "--set",
        "sampler=label_concat",
        "--out",
        &new,
    ];
    let refused = |code: i32, data: &str, more: &[&str], expected: &str| {
        let message = fails(code, &[&concat[..], &["--data", data], more].concat());
        assert!(message.contains(expected), "{data} {more:?}: {message}");
    };
    refused(2, "fables", &[], "choose a sampler for text");
    refused(
        2,
        "fables",
        &["--set", "data.tokenizer=chr"],
        "expected char, word",
    );
    refused(
        2,
        "fables",
        &["--set", "data.tokenizer=bpe:100000"],
        "or more text",
    );
    refused(2, "fables", &["--set", "data.window=0"], "at least 1");
    refused(2, "text", &[], "--data text:FILE");
    refused(1, &format!("text:{}", path("none.txt")), &[], "none.txt");
    std::fs::write(path("short.txt"), "A word. ").unwrap();
    let short = format!("text:{}", path("short.txt"));
    refused(2, &short, &[], "no passage of more than 10 tokens");
    refused(2, &short, &["--set", "data.prepare=hinton"], "248 fables");
    std::fs::write(path("bad.json"), "{}").unwrap();
    refused(
        1,
        "fables",
        &["--set", &format!("data.tokenizer={}", path("bad.json"))],
        "bad.json: ",
    );
}

#[test]
fn generate_stops_when_its_output_is_closed() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    let run = run.to_str().unwrap();
    succeeds(&[
        "train",
        "nlp",
        "--quiet",
        "--epochs",
        "1",
        "--set",
        "hidden=[8]",
        "--out",
        run,
    ]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_onward"));
    command.args([
        "generate",
        run,
        "--prompt",
        "The ",
        "--tokens",
        "1000000000",
    ]);
    let mut writer = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    writer
        .stdout
        .take()
        .unwrap()
        .read_exact(&mut [0; 8])
        .unwrap();
    for _ in 0..600 {
        if let Some(status) = writer.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    writer.kill().unwrap();
    panic!("still running a minute after its output was closed");
}

#[test]
fn invalid_text_is_refused_with_its_place() {
    let base = tempfile::tempdir().unwrap();
    for (name, bytes, expected) in [
        ("latin", &b"gr\xfcn"[..], "not UTF-8 at byte 2"),
        ("empty", b" \n", "is empty"),
    ] {
        let file = base.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        for command in [
            &[
                "train",
                "nlp",
                "--data",
                &format!("text:{}", str(&file)),
                "--out",
                str(&base.path().join("run")),
            ][..],
            &[
                "tokenize",
                str(&file),
                "--kind",
                "char",
                "--out",
                str(&base.path().join("tokenizer.json")),
            ],
        ] {
            let message = fails(1, command);
            assert!(
                message.contains(str(&file)) && message.contains(expected),
                "{message}"
            );
        }
    }
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 2);
}

#[test]
fn a_language_model_requires_its_own_tokenizer() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    succeeds(&[
        "train",
        "nlp",
        "--quiet",
        "--epochs",
        "1",
        "--set",
        "hidden=[8]",
        "--out",
        str(&run),
    ]);
    let generate = ["generate", str(&run), "--prompt", "The ", "--tokens", "3"];
    assert!(succeeds(&generate).starts_with("The "));
    let path = run.join("tokenizer.json");
    let own = std::fs::read_to_string(&path).unwrap();
    let other = base.path().join("other.json");
    std::fs::write(base.path().join("text"), "abcdefgh ".repeat(20)).unwrap();
    succeeds(&[
        "tokenize",
        str(&base.path().join("text")),
        "--kind",
        "char",
        "--out",
        str(&other),
    ]);
    std::fs::copy(&other, &path).unwrap();
    let commands: [&[&str]; 3] = [
        &generate,
        &["evaluate", str(&run)],
        &["resume", str(&run), "--epochs", "2"],
    ];
    for command in commands {
        let message = fails(1, command);
        assert!(
            message.contains(str(&path)) && message.contains("put that one back"),
            "{message}"
        );
    }
    std::fs::remove_file(&path).unwrap();
    for command in commands {
        let message = fails(1, command);
        assert!(
            message.contains(str(&path)) && message.contains("is missing"),
            "{message}"
        );
    }
    std::fs::write(&path, own).unwrap();
    succeeds(&generate);
}
