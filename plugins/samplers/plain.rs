//! Sampler `plain`: the examples as they are, for rules that need no negatives.

use onward_core::data::text::context::{ContextInputs, ContextReader};
use onward_core::settings::Settings;
use onward_core::{Batch, Error, Input, NegativeSampler, Prediction, Result, Role, Step, Views};

onward_core::settings! {
    /// One positive view, the example itself, without a label in the input and without
    /// negatives. Windows of tokens become one-hot slots. Context inputs are
    /// beside them: hashed ends of the text (`ngrams`, `words`), the lengths of the last lines
    /// (`layout`), and a bag of recent tokens (`recent`).
    ///
    /// # Reference
    /// The input of rules with a goodness for each class, such as Mono-Forward
    /// (<https://arxiv.org/abs/2501.09238>), and of backpropagation.
    pub struct Plain {
        .. contexts: ContextInputs = ContextInputs::default();
    }
}

struct Sampler {
    /// For text.
    reader: Option<ContextReader>,
}

impl NegativeSampler for Sampler {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, _: &Step) -> Result<Views> {
        Views::new(self.neutral(batch)?, vec![Role::Positive])
    }

    fn uses_labels(&self) -> bool {
        false
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        let Some(reader) = &self.reader else {
            return Input::of(batch.examples().clone());
        };
        Input::new(
            reader.parts(batch.rows())?,
            batch.size(),
            1,
            &[reader.width()],
        )
    }
}

onward_core::register! {
    dyn NegativeSampler, "plain",
    "the examples as they are, no negatives (as in Mono-Forward 2025, arXiv 2501.09238)",
    |settings: Plain, context| {
        let tokenizer = context.tokenizer.as_ref();
        let reader = tokenizer.map(|tokenizer| {
            ContextReader::new(&settings.contexts, tokenizer, context.reach())
        });
        if reader.is_none() && !settings.contexts.is_empty() {
            let problem = "`ngrams`, `words`, `layout` and `recent` are of text; remove them, or \
                           choose a text data set";
            return Err(Error::unfit("plain", problem));
        }
        Ok(Box::new(Sampler { reader: reader.transpose()? }))
    },
    .idle(|own, all| Ok(Plain::read(own)?.contexts.idle(all)))
}
