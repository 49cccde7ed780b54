//! Trains a language model on a corpus and generates text.
//!
//! It tokenizes the corpus, trains, measures bits per character on unseen text, and
//! generates text from a prompt.
//!
//! ```text
//! $ cargo run --release --example 09_a_language_model
//! 53 tokens: ["<unk>", " ", "!", "\"", "'", ",", ".", ":"] …
//! epoch 1: 3.38 bits per character
//! epoch 2: 3.12 bits per character
//! epoch 3: 3.01 bits per character
//! epoch 4: 2.95 bits per character
//! epoch 5: 2.88 bits per character
//! epoch 6: 2.85 bits per character
//! epoch 7: 2.83 bits per character
//! epoch 8: 2.81 bits per character
//! epoch 9: 2.80 bits per character
//! epoch 10: 2.80 bits per character
//! head: 2.75 bits per character, token accuracy 45.8%
//! search: 3.37 bits per character, token accuracy 43.1%
//! kneser_ney_6: 2.29 bits per character, token accuracy 54.0%
//! unigram: 4.22 bits per character, token accuracy 19.7%
//! The fox was stold he aqe was cood hameet in the eand nome, and the sarromnd a aithed st she stter in int  theund his cosk the sat to yre panding th the for.," nave they so weed the beepy bolse was mign of the
//! ```
//!
//! Pass a plain text file as the argument to train on that text.

use onward::flow::examples::Split;
use onward::run::generate::{generate, Sampling};
use onward::run::observe::Event;
use onward::{Result, Run};

fn main() -> Result<()> {
    // The data set tokenizes its text. Other values of `tokenizer` are `word`, `bpe:500`
    // and the path of a tokenizer.json.
    let data = std::env::args()
        .nth(1)
        .map_or("fables".into(), |file| format!("text:{file}"));
    let builder = Run::builder("nlp").data(&data).set("tokenizer", "char");
    let mut run = builder
        .set("hidden", vec![500, 500])
        .set("epochs", 10)
        .seed(1)
        .build()?;
    println!(
        "{} tokens: {:?} …",
        run.data().spec.classes.len(),
        &run.data().spec.classes[..8]
    );

    let mut watch = |event: &Event<'_>| {
        if let Event::Evaluated {
            epoch,
            split: Split::Validation,
            evaluation,
        } = event
        {
            let bits = evaluation.bits.map_or(f64::NAN, |bits| bits.bits_per_char);
            println!("epoch {epoch}: {bits:.2} bits per character");
        }
    };
    let test = run.fit(&mut watch)?.test;
    for (name, score) in test.readouts.iter().chain(&test.baselines) {
        let bits = score.bits.map_or(f64::NAN, |bits| bits.bits_per_char);
        println!(
            "{name}: {bits:.2} bits per character, token accuracy {:.1}%",
            100. * score.accuracy
        );
    }

    let sampling = Sampling {
        temperature: 0.7,
        ..Sampling::default()
    };
    println!(
        "The fox {}",
        generate(&run, "The fox ", 200, sampling)?.trim_end()
    );
    Ok(())
}
