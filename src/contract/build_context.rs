//! What a plugin is told about the run it is built for.

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::Tensor;

use crate::data::text::tokenizer::Tokenizer;
use crate::data::text::Reach;
use crate::data::Room;
use crate::error::{Error, Result};
use crate::flow::input::Input;
use crate::flow::vars::Vars;

/// What a plugin is told about the run it is built for, and its place in it.
///
/// An architecture gives each of its parts a context of its own:
/// `context.scope("blocks.0").with_input(&[784])`.
#[derive(Clone)]
pub struct BuildContext {
    /// The tree of the run's variables, at the plugin's place.
    pub vars: Vars,
    /// The seed of the run.
    pub seed: u64,
    /// The number of epochs, for each layer where layers learn one after the other.
    pub epochs: usize,
    /// The shape of one example of the data, `[1, 28, 28]`.
    pub example: Vec<usize>,
    /// Of a text, how many of the first tokens of an example are before its window: as
    /// they may be missing, only a summary of them is an input.
    pub before: usize,
    /// The number of classes of the data.
    pub classes: usize,
    /// The number of training examples of each class; known for text, if its training
    /// part is loaded.
    pub class_counts: Option<Arc<Vec<usize>>>,
    /// The number of classes that a step compares besides those of its labels; 0 for all.
    /// If it is not 0, a goodness for each class may look at
    /// [`Targets::sampled`](crate::Targets::sampled), and should keep a row of weights for each
    /// class ([`ClassRows`](crate::modules::class_rows::ClassRows)).
    pub samples: usize,
    /// The number of labels of an example: 1, or the number of its positions.
    pub positions: usize,
    /// The shape of the input: of the sampler's views for an architecture, of the
    /// activity below for a layer.
    pub input: Vec<usize>,
    /// The sampler's neutral view of one example, for an architecture.
    pub neutral: Option<Input>,
    /// The number of columns of the sampler's views that are the label; 0 if there is
    /// no label in the input.
    pub label: usize,
    /// Whether the sampler can write a hypothesised class into the input.
    pub hypotheses: bool,
    /// The width that the architecture asks its layer for: units, channels.
    pub units: Option<usize>,
    /// The folders in which data files are looked for, in this order, before the cache.
    pub data_dirs: Vec<PathBuf>,
    /// The user's cache folder, for downloads.
    pub cache: Option<PathBuf>,
    /// Whether this process trains on the examples, or evaluates with them. Of several
    /// ranks, only those of the first stage do.
    pub reads_examples: bool,
    /// The tokenizer. While data are built: that of the opened run, if any. Afterwards:
    /// that of the data.
    pub tokenizer: Option<Arc<Tokenizer>>,
}

impl BuildContext {
    /// A context without data.
    pub fn new(vars: Vars, seed: u64) -> Self {
        Self {
            vars,
            seed,
            epochs: 1,
            example: Vec::new(),
            before: 0,
            classes: 0,
            class_counts: None,
            samples: 0,
            positions: 1,
            input: Vec::new(),
            neutral: None,
            label: 0,
            hypotheses: false,
            units: None,
            data_dirs: Vec::new(),
            cache: None,
            reads_examples: true,
            tokenizer: None,
        }
    }

    /// The same with the variables below `name`.
    pub fn scope(&self, name: impl std::fmt::Display) -> Self {
        Self {
            vars: self.vars.scope(name),
            ..self.clone()
        }
    }

    /// The same with inputs of this shape.
    pub fn with_input(self, shape: &[usize]) -> Self {
        Self {
            input: shape.to_vec(),
            ..self
        }
    }

    /// The same with steps that compare `samples` classes, or all if it is 0.
    pub fn with_samples(self, samples: usize) -> Self {
        Self { samples, ..self }
    }

    /// The same with this width for the layer.
    pub fn with_units(self, units: usize) -> Self {
        Self {
            units: Some(units),
            ..self
        }
    }

    /// The width of a layer: its own setting, or the one that the architecture asks for.
    ///
    /// # Errors
    /// [`Error::Unfit`] if there is neither.
    pub fn units_or(&self, setting: Option<usize>) -> Result<usize> {
        setting.or(self.units).ok_or_else(|| {
            let problem = "no number of units is given; set the layer's `units`, or the architecture's `hidden`";
            Error::unfit("layer", problem)
        })
    }

    /// The number of tokens in an example, for text.
    pub fn reach(&self) -> Reach {
        let tokens: usize = self.example.iter().product();
        Reach {
            window: tokens.saturating_sub(self.before),
            before: self.before,
        }
    }

    /// The number of columns of the input.
    pub fn inputs(&self) -> usize {
        self.input.iter().product()
    }

    /// The input as an image, `[channels, height, width]`; `[height, width]` is one
    /// channel.
    ///
    /// # Errors
    /// [`Error::Unfit`] if it is not one.
    pub fn image(&self) -> Result<[usize; 3]> {
        match self.input[..] {
            [channels, height, width] => Ok([channels, height, width]),
            [height, width] => Ok([1, height, width]),
            _ => {
                let found = &self.input;
                let problem =
                    format!("expected images (channels, height, width), found shape {found:?}");
                Err(Error::unfit("layer", problem))
            }
        }
    }

    /// One row of ones of the input's shape, to find the shape of a layer's activity.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn probe_input(&self) -> Result<Input> {
        let shape = [&[1], &self.input[..]].concat();
        Input::of(Tensor::ones(shape, self.vars.dtype(), &self.vars.device())?)
    }

    /// How much memory a data set may use for images or text; temporary files are made in the
    /// cache.
    pub fn room(&self) -> Room {
        let room = Room::new(self.cache.clone());
        match self.reads_examples {
            true => room,
            false => room.at_most(0),
        }
    }

    /// The folders that may hold the files of the data set with this name:
    /// `<data-dir>/<name>`, `<cache>/<name>`, in other spellings too, such as
    /// `FashionMNIST` for `fashion-mnist`; and `<data-dir>` itself if it has this name.
    pub fn folders(&self, name: &str) -> Vec<PathBuf> {
        let letters = |name: &str| -> String {
            let letters = name.chars().filter(|c| c.is_alphanumeric());
            letters.flat_map(char::to_lowercase).collect()
        };
        let is_named = |path: &PathBuf| {
            let found = path.file_name().map(|found| found.to_string_lossy());
            found.is_some_and(|found| letters(&found) == letters(name))
        };
        let mut folders = Vec::new();
        for dir in self.data_dirs.iter().chain(&self.cache) {
            let exact = dir.join(name);
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            let mut similar: Vec<PathBuf> = entries
                .map(|entry| entry.path())
                .filter(|path| is_named(path) && *path != exact)
                .collect();
            similar.sort();
            folders.push(exact);
            folders.extend(similar);
            folders.extend(Some(dir.clone()).filter(is_named));
        }
        folders
    }
}
