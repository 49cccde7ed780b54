//! Checkpoints: safetensors files with a header that describes their run.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{TensorView, View};
use safetensors::{SafeTensorError, SafeTensors};
use serde::{Deserialize, Serialize};

use super::folder::{MODEL, TOKENIZER};
use super::patience::Best;
use super::settings;
use crate::data::text::tokenizer::Tokenizer;
use crate::data::ExampleSpec;
use crate::disk;
use crate::error::{notify, shell_word, Error, Result};
use crate::kernels::{memory, scalar};

/// The header of a checkpoint. It contains no paths and no times, so that the same run
/// gives the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// The version of this format.
    pub format: u32,
    /// The architecture's name.
    pub architecture: String,
    /// The examples for which the network was built.
    #[serde(rename = "kind")]
    pub spec: ExampleSpec,
    /// The fingerprint of the tokenizer with which the network was trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// The number of training examples; absent in older files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<usize>,
    /// Fingerprints of the training, validation and test part: [`Examples::fingerprint`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<[u32; 3]>,
    /// The settings of the run, as TOML: [`settings::of`](super::settings::of).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<String>,
    /// The settings before they were changed on purpose; in a training state only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// The settings that were changed on purpose since the run began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// The sums of the reports of this epoch, or of the last one; in a training state
    /// only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sums: Vec<Sums>,
    /// The same of each of several replicas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Vec<Sums>>,
    /// The best evaluation so far, with `patience`; in a training state only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Best>,
    /// The readout that validation chose; in the model of a finished run only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readout: Option<String>,
    /// The readout of the network that the mixture with counts has; in the model of a
    /// finished run only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mixed: Option<String>,
    /// The number of complete epochs.
    pub epoch: usize,
    /// The number of steps taken.
    pub step: u64,
    /// The checksum (CRC-32) of the other fields and of the tensors; set by [`write`].
    pub checksum: u32,
}

/// The sums of a block's reports in an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sums {
    pub block: usize,
    pub loss: Option<f64>,
    pub positive: Option<f64>,
    pub negative: Option<f64>,
    /// The number of reports.
    pub count: f64,
}

/// The version of the format.
pub(crate) const FORMAT: u32 = 2;

/// The metadata key of the header.
const KEY: &str = "onward";

/// The longest header that the format allows, in bytes.
const LONGEST: u64 = 100_000_000;

impl Header {
    fn with_checksum(&self, checksum: u32) -> Self {
        Self {
            checksum,
            ..self.clone()
        }
    }

    /// What a model shares with the training state of the same moment.
    pub fn of_model(&self) -> Self {
        Self {
            previous: None,
            sums: Vec::new(),
            shares: Vec::new(),
            best: None,
            readout: None,
            mixed: None,
            ..self.with_checksum(0)
        }
    }

    /// The header of a model with the readout that validation chose.
    pub fn with_readout(&self, readout: Option<String>) -> Self {
        Self {
            readout,
            ..self.of_model()
        }
    }

    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain values can be written")
    }
}

/// A loaded checkpoint.
pub(crate) struct Saved {
    pub path: PathBuf,
    pub tensors: HashMap<String, Tensor>,
    pub header: Header,
}

/// Writes a checkpoint.
pub(crate) fn write(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    header: &Header,
) -> Result<()> {
    let header = header.with_checksum(checksum(header, tensors.iter()));
    // A single key, since several keys would be written in hash order.
    let metadata = HashMap::from([(KEY.to_string(), header.to_json())]);
    disk::replace_by(path, |file| {
        let written = safetensors::serialize_to_file(tensors, Some(metadata), file);
        written.map_err(|error| match error {
            SafeTensorError::IoError(error) => Error::file("write", path)(error),
            error => Error::run(path, format!("cannot be written: {error}")),
        })
    })
}

/// Reads a checkpoint and verifies its checksum.
pub(crate) fn read(path: &Path) -> Result<Saved> {
    decode(path, &disk::read(path, most(path)?)?)
}

/// As [`read`], from the bytes of the file.
pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Saved> {
    let header = read_header(path, bytes)?;
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu);
    let tensors = tensors.map_err(|error| truncated(path, error))?;
    if let Some(name) = not_finite(&tensors)? {
        return Err(Error::run(
            path,
            format!("{name} holds values that are not finite numbers"),
        ));
    }
    verify(path, bytes, &header)?;
    Ok(Saved {
        path: path.into(),
        tensors,
        header,
    })
}

/// The bytes of a checkpoint that fit into memory twice: the file, and its tensors.
fn most(path: &Path) -> Result<u64> {
    let size = disk::open(path)?.metadata();
    let size = size.map_err(Error::file("read", path))?.len();
    match memory::available() {
        Some(free) if size > free / 2 => {
            let [size, free] = [size, free].map(|bytes| bytes >> 20);
            let problem = format!(
                "takes twice its {size} MB in memory, and {free} MB are free; close other \
                 programs, or use a machine with more"
            );
            Err(Error::run(path, problem))
        }
        _ => Ok(size),
    }
}

fn truncated(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::run(path, format!("truncated or damaged: {error}"))
}

/// The checksum of a header without its checksum, and of tensors in the order of their
/// names.
fn checksum<'a, V: View>(header: &Header, tensors: impl Iterator<Item = (&'a String, V)>) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(header.with_checksum(0).to_json().as_bytes());
    for (name, tensor) in tensors {
        crc.update(format!("{name} {:?} {:?}", tensor.dtype(), tensor.shape()).as_bytes());
        crc.update(&tensor.data());
    }
    crc.sum()
}

fn verify(path: &Path, bytes: &[u8], header: &Header) -> Result<()> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| truncated(path, error))?;
    let tensors: BTreeMap<String, TensorView> = tensors.tensors().into_iter().collect();
    if checksum(header, tensors.iter()) == header.checksum {
        return Ok(());
    }
    let problem = "checksum mismatch: the file changed after it was written; \
                   restore a copy, or train again";
    Err(Error::run(path, problem))
}

fn read_header(path: &Path, bytes: &[u8]) -> Result<Header> {
    let fault = |problem: String| Error::run(path, problem);
    let (_, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|error| fault(format!("not a safetensors file, or truncated: {error}")))?;
    let text = metadata
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get(KEY));
    let text = text.ok_or_else(|| fault("has tensors, but was not written by onward".into()))?;
    let header: Header = serde_json::from_str(text)
        .map_err(|error| fault(format!("its header cannot be read: {error}")))?;
    if header.format != FORMAT {
        let found = header.format;
        return Err(fault(format!(
            "has format {found}; this program reads format {FORMAT}"
        )));
    }
    let ExampleSpec { shape, classes, .. } = &header.spec;
    let size = shape
        .iter()
        .try_fold(1usize, |size, &side| size.checked_mul(side));
    if classes.is_empty() || size.is_none_or(|size| !(1..=1 << 31).contains(&size)) {
        let found = format!("examples of shape {shape:?} in {} classes", classes.len());
        return Err(fault(format!(
            "describes {found}, expected at least one class and 1 to 2^31 numbers"
        )));
    }
    Ok(header)
}

/// The header of a checkpoint, without a look at its tensors; `None` if it cannot be
/// read.
pub(crate) fn header_of(path: &Path) -> Option<Header> {
    let mut file = disk::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let mut header = Vec::new();
    let length = u64::from_le_bytes(length).min(LONGEST);
    file.take(length).read_to_end(&mut header).ok()?;
    let header: serde_json::Value = serde_json::from_slice(&header).ok()?;
    let text = header["__metadata__"][KEY].as_str()?;
    serde_json::from_str(text).ok()
}

/// Whether a model is that of a training state.
pub(crate) fn is_of(model: &Path, state: &Header) -> bool {
    header_of(model).is_some_and(|model| model.of_model() == state.of_model())
}

/// Keeps the model of another run, which was put into `folder`, under another name.
/// A model that is only older than `header` is left to be replaced.
pub(crate) fn set_aside(folder: &Path, header: &Header) {
    let path = folder.join(MODEL);
    let Some(found) = header_of(&path) else {
        return;
    };
    // An older version does not know all settings.
    let [before, now] = [&found, header].map(|header| {
        let settings = header.settings.as_deref().unwrap_or("");
        let completed = settings::completed(&header.architecture, settings);
        completed.unwrap_or_else(|_| settings.into())
    });
    let is_known = |(key, ..): &settings::Difference| {
        let change = format!("{key} from ");
        // Each has several, divided by commas.
        let mut changes = header.changes.iter().flat_map(|known| known.split(", "));
        changes.any(|known| known.starts_with(&change))
    };
    let is_of_this_run = found.architecture == header.architecture
        && found.spec.shape == header.spec.shape
        && found.spec.classes == header.spec.classes
        && settings::differences(&before, &now).iter().all(is_known);
    let kept = folder.join("model.other.safetensors");
    // A model with a damaged header is not that of another run.
    if is_of_this_run
        || read(&path).is_err()
        || kept.exists()
        || std::fs::rename(&path, &kept).is_err()
    {
        return;
    }
    notify(format_args!(
        "warning: {} was the model of another run and is kept as {}; to start from its \
         weights: onward train … --set init={}",
        path.display(),
        kept.display(),
        shell_word(&kept.display().to_string())
    ));
}

/// The readout that validation chose for a model of the same moment as `header`.
pub(crate) fn readout(model: &Path, header: &Header) -> Option<String> {
    let found = header_of(model).filter(|found| found.of_model() == header.of_model());
    found.and_then(|found| found.readout)
}

/// The tokenizer of the run in `folder`, if it has one. Its fingerprint must be that in
/// the header.
pub(crate) fn tokenizer(folder: &Path, header: &Header) -> Result<Option<Arc<Tokenizer>>> {
    let path = folder.join(TOKENIZER);
    if !path.is_file() {
        return without_tokenizer(&path, header).map(|()| None);
    }
    checked_tokenizer(&path, Tokenizer::open(&path)?, header).map(Some)
}

/// Refuses a missing tokenizer, if the network was trained with one.
pub(crate) fn without_tokenizer(path: &Path, header: &Header) -> Result<()> {
    match &header.tokenizer {
        None => Ok(()),
        Some(_) => {
            let problem = "is missing; the network was trained with it, put it back";
            Err(Error::run(path, problem))
        }
    }
}

/// Refuses a tokenizer that the network was not trained with.
pub(crate) fn checked_tokenizer(
    path: &Path,
    tokenizer: Tokenizer,
    header: &Header,
) -> Result<Arc<Tokenizer>> {
    let found = tokenizer.fingerprint();
    let wanted = header.tokenizer.as_deref().unwrap_or("none");
    if found == wanted {
        return Ok(Arc::new(tokenizer));
    }
    let problem = format!(
        "is not the tokenizer that the network was trained with: expected fingerprint \
         {wanted}, found {found}; put that one back"
    );
    Err(Error::run(path, problem))
}

/// The name of a tensor with values that are not finite numbers, if there is one.
pub(crate) fn not_finite<'a>(
    tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>,
) -> Result<Option<&'a String>> {
    for (name, tensor) in tensors {
        // A sum is quick; it may be too large where no number is.
        let is_suspect =
            tensor.dtype().is_float() && !scalar(&tensor.abs()?.sum_all()?)?.is_finite();
        if is_suspect && !scalar(&tensor.to_dtype(DType::F64)?.abs()?.sum_all()?)?.is_finite() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
