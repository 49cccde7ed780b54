//! Sampler `next_token`: the context, and a candidate for what follows it.

use onward::candle_core::{DType, Tensor};
use onward::sampler::{predicted_wrong, uniform_wrong};
use onward::{Batch, Error, Input, NegativeSampler, Result, Role, Site, Step, Values, Views};

onward::choices! {
    /// How the wrong token of a negative view is chosen.
    pub enum Negatives {
        /// In proportion to the network's own probability of each wrong token.
        Predicted = "predicted",
        /// All wrong tokens alike.
        Uniform = "uniform",
    }
}

onward::settings! {
    /// A window of `K` tokens and a candidate for the next one, each a one-hot slot as wide as the vocabulary `V`: `[K·V
    /// context | V candidate]`. The token that follows makes the positive view, a wrong one the negative view, an empty
    /// slot the neutral one.
    ///
    /// The context is one part for all views and candidates; rows of the weight are picked, nothing is multiplied.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022, section 3.5 (<https://arxiv.org/abs/2212.13345>): negatives with a
    /// last character that the network predicts.
    pub struct NextToken {
        /// How the wrong token of a negative view is chosen; it is never the true one.
        negatives: Negatives = Negatives::Predicted;
        /// The value of the candidate's entry, where those of the context are 1.
        strength: f64 = 3., in f64::MIN_POSITIVE..;
    }
}

struct Sampler {
    settings: NextToken,
    vocabulary: usize,
}

impl Sampler {
    fn new(settings: NextToken, site: &Site) -> Result<Self> {
        if !site.tokenizer.is_some() {
            let problem = "it makes views of text; choose data of text, or another `sampler`".to_string();
            return Err(Error::Mismatch { place: "next_token".into(), problem });
        }
        Ok(Self { settings, vocabulary: site.classes })
    }

    fn input(&self, batch: &Batch, candidates: Tensor, strength: f64) -> Result<Input> {
        let tokens = batch.rows();
        let width = (tokens.dim(1)? + 1) * self.vocabulary;
        let views = candidates.dim(0)? / batch.size();
        let context = Values::OneHot { index: tokens.clone(), classes: self.vocabulary, strength: 1. };
        let candidate = Values::OneHot { index: candidates, classes: self.vocabulary, strength };
        Input::new(vec![context, candidate], batch.size(), views, &[width])
    }
}

impl NegativeSampler for Sampler {
    fn views(&mut self, batch: &Batch, predict: &mut dyn FnMut() -> Result<Tensor>, step: &Step) -> Result<Views> {
        let labels = batch.labels()?;
        let wrong = match self.settings.negatives {
            Negatives::Uniform => uniform_wrong(labels, self.vocabulary, &mut step.stream("negatives")),
            Negatives::Predicted => predicted_wrong(labels, &predict()?, &mut step.stream("negatives"))?,
        };
        let both = Tensor::from_vec([labels, &wrong].concat(), (2 * labels.len(), 1), batch.device())?;
        let input = self.input(batch, both, self.settings.strength)?;
        Views::new(input, vec![Role::Positive, Role::Negative], Some(labels.to_vec()))
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        self.input(batch, Tensor::zeros((batch.size(), 1), DType::U32, batch.device())?, 0.)
    }

    fn hypotheses(&self, batch: &Batch, candidates: &Tensor) -> Result<Option<Input>> {
        let rows = candidates.flatten_all()?.unsqueeze(1)?;
        Ok(Some(self.input(batch, rows, self.settings.strength)?))
    }
}

onward::register! {
    dyn NegativeSampler, "next_token", "a window of text and the token after it, or a wrong one (Hinton 2022, arXiv 2212.13345)",
    |settings: NextToken, site| Ok(Box::new(Sampler::new(settings, site)?))
}
