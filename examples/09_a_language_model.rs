//! From a corpus to text: cuts it into tokens, trains a language model on it, measures
//! it in bits per character of text that it has not seen, and lets it go on with a
//! sentence.
//!
//! ```text
//! $ cargo run --release --example 09_a_language_model
//! 53 tokens: ["<unk>", " ", "!", "\"", "'", ",", ".", ":"] …
//! epoch 1: 3.37 bits per character
//! epoch 2: 3.17 bits per character
//! epoch 3: 3.08 bits per character
//! epoch 4: 3.03 bits per character
//! epoch 5: 2.98 bits per character
//! epoch 6: 2.96 bits per character
//! epoch 7: 2.93 bits per character
//! epoch 8: 2.92 bits per character
//! epoch 9: 2.91 bits per character
//! epoch 10: 2.90 bits per character
//! head: 2.88 bits per character, 43.4% of the tokens right
//! search: 3.33 bits per character, 39.7% of the tokens right
//! kneser_ney_6: 2.29 bits per character, 54.0% of the tokens right
//! unigram: 4.22 bits per character, 19.7% of the tokens right
//! The fox one arre on thl wat the couthen the waler was a singer in the had. "Yon in eto nat chem the wirst aneore so there asked and tuou ham was hem sis wannes aill seuthe foo the lound, "Bng the walk. " hat
//! ```
//!
//! It takes a file of plain text as its argument, where there is one.

use onward::flow::examples::Split;
use onward::run::generate::{generate, Sampling};
use onward::run::observe::Event;
use onward::{Result, Run};

fn main() -> Result<()> {
    // A data set of text cuts it into tokens by itself; `char` could be `word`,
    // `bpe:500`, or a tokenizer.json.
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
            "{name}: {bits:.2} bits per character, {:.1}% of the tokens right",
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
