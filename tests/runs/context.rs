//! What a language model is told of the text before its window.

use std::path::Path;

use onward::data::text::Passage;
use onward::flow::examples::Split;
use onward::flow::random::{below, stream};
use onward::run::generate::{Generator, Sampling};
use onward::run::score_text::TextScorer;
use onward::{Result, Run, RunBuilder};

/// A network of one layer on windows of three characters of this text.
fn on(folder: &Path, text: &str) -> RunBuilder {
    let path = folder.join("text.txt");
    std::fs::write(&path, text).unwrap();
    Run::builder("nlp")
        .preset("book")
        .data(&format!("text:{}", path.display()))
        .set("hidden", vec![20])
        .set("lr", 0.01)
        .set("head_lr", 0.01)
        .set("window", 3)
        .set("sampler.ngrams", 0)
        .set("sampler.words", 0)
        .set("sampler.layout", false)
        .set("mixture", false)
}

fn bits(builder: RunBuilder) -> Result<f64> {
    let mut run = builder.build()?;
    let summary = run.fit(&mut ())?;
    Ok(summary.test.bits.expect("text has bits").bits_per_token)
}

/// Lines of 30 letters, each `a` or `b` by chance.
fn lines() -> String {
    let mut rng = stream(1, "lines", 0);
    let mut letter = |place: usize| match place % 31 {
        30 => '\n',
        _ => ['a', 'b'][below(&mut rng, 2)],
    };
    (0..6000).map(&mut letter).collect()
}

#[test]
fn the_layout_tells_where_a_line_ends() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let run = || on(folder.path(), &lines()).set("data.before", 40);
    let (with, without) = (bits(run().set("sampler.layout", true))?, bits(run())?);
    // 0.97 bits, and 0.2 bits more if the places of the line ends are unknown.
    assert!(with < 1.1 && without > 1.15, "{with} {without}");
    Ok(())
}

#[test]
fn the_bag_of_recent_tokens_knows_the_topic() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = stream(1, "topics", 0);
    // In each paragraph, one of four letters stands between dots.
    let mut paragraph = || {
        let letter = ["a", "b", "c", "d"][below(&mut rng, 4)];
        format!("{letter}.....").repeat(20)
    };
    let text: String = (0..60).map(|_| paragraph()).collect();
    let run = || on(folder.path(), &text).set("data.before", 12);
    let (with, without) = (bits(run().set("sampler.recent", 0.9))?, bits(run())?);
    assert!(with < without - 0.15, "{with} {without}");
    Ok(())
}

/// The same tokens are predicted with and without the tokens before, so that the bits can
/// be compared, and a text of few tokens can be scored and continued.
#[test]
fn tokens_before_the_window_may_be_missing() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let run = |before: i64| {
        let run = on(folder.path(), &lines()).set("data.before", before);
        run.set("sampler.layout", true).set("sampler.recent", 0.9)
    };
    let [short, mut long] = [run(0).build()?, run(500).build()?];
    assert_eq!(long.data().spec.shape, [503]);
    for split in [Split::Train, Split::Validation, Split::Test] {
        let labels = |run: &Run| {
            let part = run.data().split(split);
            let all: Vec<usize> = (0..part.len()).collect();
            part.batch(&all, None)?.labels().map(<[u32]>::to_vec)
        };
        assert_eq!(labels(&short)?, labels(&long)?);
    }
    long.fit(&mut ())?;
    let mut scorer = TextScorer::new(&long)?;
    assert!(scorer.score(&Passage::from("abab")).is_ok());
    let error = scorer.score(&Passage::from("aba")).unwrap_err().to_string();
    assert!(
        error.contains("has 3 tokens, expected more than the 3"),
        "{error}"
    );
    let mut generator = Generator::new(&long, "ab", None, Sampling::default())?;
    let notes = generator.notes().join(" ");
    assert!(
        notes.contains("2 tokens, the window 3: line ends are added"),
        "{notes}"
    );
    (0..50).try_for_each(|_| generator.step().map(|_| ()))?;
    let generator = Generator::new(&long, "abab", None, Sampling::default())?;
    assert!(generator.notes().is_empty());
    Ok(())
}

#[test]
fn a_resumed_run_reads_as_far_as_before() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str| {
        let run = on(folder.path(), &lines()).set("data.before", 40);
        let run = run.set("sampler.layout", true).set("sampler.recent", 0.9);
        run.set("epochs", 2).out(folder.path().join(name))
    };
    run("whole").build()?.fit(&mut ())?;
    run("halves").build()?.train_until(1, &mut ())?;
    Run::open(folder.path().join("halves"))?
        .resume()?
        .fit(&mut ())?;
    let opened = |name: &str| Run::open(folder.path().join(name))?.build();
    let [whole, halves] = [opened("whole")?, opened("halves")?];
    assert_eq!(whole.data().spec, halves.data().spec);
    assert_eq!(whole.data().spec.before, 40);
    let examples = whole.data().test.batch(&[0, 9, 50], None)?;
    let scores = |run: &Run| -> Result<Vec<Vec<f32>>> {
        Ok(run.scores(examples.examples().clone(), "head")?.to_vec2()?)
    };
    assert_eq!(scores(&whole)?, scores(&halves)?);
    Ok(())
}

/// A prompt without line ends leaves them as probable as they are, though they fill the
/// example.
#[test]
fn the_padding_of_a_prompt_is_no_repetition() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let mut run = on(folder.path(), &lines()).set("data.before", 40).build()?;
    run.fit(&mut ())?;
    let sampling = Sampling {
        temperature: 0.,
        repetition_penalty: 1e6,
        ..Sampling::default()
    };
    let mut generator = Generator::new(&run, "abab", None, sampling)?;
    assert_eq!(generator.step()?, "\n");
    // Now it has been written.
    assert_ne!(generator.step()?, "\n");
    Ok(())
}

#[test]
fn roll_outs_reach_back_as_far_as_examples() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let run = on(folder.path(), &lines()).preset("window");
    let run = run.set("hidden", vec![10]).set("mixture", false);
    let run = run.set("data.before", 30).set("epochs", 2);
    let run = run.set("sampler.negatives", "roll_outs");
    let run = run.set("sampler.pool", 20).set("sampler.length", 10);
    let mut run = run.set("sampler.recent", 0.9).build()?;
    let summary = run.fit(&mut ())?;
    assert!(summary
        .test
        .bits
        .is_some_and(|bits| bits.bits_per_token < 1.6));
    Ok(())
}
