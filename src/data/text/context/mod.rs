//! Context inputs: the text before the next token as the input of a network.

mod ends;
mod layout;
mod recent;

use candle_core::{Device, Tensor};
use toml::{Table, Value};

use self::ends::Ends;
use self::layout::Layout;
use self::recent::Recent;
use super::tokenizer::Tokenizer;
use super::Reach;
use crate::error::Result;
use crate::flow::input::{indices, Part, Values, CONTEXT};
use crate::settings::Idle;

crate::settings! {
    /// Context inputs: features of the text before the next token, beside the one-hot tokens
    /// of the window.
    ///
    /// *Hashed ends*: for `n` from 2 to `ngrams` the last `n` tokens, and for `n` from 1
    /// to `words` the last `n` words, the last of which may be unfinished. Each end picks
    /// one of `buckets` entries by a hash. So a layer has a row of weights for every end,
    /// like a table of counts. Different ends may share a row; those of different `n` do
    /// not. A word begins with a token that does not begin with a letter or digit, such as
    /// a space, and ends before the next such token.
    ///
    /// *Layout*: three slots with the length of the line so far, the lengths of the line
    /// before and of the line so far together, and the number of lines since an empty one.
    /// Verse, code, lists and text with line ends at a margin end their lines by it.
    ///
    /// *Recent tokens*: the sum of `recentᵏ` times the one-hot vector of the token `k` places
    /// before the last one, scaled to length 1. So a topic, a speaker or a name stays known.
    ///
    /// # Reference
    /// Mikolov et al., "Strategies for Training Large Scale Neural Network Language
    /// Models", ASRU 2011, section 5, for hashed n-grams; words and columns as contexts are
    /// from compression (Mahoney, "Adaptive Weighing of Context Models for Lossless Data
    /// Compression", 2005); a bag of recent words with exponential decay from Clarkson and
    /// Robinson, "Language model adaptation using mixtures and an exponentially decaying
    /// cache", ICASSP 1997.
    pub struct ContextInputs {
        /// The number of tokens of the longest n-gram that is an input, at most
        /// `data.window` and `data.before` together; below 2 for none.
        ngrams: usize = 0, in 0..=64;
        /// The number of last words that are inputs, as far as they are within
        /// `data.window` and `data.before`; 0 for none.
        words: usize = 0, in 0..=16;
        /// The number of entries that the ends of one kind are hashed to.
        buckets: usize = 16_384, in 1..=10_000_000;
        /// Whether the lengths of the last lines are inputs, as far as they are within
        /// `data.window` and `data.before`, and if there are line ends in the vocabulary.
        layout: bool = false;
        /// The weight of a token relative to the token after it, in the bag of recent tokens:
        /// those within `data.window` and `data.before`. 1 for equal weights, 0 for no bag.
        recent: f64 = 0., in 0. ..=1.;
    }
}

impl ContextInputs {
    /// Whether the window is all that is told.
    pub fn is_empty(&self) -> bool {
        self.slots() == 0 && !self.layout && self.recent == 0.
    }

    /// The settings without an effect beside the others, those of the whole run.
    pub fn idle(&self, run: &Table) -> Vec<Idle> {
        let mut idle = Vec::new();
        if self.slots() == 0 {
            let because = "nothing is hashed (`ngrams` and `words`)";
            idle.extend(Idle::all(&["buckets"], because));
        }
        let data = run.get("data").and_then(Value::as_table);
        let number = |key: &str| data?.get(key)?.as_integer()?.try_into().ok();
        let window: usize = number("window").unwrap_or(0);
        let is_mixed = run.get("mixture") == Some(&true.into());
        let of_counts = number("ngram").filter(|_| is_mixed).unwrap_or(0);
        let is_far = self.words > 0 || self.layout || self.recent > 0.;
        if !is_far && self.ngrams.max(of_counts.saturating_sub(1)) <= window {
            let because = "nothing looks further than `data.window` (such as `sampler.layout`)";
            idle.extend(Idle::all(&["data.before"], because));
        }
        idle
    }

    /// The number of hashed ends.
    fn slots(&self) -> usize {
        self.ngrams.saturating_sub(1) + self.words
    }
}

/// Reads contexts as parts of an input: see [`ContextInputs`].
pub struct ContextReader {
    reach: Reach,
    vocabulary: usize,
    ends: Option<Ends>,
    layout: Option<Layout>,
    recent: Option<Recent>,
}

impl ContextReader {
    /// For examples of this reach.
    ///
    /// # Errors
    /// As [`Tokenizer::text_of`].
    pub fn new(settings: &ContextInputs, tokenizer: &Tokenizer, reach: Reach) -> Result<Self> {
        let settings = ContextInputs {
            ngrams: settings.ngrams.min(reach.tokens()),
            ..settings.clone()
        };
        let ends = (settings.slots() > 0).then(|| Ends::new(&settings, tokenizer));
        let layout = settings.layout.then(|| Layout::new(tokenizer));
        let vocabulary = tokenizer.vocabulary().len();
        Ok(Self {
            reach,
            vocabulary,
            ends: ends.transpose()?,
            layout: layout.transpose()?.flatten(),
            recent: (settings.recent > 0.).then(|| Recent::new(settings.recent, vocabulary)),
        })
    }

    /// The number of columns of all parts.
    pub fn width(&self) -> usize {
        let ends = self.ends.as_ref().map_or(0, Ends::width);
        let layout = self.layout.as_ref();
        let layout = layout.map_or(0, |_| layout::SLOTS * layout::CLASSES);
        let recent = self.recent.as_ref().map_or(0, Recent::width);
        self.reach.window * self.vocabulary + ends + layout + recent
    }

    /// The parts of contexts `(B, K)`: a one-hot slot for each token of the window, and the
    /// context inputs, which are named [`CONTEXT`].
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for a token that the tokenizer does not have.
    pub fn parts(&self, contexts: &Tensor) -> Result<Vec<Part>> {
        let Reach { window, before } = self.reach;
        let slots = |index, classes| Values::OneHot {
            index,
            classes,
            strength: 1.,
        };
        let of_window = match before {
            0 => contexts.clone(),
            _ => contexts.narrow(1, before, window)?.contiguous()?,
        };
        let mut parts = vec![slots(of_window, self.vocabulary).into()];
        if self.ends.is_none() && self.layout.is_none() && self.recent.is_none() {
            return Ok(parts);
        }
        let (rows, device) = (contexts.dim(0)?, contexts.device());
        let tokens = indices(contexts, self.vocabulary)?;
        let tokens = || tokens.chunks_exact(self.reach.tokens());
        let mut add = |index: Vec<u32>, classes| -> Result<()> {
            let index = Tensor::from_vec(index, (rows, ()), &Device::Cpu)?;
            parts.push(slots(index.to_device(device)?, classes).named(CONTEXT));
            Ok(())
        };
        if let Some(ends) = &self.ends {
            let mut index = Vec::with_capacity(rows * ends.slots());
            tokens().for_each(|context| ends.add_to(&mut index, context));
            add(index, ends.buckets())?;
        }
        if let Some(layout) = &self.layout {
            let index = tokens().flat_map(|context| layout.slots(context));
            add(index.collect(), layout::CLASSES)?;
        }
        if let Some(recent) = &self.recent {
            let (index, entries) = recent.of(tokens());
            let values = Values::Sparse {
                index: Tensor::from_vec(index, (rows, ()), &Device::Cpu)?.to_device(device)?,
                entries: Tensor::from_vec(entries, (rows, ()), &Device::Cpu)?.to_device(device)?,
                width: recent.width(),
            };
            parts.push(values.named(CONTEXT));
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(ngrams: usize, words: usize, layout: bool) -> ContextInputs {
        ContextInputs {
            ngrams,
            words,
            layout,
            ..ContextInputs::default()
        }
    }

    #[test]
    fn the_text_before_has_no_effect_if_nothing_looks_at_it() {
        let is_idle = |inputs: ContextInputs, mixture: bool, window: usize| {
            let run = format!("mixture = {mixture}\n[data]\nwindow = {window}\nngram = 6");
            let idle = inputs.idle(&run.parse().expect("settings in TOML"));
            idle.iter().any(|idle| idle.key == "data.before")
        };
        assert!(is_idle(inputs(3, 0, false), true, 5));
        assert!(is_idle(inputs(3, 0, false), false, 3));
        // The counts of the mixture look at five tokens.
        assert!(!is_idle(inputs(3, 0, false), true, 4));
        assert!(!is_idle(inputs(6, 0, false), true, 5));
        assert!(!is_idle(inputs(0, 1, false), true, 5));
        assert!(!is_idle(inputs(0, 0, true), true, 5));
    }

    /// The number of slots and of classes of each part.
    fn shapes(inputs: &ContextInputs, reach: Reach) -> Result<Vec<[usize; 2]>> {
        let tokenizer = Tokenizer::characters("abc\n")?;
        let reader = ContextReader::new(inputs, &tokenizer, reach)?;
        let contexts = Tensor::zeros((2, reach.tokens()), candle_core::DType::U32, &Device::Cpu)?;
        let shape = |part: Part| match part.values {
            Values::OneHot { index, classes, .. } => Ok([index.dim(1)?, classes]),
            Values::Sparse { width, .. } => Ok([1, width]),
            _ => panic!("expected one-hot or sparse values"),
        };
        let parts = reader.parts(&contexts)?.into_iter().map(shape);
        let shapes: Vec<[usize; 2]> = parts.collect::<Result<_>>()?;
        let width = shapes.iter().map(|[slots, classes]| slots * classes);
        assert_eq!(reader.width(), width.sum::<usize>());
        Ok(shapes)
    }

    #[test]
    fn only_the_window_is_one_hot() -> Result<()> {
        let reach = Reach {
            window: 2,
            before: 3,
        };
        assert_eq!(shapes(&inputs(0, 0, false), reach)?, [[2, 4]]);
        assert_eq!(shapes(&inputs(3, 1, false), reach)?, [[2, 4], [3, 16_384]]);
        assert_eq!(shapes(&inputs(0, 0, true), reach)?, [[2, 4], [3, 484]]);
        let all = [[2, 4], [4, 16_384], [3, 484]];
        // There are no n-grams of more than five tokens.
        assert_eq!(shapes(&inputs(9, 0, true), reach)?, all);
        assert_eq!(shapes(&inputs(1, 4, true), reach)?, all);
        let recent = ContextInputs {
            recent: 0.9,
            ..ContextInputs::default()
        };
        assert_eq!(shapes(&recent, reach)?, [[2, 4], [1, 4]]);
        Ok(())
    }

    #[test]
    fn the_window_is_the_last_tokens() -> Result<()> {
        let tokenizer = Tokenizer::characters("abc\n")?;
        let reach = Reach {
            window: 2,
            before: 1,
        };
        let reader = ContextReader::new(&inputs(0, 0, false), &tokenizer, reach)?;
        let contexts = Tensor::new(&[[0u32, 1, 2], [2, 1, 0]], &Device::Cpu)?;
        let parts = reader.parts(&contexts)?;
        let [Part {
            values: Values::OneHot { index, .. },
            name: None,
            ..
        }] = &parts[..]
        else {
            panic!("expected one part, the window");
        };
        assert_eq!(index.to_vec2::<u32>()?, [[1, 2], [1, 0]]);
        Ok(())
    }
}
