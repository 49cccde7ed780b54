//! The inputs of a recurrent network that are clamped below and above its layers: parts
//! of a sampler's views.

use onward_core::flow::input::LABEL;
use onward_core::{BuildContext, Error, Input, Result, Values};

use super::Recurrent;

/// The division of a sampler's views into the columns below and above.
#[derive(Clone, Copy)]
pub(super) struct Clamps {
    /// The number of label columns in the views; 0 without a label.
    label: usize,
    /// The number of columns below at each time step.
    pub below: usize,
    /// The number of frames.
    pub frames: usize,
    /// The height and width of the maps, with the setting `maps`.
    map: Option<[usize; 2]>,
}

/// Views divided into the parts below and above.
pub(super) struct Clamped {
    pub below: Vec<Values>,
    pub label: Option<Input>,
    pub batch: usize,
    pub views: usize,
}

impl Clamps {
    pub fn new(settings: &Recurrent, context: &BuildContext) -> Result<Self> {
        let (steps, jitter) = (settings.steps, settings.jitter);
        let (input, example) = (context.inputs(), context.example.iter().product::<usize>());
        // A label that replaces pixels is clamped below, with the other pixels.
        let is_beside = input == example + context.label;
        let label = if is_beside { context.label } else { 0 };
        let frames = if context.example.len() == 4 {
            context.example[0]
        } else {
            1
        };
        let problem = match (frames, label) {
            (2.., 0) => "videos need an appended label, as from label_concat".to_string(),
            (2.., _) if frames != steps => {
                format!("videos of {frames} frames need `steps = {frames}`")
            }
            _ if jitter > 0 && (frames > 1 || label == 0 || context.example.len() != 3) => {
                "`jitter` needs images with an appended label; set `jitter = 0`".to_string()
            }
            (_, 0) if settings.label_units > 0 => {
                "`label_units` needs an appended label, as from label_concat; \
                 or set `label_units = 0`"
                    .to_string()
            }
            _ => {
                let below = (input - label) / frames.max(1);
                let map = settings
                    .maps
                    .then(|| map(settings, &context.example, below, label))
                    .transpose()?;
                return Ok(Self {
                    label,
                    below,
                    frames,
                    map,
                });
            }
        };
        Err(unfit(problem))
    }

    /// The number of columns above the last layer: those of the label or of a label map;
    /// 0 without a label.
    pub fn above(self) -> usize {
        if self.label > 0 && self.map.is_some() {
            return self.places();
        }
        self.label
    }

    /// The number of columns per unit: 1, or the pixels of a map.
    pub fn places(self) -> usize {
        self.map.map_or(1, |[height, width]| height * width)
    }

    /// The shape of an input with this many columns: flat, or the channels of maps.
    pub fn shape(self, columns: usize) -> Vec<usize> {
        match self.map {
            Some([height, width]) => vec![columns / (height * width), height, width],
            None => vec![columns],
        }
    }

    pub fn take(self, input: &Input) -> Result<Clamped> {
        let (batch, views) = (input.batch(), input.views());
        if input.parts().iter().any(|part| part.scale.is_some()) {
            let problem = "found views with scaled or normalised parts, expected them \
                           unscaled: the architecture normalises them";
            return Err(unfit(problem));
        }
        let is_above = |name: Option<&str>| self.label > 0 && name == Some(LABEL);
        let parts = input.parts().iter().filter(|part| !is_above(part.name));
        let below = parts.map(|part| part.values.clone()).collect();
        let mut label = None;
        if self.label > 0 {
            let part = input.part(LABEL).ok_or_else(|| {
                let problem = "a view has no part named LABEL, but the neutral view has \
                               one; all views of a sampler need the same parts";
                unfit(problem)
            })?;
            let above = self.label_above(&part.values, input)?;
            label = Some(Input::new([above], batch, views, &[self.above()])?);
        }
        Ok(Clamped {
            below,
            label,
            batch,
            views,
        })
    }

    /// The input above the last layer: the label, or a label map.
    fn label_above(self, label: &Values, input: &Input) -> Result<Values> {
        if self.map.is_none() {
            return Ok(label.clone());
        }
        let (dtype, device) = input.dtype_and_device();
        let (times, rest) = (self.places() / self.label, self.places() % self.label);
        let dealt = label.to_matrix(dtype, &device)?.repeat((1, times))?;
        Values::dense(dealt.pad_with_zeros(1, 0, rest)?)
    }
}

/// The height and width of the maps: those of the images below.
fn map(settings: &Recurrent, example: &[usize], below: usize, label: usize) -> Result<[usize; 2]> {
    let problem = match example[..] {
        _ if settings.label_units > 0 => "with `maps` the label is a map and is \
                                          not projected; set `label_units = 0`"
            .to_string(),
        [.., height, width] if label > height * width => {
            format!(
                "{label} classes do not fit into \
                 {height}×{width} maps; set `maps = false`"
            )
        }
        [.., channels, height, width] if channels * height * width == below => {
            return Ok([height, width])
        }
        _ => format!(
            "`maps`: expected images (channels, height, width), found shape {example:?} \
             with {below} numbers below the first layer"
        ),
    };
    Err(unfit(problem))
}

pub(super) fn unfit(problem: impl Into<String>) -> Error {
    Error::unfit("recurrent", problem)
}
