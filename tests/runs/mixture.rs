//! Counts beside a network: the readouts `mixture` and `adaptive`.

use onward::flow::examples::Split;
use onward::run::generate::{generate, Generator, Sampling};
use onward::run::score_text::{TextScorer, TokenScore};
use onward::{Result, Run, RunBuilder};

use super::text::{bits, shallow};

#[test]
fn counts_are_mixed_into_the_prediction() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut run = shallow("fables").out(&path).build()?;
    let summary = run.fit(&mut ())?;
    assert_eq!(summary.test.readout, "adaptive");
    for part in [summary.validation.as_ref().unwrap(), &summary.test] {
        for (mixed, counts) in [
            ("mixture", "kneser_ney_6"),
            ("adaptive", "kneser_ney_6_adaptive"),
        ] {
            let mixed = bits(&part.readouts, mixed);
            assert!(mixed < bits(&part.readouts, "softmax"));
            assert!(mixed < bits(&part.baselines, counts));
        }
    }
    // The loaded run predicts the same, with its data and from its model alone.
    let loaded = Run::load(&path)?;
    assert_eq!(
        loaded.evaluate(Split::Test, Some("adaptive"))?,
        summary.test
    );
    drop(loaded);
    drop(run);
    let [model, tokenizer] =
        ["model.safetensors", "tokenizer.json"].map(|name| std::fs::read(path.join(name)).unwrap());
    let alone = Run::from_bytes(&model, Some(&tokenizer))?;
    assert_eq!(alone.preferred_readout(), "adaptive");
    let text = |run: &Run| generate(run, "The fox", 40, Sampling::default());
    assert_eq!(text(&alone)?, text(&Run::load(&path)?)?);
    // It is a part of the run: a lost model comes back with the same bytes.
    std::fs::remove_file(path.join("model.safetensors")).unwrap();
    Run::open(&path)?.resume()?.fit(&mut ())?;
    assert!(std::fs::read(path.join("model.safetensors")).unwrap() == model);
    // A model that was written again from the state has no counts, so it does not answer.
    std::fs::remove_file(path.join("model.safetensors")).unwrap();
    let error = Run::load(&path).err().expect("refused").to_string();
    assert!(
        error.contains("`onward resume` counts them again"),
        "{error}"
    );
    assert!(!Run::open(&path)?.resume()?.is_finished());
    Ok(())
}

#[test]
fn counts_without_rare_n_grams_need_less_space() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("crows.txt");
    let line = |i: usize| format!("{} crows sat on {} logs.\n", i * i, i % 7);
    std::fs::write(&text, (0..300).map(line).collect::<String>()).unwrap();
    let trained = |least: i32| -> Result<(f64, u64)> {
        let path = folder.path().join(format!("least-{least}"));
        let run = shallow(&format!("text:{}", text.display())).set("data.ngram_least", least);
        let summary = run.out(&path).build()?.fit(&mut ())?;
        let adaptive = Some("adaptive");
        let score = Run::load(&path)?.evaluate(Split::Test, adaptive)?;
        assert_eq!(
            score.readouts["adaptive"],
            summary.test.readouts["adaptive"]
        );
        let model = std::fs::metadata(path.join("model.safetensors")).unwrap();
        Ok((bits(&summary.test.baselines, "kneser_ney_6"), model.len()))
    };
    let ((all, whole), (frequent, small)) = (trained(1)?, trained(3)?);
    assert!(small < whole, "{small} and {whole} bytes");
    assert!(
        frequent > all && frequent < all + 0.5,
        "{frequent} and {all} bits"
    );
    Ok(())
}

/// Two sentences with a name that the training part does not have, and a token's bits.
#[test]
fn a_new_name_is_known_after_its_first_occurrence() -> Result<()> {
    let mut run = shallow("fables").build()?;
    run.fit(&mut ())?;
    let text = "The fox met Quizzaboo at the river. The fox met Quizzaboo at the river.";
    let mut scorer = TextScorer::new(&run)?;
    assert_eq!(scorer.readout(), "adaptive");
    let tokens = scorer.tokens(&text.into())?;
    let sum = |tokens: &[TokenScore]| tokens.iter().map(|token| token.bits).sum::<f64>();
    // Of the whole text, the first window is not predicted.
    let score = scorer.score(&text.into())?.readouts["adaptive"]
        .bits
        .unwrap();
    let bits = score.bits_per_token * tokens.len() as f64;
    assert!((bits - sum(&tokens)).abs() < 1e-3, "{bits}");
    let (name, window) = ("izzaboo", 10);
    let mut places = text.match_indices(name).map(|(place, _)| place - window);
    let mut bits = || {
        let place = places.next().unwrap();
        sum(&tokens[place..place + name.len()])
    };
    let (first, second) = (bits(), bits());
    assert!(second < 0.5 * first, "{second} and {first} bits");
    // A prompt is read as well.
    let next = |readout| -> Result<String> {
        let prompt = "The fox met Quizzaboo at the river. The fox met Qu";
        let generator = Generator::new(&run, prompt, Some(readout), Sampling::default())?;
        Ok(generator.next_tokens(1)?.remove(0).0)
    };
    assert_eq!(next("adaptive")?, "i");
    Ok(())
}

#[test]
fn a_mixture_that_cannot_be_learned_is_refused() {
    let refused = |builder: RunBuilder, expected: &str| {
        for readout in ["mixture", "adaptive"] {
            let error = builder.clone().set("readout", readout).build();
            let error = error.err().expect("refused").to_string();
            assert!(
                error.contains(expected) && error.contains("readout"),
                "{error}"
            );
        }
    };
    let text = || shallow("fables");
    refused(text().set("validate", false), "a validation part");
    refused(text().set("mixture", false), "`mixture = true`");
    refused(
        Run::builder("progressive").data("digits"),
        "only text is counted",
    );
}
