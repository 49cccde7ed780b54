//! Scores of whole texts by a language model and by the n-grams beside it.

use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;

use serde::Serialize;

use super::evaluate::surprise;
use super::Run;
use crate::contract::net::Readout;
use crate::data::score::{Counts, Score};
use crate::data::text::ngram::Baselines;
use crate::data::text::tokenizer::Tokenizer;
use crate::data::text::{Passage, Windows};
use crate::data::{Content, ExampleSpec, Room};
use crate::error::{Error, Result};
use crate::flow::examples::Examples;
use crate::flow::step::Step;

/// The score of a text. The first tokens, as many as the window, are not predicted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextScore {
    /// The number of tokens that were predicted.
    pub tokens: usize,
    /// The number of tokens that the tokenizer does not know.
    pub unknown: usize,
    /// The scores of the readouts with probabilities.
    pub readouts: BTreeMap<String, Score>,
    /// The scores of n-grams that were counted on the training part of the run; empty
    /// for a run that has neither a mixture with n-grams nor its data.
    pub baselines: BTreeMap<String, Score>,
}

/// A token of a text, and the bits that it costs: `−log₂ p`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenScore {
    /// The text of the token.
    pub token: String,
    /// Its bits.
    pub bits: f64,
}

/// The counts of a text, by readout and baseline.
#[derive(Clone, Default)]
struct TextCounts {
    unknown: usize,
    readouts: BTreeMap<String, Counts>,
    baselines: BTreeMap<String, Counts>,
}

impl TextCounts {
    fn add(&mut self, other: &Self) {
        self.unknown += other.unknown;
        for (sums, counts) in [
            (&mut self.readouts, &other.readouts),
            (&mut self.baselines, &other.baselines),
        ] {
            for (name, counts) in counts {
                sums.entry(name.clone()).or_default().add(counts);
            }
        }
    }

    fn score(&self) -> TextScore {
        let scores = |counts: &BTreeMap<String, Counts>| {
            let scores = counts.iter();
            scores
                .map(|(name, counts)| (name.clone(), counts.score()))
                .collect()
        };
        TextScore {
            tokens: self
                .readouts
                .values()
                .next()
                .map_or(0, |counts| counts.labels),
            unknown: self.unknown,
            readouts: scores(&self.readouts),
            baselines: scores(&self.baselines),
        }
    }
}

/// Scores texts by a run, one after the other.
///
/// ```no_run
/// use onward_core::run::score_text::TextScorer;
/// use onward_core::Run;
///
/// # fn main() -> onward_core::Result<()> {
/// let run = Run::load("runs/nlp-fables-1")?;
/// let text = "The fox and the crow went to the river.".into();
/// let score = TextScorer::new(&run)?.score(&text)?;
/// println!("{:?}", score.readouts["head"].bits);
/// # Ok(())
/// # }
/// ```
pub struct TextScorer<'a> {
    run: &'a Run,
    tokenizer: &'a Tokenizer,
    spec: &'a ExampleSpec,
    readouts: Vec<Readout>,
    ngrams: Option<Arc<Baselines>>,
    sum: TextCounts,
}

impl<'a> TextScorer<'a> {
    /// Takes the n-grams of the run's mixture, or else counts those of its training part.
    ///
    /// # Errors
    /// [`Error::Usage`] for a run on images, or without a readout with probabilities.
    pub fn new(run: &'a Run) -> Result<Self> {
        let spec = &run.data.spec;
        let (Content::Text, Some(text)) = (spec.content, &run.data.text) else {
            let problem = "expected a run on text, found one on images; evaluate it with: onward \
                           evaluate";
            return Err(Error::usage(&run.config.architecture, problem));
        };
        let mut readouts = run.readouts();
        readouts.retain(|readout| readout.log_probabilities);
        if readouts.is_empty() {
            let problem = "has no readout with probabilities, so its texts have no bits";
            return Err(Error::usage(&run.config.architecture, problem));
        }
        Ok(Self {
            run,
            tokenizer: &text.tokenizer,
            spec,
            readouts,
            ngrams: run.ngrams(),
            sum: TextCounts::default(),
        })
    }

    /// The readout that is shown first: that of the run, if it has probabilities.
    pub fn readout(&self) -> &'static str {
        let preferred = self.run.preferred_readout();
        let found = self
            .readouts
            .iter()
            .find(|readout| readout.name == preferred);
        found.unwrap_or(&self.readouts[0]).name
    }

    /// Scores a text.
    ///
    /// # Errors
    /// [`Error::Usage`] for a text without a token to predict.
    pub fn score(&mut self, text: &Passage) -> Result<TextScore> {
        let windows = self.windows(text)?;
        let passages = windows.passages();
        let baselines = self.ngrams.as_ref().zip(passages.as_ref());
        let counts = TextCounts {
            unknown: windows.unknown,
            readouts: self.run.count(&windows, &self.readouts)?,
            baselines: baselines.map_or_else(BTreeMap::new, |(ngrams, text)| ngrams.predict(text)),
        };
        self.sum.add(&counts);
        Ok(counts.score())
    }

    /// The score of all texts so far together.
    pub fn all(&self) -> TextScore {
        self.sum.score()
    }

    /// The bits of every token of a text after the first window, by [`Self::readout`].
    ///
    /// # Errors
    /// As [`TextScorer::score`].
    pub fn tokens(&self, text: &Passage) -> Result<Vec<TokenScore>> {
        let windows = self.windows(text)?;
        let (run, step) = (self.run, Step::evaluation(self.run.config.run.seed));
        let readout = run.readout(self.readout())?;
        let mut found = Vec::with_capacity(windows.len());
        let mut reader = run.reader(&windows);
        let batch = run.evaluation_batch();
        for start in (0..windows.len()).step_by(batch) {
            let indices: Vec<usize> = (start..windows.len().min(start + batch)).collect();
            let batch = run.prepare(&windows.batch(&indices, None)?)?;
            let text = reader.as_mut().map(|reader| (reader, &indices[..]));
            let mut all = run.read_out_all(&batch.hidden(), &[readout], text, &step)?;
            let scores = all.remove(0);
            let labels = batch.labels()?;
            for (label, nats) in labels.iter().zip(surprise(&scores, labels, readout.name)?) {
                found.push(TokenScore {
                    token: self.tokenizer.text_of(*label)?,
                    bits: nats / std::f64::consts::LN_2,
                });
            }
        }
        Ok(found)
    }

    fn windows(&self, text: &Passage) -> Result<Windows> {
        let windows = Windows::new(
            slice::from_ref(text),
            self.tokenizer,
            self.spec.window(),
            &Room::default(),
        )?
        .with_before(self.spec.before);
        let problem = if windows.is_empty() {
            let found = match windows.longest {
                1 => "1 token".into(),
                tokens => format!("{tokens} tokens"),
            };
            let window = self.spec.window();
            format!("has {found}, expected more than the {window} of the model's window")
        } else if windows.characters == 0 {
            "has only tokens that the tokenizer does not know, expected text like that of the \
             training"
                .into()
        } else {
            return Ok(windows);
        };
        Err(Error::usage("the text", problem))
    }
}
