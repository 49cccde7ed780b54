//! Tensors in safetensors files, with what they belong to written beside them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use safetensors::tensor::{TensorView, View};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use crate::data::text::tokenizer::Tokenizer;
use crate::data::Kind;
use crate::error::{Error, Result};
use crate::run::folder::{self, TOKENIZER};

/// What a file header to. No paths, no times: the same run gives the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// The version of this format.
    pub format: u32,
    /// The architecture's name.
    pub architecture: String,
    /// What the network was made for.
    pub kind: Kind,
    /// The fingerprint of what the text was cut with that the network was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// How many examples it is trained on; none in files from before this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<usize>,
    /// Epochs completed.
    pub epoch: usize,
    /// Steps taken.
    pub step: u64,
    /// The checksum (CRC-32) of all this and of the tensors; [`write`] fills it in.
    pub checksum: u32,
}

pub(crate) const FORMAT: u32 = 2;
const KEY: &str = "onward";

pub(crate) fn write(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    header: &Header,
) -> Result<()> {
    let checksum = checksum(header, tensors.iter());
    let text = json(&Header {
        checksum,
        ..header.clone()
    });
    // One key: several would be written in the order of their hashes.
    let metadata = HashMap::from([(KEY.to_string(), text)]);
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|error| Error::Run {
        path: path.into(),
        problem: format!("cannot be written: {error}"),
    })?;
    folder::write(path, &bytes)
}

fn json(header: &Header) -> String {
    serde_json::to_string(header).expect("plain values can always be written")
}

/// Of a description, whatever it says of its checksum, and of tensors in the order of their names.
fn checksum<'a, V: View>(header: &Header, tensors: impl Iterator<Item = (&'a String, V)>) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(
        json(&Header {
            checksum: 0,
            ..header.clone()
        })
        .as_bytes(),
    );
    for (name, tensor) in tensors {
        crc.update(format!("{name} {:?} {:?}", tensor.dtype(), tensor.shape()).as_bytes());
        crc.update(&tensor.data());
    }
    crc.sum()
}

/// Refuses a file in which anything has changed since it was written.
fn verify(path: &Path, bytes: &[u8], header: &Header) -> Result<()> {
    let fault = |problem: String| Error::Run {
        path: path.into(),
        problem,
    };
    let tensors = SafeTensors::deserialize(bytes)
        .map_err(|error| fault(format!("truncated or damaged: {error}")))?;
    let tensors: BTreeMap<String, TensorView> = tensors.tensors().into_iter().collect();
    if checksum(header, tensors.iter()) == header.checksum {
        return Ok(());
    }
    Err(fault(
        "damaged: it is not what was written, its checksum says; put back a copy, or train anew"
            .into(),
    ))
}

/// The tokenizer of the run in `folder`, if it has one; it must be the one that its network was made for.
pub(crate) fn tokenizer(folder: &Path, header: &Header) -> Result<Option<Arc<Tokenizer>>> {
    let path = folder.join(TOKENIZER);
    if !path.is_file() {
        let problem = "is missing; the network was trained with it, put it back".to_string();
        return header
            .tokenizer
            .as_ref()
            .map_or(Ok(None), |_| Err(Error::Run { path, problem }));
    }
    let tokenizer = Tokenizer::open(&path)?;
    let (found, wanted) = (
        tokenizer.fingerprint(),
        header.tokenizer.as_deref().unwrap_or("none"),
    );
    if found != wanted {
        let problem = format!(
            "is not the tokenizer that the network was trained with (fingerprint {found}; the checkpoint says {wanted}); \
             put that one back"
        );
        return Err(Error::Run { path, problem });
    }
    Ok(Some(Arc::new(tokenizer)))
}

fn described(path: &Path, bytes: &[u8]) -> Result<Header> {
    let fault = |problem: String| Error::Run {
        path: path.into(),
        problem,
    };
    let (_, header) = SafeTensors::read_metadata(bytes)
        .map_err(|error| fault(format!("no safetensors file, or a truncated one: {error}")))?;
    let text = header
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get(KEY));
    let text =
        text.ok_or_else(|| fault("holds tensors, but was not written by this program".into()))?;
    let header: Header =
        serde_json::from_str(text).map_err(|error| fault(format!("its description: {error}")))?;
    if header.format != FORMAT {
        return Err(fault(format!(
            "has format {}; this program reads format {FORMAT}",
            header.format
        )));
    }
    let Kind { shape, classes, .. } = &header.kind;
    let size = shape
        .iter()
        .try_fold(1usize, |size, &side| size.checked_mul(side));
    if classes.is_empty() || size.is_none_or(|size| !(1..=1 << 31).contains(&size)) {
        let found = format!("examples of shape {shape:?} in {} classes", classes.len());
        return Err(fault(format!(
            "was made for {found}; there are no such data"
        )));
    }
    Ok(header)
}

/// How far a file's training had come, epochs and steps, by its header alone; none if that cannot be read.
pub(crate) fn standing(path: &Path) -> Option<(usize, u64)> {
    let mut file = File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let mut header = Vec::new();
    file.take(u64::from_le_bytes(length).min(LONGEST))
        .read_to_end(&mut header)
        .ok()?;
    let header: serde_json::Value = serde_json::from_slice(&header).ok()?;
    let header: Header = serde_json::from_str(header["__metadata__"][KEY].as_str()?).ok()?;
    Some((header.epoch, header.step))
}

/// No header of the format is longer, in bytes.
const LONGEST: u64 = 100_000_000;

/// What a file holds.
pub(crate) struct Saved {
    pub path: PathBuf,
    pub tensors: HashMap<String, Tensor>,
    pub header: Header,
}

pub(crate) fn read(path: &Path) -> Result<Saved> {
    let fault = |problem: String| Error::Run {
        path: path.into(),
        problem,
    };
    let bytes = std::fs::read(path).map_err(Error::file("read", path))?;
    let header = described(path, &bytes)?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
        .map_err(|error| fault(format!("truncated or damaged: {error}")))?;
    if let Some(name) = not_finite(&tensors)? {
        return Err(fault(format!(
            "{name} holds values that are not finite numbers"
        )));
    }
    verify(path, &bytes, &header)?;
    Ok(Saved {
        path: path.into(),
        tensors,
        header,
    })
}

/// The name of a tensor with values that are not finite numbers, if there is one.
pub(crate) fn not_finite<'a>(
    tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>,
) -> Result<Option<&'a String>> {
    for (name, tensor) in tensors {
        if tensor.dtype().is_float()
            && !crate::contract::loss::scalar(&tensor.abs()?.sum_all()?)?.is_finite()
        {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
