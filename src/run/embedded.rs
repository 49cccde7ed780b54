//! Runs from the bytes of a model, such as those that a program has within it.

use std::path::Path;
use std::sync::Arc;

use toml::Table;

use super::assemble::{assemble, Source as DataSource, Surroundings};
use super::checkpoint::{self, Header};
use super::folder::{MODEL, TOKENIZER};
use super::Run;
use crate::data::text::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::plugin::config::{Config, NO_PRESET};
use crate::plugin::source::Source;

impl Run {
    /// Loads a run, to predict or to generate, from the bytes of its `model.safetensors`
    /// and, for text, of its `tokenizer.json`. No file is read, so both may be a part of
    /// the program.
    ///
    /// ```no_run
    /// # fn main() -> onward_core::Result<()> {
    /// let model = std::fs::read("runs/digits/model.safetensors").expect("it is there");
    /// let run = onward_core::Run::from_bytes(&model, None)?;
    /// let picture = onward_core::image::DynamicImage::new_luma8(28, 28);
    /// let answers = run.predict_images(&[picture], None)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Run`] for bytes that are damaged or are no model of this program, or a
    /// tokenizer that is missing or is another one; [`Error::UnknownPlugin`] for a plugin
    /// that this program lacks.
    pub fn from_bytes(model: &[u8], tokenizer: Option<&[u8]>) -> Result<Self> {
        let mut saved = checkpoint::decode(Path::new(MODEL), model)?;
        let header = &mut saved.header;
        let tokenizer = tokenizer_of(header, tokenizer)?;
        let mut run = of_header(header, tokenizer)?;
        run.chosen = header.readout.take();
        run.restore_from(saved, false)?;
        Ok(run)
    }
}

/// The run of a checkpoint by its header alone: without data, and with new weights.
pub(super) fn of_header(header: &Header, tokenizer: Option<Arc<Tokenizer>>) -> Result<Run> {
    let settings = header.settings.as_deref().unwrap_or_default();
    let mut table: Table = settings.parse().unwrap_or_default();
    table.remove("architecture");
    let origin = MODEL.into();
    let sources = vec![Source { origin, table }];
    let config = Config::resolve_for(&header.architecture, Some(NO_PRESET), sources, false)?;
    let source = DataSource::empty(header.spec.clone(), tokenizer.clone());
    let around = Surroundings {
        data_dirs: Vec::new(),
        device: "cpu".into(),
        tokenizer,
        trained_on: Some(header.spec.content),
        reads_examples: false,
        trained_part: None,
    };
    assemble(config, source, around)
}

fn tokenizer_of(header: &Header, json: Option<&[u8]>) -> Result<Option<Arc<Tokenizer>>> {
    let Some(json) = json else {
        return checkpoint::without_tokenizer(Path::new(TOKENIZER), header).map(|()| None);
    };
    let text = String::from_utf8(json.to_vec());
    let text = text.map_err(|_| Error::run(TOKENIZER, "is not text in UTF-8"))?;
    let tokenizer = Tokenizer::from_json(text)?;
    checkpoint::checked_tokenizer(Path::new(TOKENIZER), tokenizer, header).map(Some)
}
