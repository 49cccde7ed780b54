//! What a plugin is told about the run it is built into.

use std::path::PathBuf;
use std::sync::Arc;

use crate::data::text::tokenizer::Tokenizer;
use crate::flow::vars::Vars;

/// The place in a run at which a plugin is built.
///
/// An architecture gives each of its parts a context of its own: `context.scope("blocks.0").with_input(&[784])`.
#[derive(Clone)]
pub struct BuildContext {
    /// Where the plugin's variables live.
    pub vars: Vars,
    /// The seed of the run.
    pub seed: u64,
    /// How many epochs were asked for, of each layer where layers learn one after the other.
    pub epochs: usize,
    /// The shape of one example of the data, `[1, 28, 28]`.
    pub example: Vec<usize>,
    /// How many classes the data have.
    pub classes: usize,
    /// The shape of what enters: of the sampler's views for an architecture, of the layer below for a layer.
    pub input: Vec<usize>,
    /// Whether the sampler can write a hypothesised class into the input.
    pub hypotheses: bool,
    /// The width that the architecture asks its layer to have: units, channels.
    pub units: Option<usize>,
    /// The folders in which data files are looked for, in this order, before the cache.
    pub data_dirs: Vec<PathBuf>,
    /// The user's cache, where what was downloaded is kept.
    pub cache: Option<PathBuf>,
    /// What text is cut with: that of the run which is opened, for its data to use, and that of the data from then on.
    pub tokenizer: Option<Arc<Tokenizer>>,
}

impl BuildContext {
    /// A context that knows of no data yet.
    pub fn new(vars: Vars, seed: u64) -> Self {
        Self {
            vars,
            seed,
            epochs: 1,
            example: Vec::new(),
            classes: 0,
            input: Vec::new(),
            hypotheses: false,
            units: None,
            data_dirs: Vec::new(),
            cache: None,
            tokenizer: None,
        }
    }

    /// The same, its variables below `name`.
    pub fn scope(&self, name: impl std::fmt::Display) -> Self {
        Self {
            vars: self.vars.scope(name),
            ..self.clone()
        }
    }

    /// The same, with inputs of this shape.
    pub fn with_input(self, shape: &[usize]) -> Self {
        Self {
            input: shape.to_vec(),
            ..self
        }
    }

    /// The same, asking for this width.
    pub fn with_units(self, units: usize) -> Self {
        Self {
            units: Some(units),
            ..self
        }
    }

    /// Where the files of the data set with this name may be: `<data-dir>/<name>`, `<cache>/<name>`.
    pub fn folders(&self, name: &str) -> Vec<PathBuf> {
        self.data_dirs
            .iter()
            .chain(&self.cache)
            .map(|dir| dir.join(name))
            .collect()
    }
}
