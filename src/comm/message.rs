//! What ranks send each other: named tensors with a note, as safetensors.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use serde::de::DeserializeOwned;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::flow::input::{Input, Part, Values};

/// Named tensors, and a note of plain values.
///
/// ```
/// use onward_core::candle_core::{DType, Device, Tensor};
/// use onward_core::comm::Message;
/// use onward_core::Input;
///
/// let activity = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// let mut message = Message::default();
/// message.put_input("activity", &Input::stacked(activity, 2)?)?;
///
/// let received = Message::from_bytes(&message.to_bytes()?)?;
/// let input = received.input("activity", DType::F32, &Device::Cpu)?.unwrap();
/// assert_eq!(input.views(), 2);
/// assert_eq!(input.join()?.to_vec2::<f32>()?, [[1., 2.], [3., 4.]]);
/// # Ok::<(), onward_core::Error>(())
/// ```
#[derive(Default)]
pub struct Message {
    /// The tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
    notes: BTreeMap<String, serde_json::Value>,
}

/// The key of the notes in the metadata.
const NOTES: &str = "notes";

impl Message {
    /// Adds a note.
    pub fn put(&mut self, name: &str, note: &impl Serialize) {
        let note = serde_json::to_value(note).expect("plain values can be written");
        self.notes.insert(name.into(), note);
    }

    /// A note; `None` if the message has none of this name.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is of another type: the ranks run different versions.
    pub fn note<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let note = self.notes.get(name).cloned();
        let note = note.map(serde_json::from_value).transpose();
        note.map_err(|error| garbled(format!("{name}: {error}")))
    }

    /// Adds an input. Its parts become dense.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn put_input(&mut self, name: &str, input: &Input) -> Result<()> {
        let (dtype, device) = input.dtype_and_device();
        self.put(name, &(input.batch(), input.views(), input.shape()));
        for (index, part) in input.parts().iter().enumerate() {
            let matrix = part.values.to_matrix(dtype, &device)?;
            self.tensors.insert(key(name, index, "values"), matrix);
            if let Some(scale) = &part.scale {
                self.tensors
                    .insert(key(name, index, "scale"), scale.clone());
            }
        }
        Ok(())
    }

    /// An input, on this device; `None` if the message has none of this name.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is incomplete; errors of candle.
    pub fn input(&self, name: &str, dtype: DType, device: &Device) -> Result<Option<Input>> {
        let Some((batch, views, shape)) = self.note::<(usize, usize, Vec<usize>)>(name)? else {
            return Ok(None);
        };
        let here =
            |tensor: &Tensor| -> Result<Tensor> { Ok(tensor.to_dtype(dtype)?.to_device(device)?) };
        let mut parts: Vec<Part> = Vec::new();
        while let Some(matrix) = self.tensors.get(&key(name, parts.len(), "values")) {
            let scale = self.tensors.get(&key(name, parts.len(), "scale"));
            parts.push(Part {
                name: None,
                values: Values::dense(here(matrix)?)?,
                scale: scale.map(here).transpose()?,
            });
        }
        Ok(Some(Input::new(parts, batch, views, &shape)?))
    }

    /// The bytes of the tensors.
    pub fn size(&self) -> u64 {
        let bytes = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        self.tensors
            .values()
            .map(|tensor| bytes(tensor) as u64)
            .sum()
    }

    /// The message as bytes.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let notes = serde_json::to_string(&self.notes).expect("plain values can be written");
        let notes = HashMap::from([(NOTES.to_string(), notes)]);
        let bytes = safetensors::serialize(&self.tensors, Some(notes));
        bytes.map_err(|error| garbled(error.to_string()))
    }

    /// The message that these bytes are.
    ///
    /// # Errors
    /// [`Error::Usage`] if they are no message, since the ranks run different programs.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let read = safetensors::SafeTensors::read_metadata(bytes);
        let (_, metadata) = read.map_err(|error| garbled(error.to_string()))?;
        let notes = metadata
            .metadata()
            .as_ref()
            .and_then(|notes| notes.get(NOTES));
        let notes = notes.map(|notes| serde_json::from_str(notes)).transpose();
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?;
        Ok(Self {
            tensors: tensors.into_iter().collect(),
            notes: notes
                .map_err(|error| garbled(error.to_string()))?
                .unwrap_or_default(),
        })
    }
}

fn key(name: &str, part: usize, what: &str) -> String {
    format!("{name}.{part}.{what}")
}

fn garbled(problem: String) -> Error {
    let problem =
        format!("cannot be read ({problem}); start the same program, of one version, on all ranks");
    Error::usage("a message of another rank", problem)
}
