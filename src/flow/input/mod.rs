//! The input of a layer: several views of the same examples, in parts side by side.

mod join;
mod normalise;
mod values;

use candle_core::{DType, Device, Tensor};

pub use self::normalise::Normalise;
pub(crate) use self::normalise::SHORTEST;
pub use self::values::Values;
pub(crate) use self::values::{indices, Picks};
use crate::error::{Error, Result};
use crate::kernels;

/// The name of the part that holds the label. A recurrent network clamps it above its
/// last layer.
pub const LABEL: &str = "label";

/// The name of a part with features of the text before, which are not its tokens.
pub const CONTEXT: &str = "context";

/// `V` views of the same `B` examples, stacked: row `v·B + b` is view `v` of example `b`.
///
/// An input consists of parts side by side: pixels and label, below and above, context
/// and candidate. A part that all views share has `B` rows instead of `V·B` and is
/// multiplied once for all of them. [`Input::join`] gives one tensor.
///
/// ```
/// use onward_core::candle_core::{Device, Tensor};
/// use onward_core::flow::input::{Input, Values, LABEL};
///
/// let pixels = Tensor::new(&[[3f32, 4.], [0., 2.]], &Device::Cpu)?; // 2 examples
/// let classes = Tensor::new(&[[0u32], [1], [1], [0]], &Device::Cpu)?; // 2 views of each
/// let label = Values::OneHot { index: classes, classes: 2, strength: 1. };
/// let parts = [Values::dense(pixels)?.into(), label.named(LABEL)];
/// let input = Input::new(parts, 2, 2, &[4])?;
///
/// let rows = input.join()?.to_vec2::<f32>()?;
/// assert_eq!(rows[0], [3., 4., 1., 0.]); // view 0 of example 0
/// assert_eq!(rows[2], [3., 4., 0., 1.]); // view 1 of example 0
/// assert_eq!(input.part(LABEL).unwrap().values.width()?, 2);
/// # Ok::<(), onward_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Input {
    parts: Vec<Part>,
    batch: usize,
    views: usize,
    shape: Vec<usize>,
    /// Whether [`Input::normalised`] leaves it as it is.
    is_final: bool,
}

/// Some of the columns of an input.
#[derive(Clone, Debug)]
pub struct Part {
    /// The name, if it has one, such as [`LABEL`].
    pub name: Option<&'static str>,
    /// The values before scaling.
    pub values: Values,
    /// Factors of the rows, `(V·B,)`: the normalisation, stored separately so that a
    /// shared part stays shared.
    pub scale: Option<Tensor>,
}

impl From<Values> for Part {
    fn from(values: Values) -> Self {
        Self {
            name: None,
            values,
            scale: None,
        }
    }
}

impl Input {
    /// An input of `parts` side by side: `views` views of `batch` examples, each of shape
    /// `shape` after joining.
    ///
    /// # Errors
    /// [`Error::Shape`] if a part has neither `B` nor `V·B` rows, or the widths do not
    /// add up to `shape`.
    pub fn new<P: Into<Part>>(
        parts: impl IntoIterator<Item = P>,
        batch: usize,
        views: usize,
        shape: &[usize],
    ) -> Result<Self> {
        let parts: Vec<Part> = parts.into_iter().map(Into::into).collect();
        let mut width = 0;
        for part in &parts {
            let rows = part.values.rows()?;
            if rows != batch && rows != batch * views {
                let expected = format!("{batch} rows (shared) or {views}·{batch}");
                return Err(Error::shape("part of an input", [rows], expected));
            }
            width += part.values.width()?;
        }
        if width != shape.iter().product::<usize>() {
            let expected = format!("parts of {shape:?} in total");
            return Err(Error::shape("width of an input", [width], expected));
        }
        Ok(Self {
            parts,
            batch,
            views,
            shape: shape.to_vec(),
            is_final: false,
        })
    }

    /// An input of one view, a tensor `(B, …)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no dimension besides the batch.
    pub fn of(tensor: Tensor) -> Result<Self> {
        Self::shared(tensor, 1)
    }

    /// An input of `views` equal views of a tensor `(B, …)`, as one shared part.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no dimension besides the batch.
    pub fn shared(tensor: Tensor, views: usize) -> Result<Self> {
        let (batch, shape) = (tensor.dim(0)?, tensor.dims()[1..].to_vec());
        Self::new([Values::dense(tensor)?], batch, views, &shape)
    }

    /// An input of `views` stacked views, a tensor `(V·B, …)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the rows cannot be divided among the views.
    pub fn stacked(tensor: Tensor, views: usize) -> Result<Self> {
        let (rows, shape) = (tensor.dim(0)?, tensor.dims()[1..].to_vec());
        if views == 0 || rows % views != 0 {
            return Err(Error::shape(
                "input",
                [rows],
                format!("a multiple of {views} rows"),
            ));
        }
        Self::new([Values::dense(tensor)?], rows / views, views, &shape)
    }

    /// Joins inputs side by side into flat rows. All must have the same views of the same
    /// examples.
    ///
    /// # Errors
    /// [`Error::Usage`] if the numbers of views or examples differ, or `inputs` is empty.
    pub fn beside(inputs: &[Input]) -> Result<Self> {
        let problem = "expected one or more inputs with equal numbers of views and \
                       examples";
        let Some(first) = inputs.first() else {
            return Err(Error::usage("input", problem));
        };
        let (batch, views) = (first.batch, first.views);
        if inputs
            .iter()
            .any(|input| (input.batch, input.views) != (batch, views))
        {
            return Err(Error::usage("input", problem));
        }
        let parts = inputs
            .iter()
            .flat_map(|input| input.parts.iter().cloned())
            .collect();
        let width = inputs.iter().map(Input::width).sum();
        let mut joined = Self {
            parts,
            batch,
            views,
            shape: vec![width],
            is_final: false,
        };
        // An input of one-hot parts only does not know the element type of the dense
        // parts beside it.
        let (dtype, device) = joined.dtype_and_device();
        for scale in joined
            .parts
            .iter_mut()
            .filter_map(|part| part.scale.as_mut())
        {
            *scale = scale.to_dtype(dtype)?.to_device(&device)?;
        }
        Ok(joined)
    }

    /// The same columns with another row shape, such as images, `(C, H, W)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape has a different number of columns.
    pub fn shaped(self, shape: &[usize]) -> Result<Self> {
        if shape.iter().product::<usize>() != self.width() {
            let expected = format!("{} columns", self.width());
            return Err(Error::shape("shape of an input", shape, expected));
        }
        Ok(Self {
            shape: shape.to_vec(),
            ..self
        })
    }

    /// The same views with only these parts.
    pub(crate) fn with_parts(&self, parts: Vec<Part>) -> Result<Self> {
        let width = parts
            .iter()
            .map(|part| part.values.width())
            .sum::<Result<_>>()?;
        Ok(Self {
            parts,
            shape: vec![width],
            ..self.clone()
        })
    }

    /// View `index` alone.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no such view.
    pub(crate) fn view(&self, index: usize) -> Result<Self> {
        if index >= self.views {
            let expected = format!("a view below {}", self.views);
            return Err(Error::shape("view of an input", [index], expected));
        }
        let first = index * self.batch;
        let part = |part: &Part| -> Result<Part> {
            let scale = part.scale.as_ref();
            Ok(Part {
                name: part.name,
                values: match part.values.rows()? == self.batch {
                    true => part.values.clone(),
                    false => part.values.narrow(first, self.batch)?,
                },
                scale: scale
                    .map(|scale| scale.narrow(0, first, self.batch))
                    .transpose()?,
            })
        };
        Ok(Self {
            parts: self.parts.iter().map(part).collect::<Result<_>>()?,
            views: 1,
            ..self.clone()
        })
    }

    /// The parts, from left to right.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The part with this name.
    pub fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == Some(name))
    }

    /// The number of examples, `B`.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The number of views of each example, `V`.
    pub fn views(&self) -> usize {
        self.views
    }

    /// The number of rows, `V·B`.
    pub fn rows(&self) -> usize {
        self.batch * self.views
    }

    /// The shape of one row of [`Input::join`].
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of columns of all parts together.
    pub fn width(&self) -> usize {
        self.shape.iter().product()
    }

    /// The element type and device of the values; `f32` if no part is dense.
    pub fn dtype_and_device(&self) -> (DType, Device) {
        for part in &self.parts {
            if let Values::Dense { matrix, .. } = &part.values {
                return (matrix.dtype(), matrix.device().clone());
            }
        }
        let device = self.parts.iter().find_map(|part| part.values.device());
        (DType::F32, device.cloned().unwrap_or(Device::Cpu))
    }

    /// The same with every row multiplied by `factor`. Only [`Part::scale`] changes; the
    /// product is deferred.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn scaled(mut self, factor: f64) -> Result<Self> {
        let (dtype, device) = self.dtype_and_device();
        let rows = self.rows();
        for part in &mut self.parts {
            part.scale = Some(match &part.scale {
                Some(scale) => (scale * factor)?,
                None => kernels::filled(factor, rows, dtype, &device)?,
            });
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
