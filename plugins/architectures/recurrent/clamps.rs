//! What is clamped below and above the layers of a recurrent net, taken from a sampler's views.

use onward_core::flow::input::LABEL;
use onward_core::{BuildContext, Error, Input, Result, Values};

use super::Recurrent;

/// Which columns of a sampler's views are clamped where.
#[derive(Clone, Copy)]
pub(super) struct Clamps {
    /// How many columns of the views are the label, or none.
    label: usize,
    /// How many columns are below at a time.
    pub below: usize,
    /// How many frames there are.
    pub frames: usize,
    /// Height and width of the maps, if layers hear each other pixel by pixel.
    map: Option<[usize; 2]>,
}

/// Views taken apart.
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
        // A label that covers pixels stays below, with the pixels around it.
        let is_beside = input == example + context.label;
        let label = if is_beside { context.label } else { 0 };
        let frames = if context.example.len() == 4 {
            context.example[0]
        } else {
            1
        };
        let problem = match (frames, label) {
            (2.., 0) => "videos need a sampler that puts the label behind them, as label_concat does".to_string(),
            (2.., _) if frames != steps => format!("videos of {frames} frames need `steps = {frames}`"),
            _ if jitter > 0 && (frames > 1 || label == 0 || context.example.len() != 3) => {
                "only still images with the label behind them can be moved at every step; set `jitter = 0`".to_string()
            }
            (_, 0) if settings.label_units > 0 => {
                "`label_units` projects the label, and the sampler puts none behind the example, as label_concat does; set \
                 `label_units = 0`"
                    .to_string()
            }
            _ => {
                let below = (input - label) / frames.max(1);
                let map = settings.maps.then(|| map(settings, &context.example, below, label)).transpose()?;
                return Ok(Self { label, below, frames, map });
            }
        };
        Err(unfit(problem))
    }

    /// How many columns stand above the last layer: the label, or a map that is dealt to the classes, or none.
    pub fn above(self) -> usize {
        if self.label > 0 && self.map.is_some() {
            return self.places();
        }
        self.label
    }

    /// How many columns a unit has: one, or the pixels of a map.
    pub fn places(self) -> usize {
        self.map.map_or(1, |[height, width]| height * width)
    }

    /// The shape of what has this many columns, as columns or as channels of maps.
    pub fn shape(self, columns: usize) -> Vec<usize> {
        match self.map {
            Some([height, width]) => vec![columns / (height * width), height, width],
            None => vec![columns],
        }
    }

    pub fn take(self, input: &Input) -> Result<Clamped> {
        let (batch, views) = (input.batch(), input.views());
        if input.parts().iter().any(|part| part.scale.is_some()) {
            let problem = "the parts of a sampler's views must not be scaled or normalised: this is done here";
            return Err(unfit(problem));
        }
        let is_above = |name: Option<&str>| self.label > 0 && name == Some(LABEL);
        let parts = input.parts().iter().filter(|part| !is_above(part.name));
        let below = parts.map(|part| part.values.clone()).collect();
        let mut label = None;
        if self.label > 0 {
            let part = input.part(LABEL).ok_or_else(|| {
                let problem = "a view has no part named LABEL, and the neutral view has one; all views of a sampler need the same parts";
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

    /// What stands above: the label, or a map that is dealt to the classes.
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

/// Height and width of the maps: those of the images below.
fn map(settings: &Recurrent, example: &[usize], below: usize, label: usize) -> Result<[usize; 2]> {
    let problem = match example[..] {
        _ if settings.label_units > 0 => {
            "with `maps` the label is a map, and not projected; set `label_units = 0`".to_string()
        }
        [.., height, width] if label > height * width => {
            format!("{label} classes do not fit into maps of {height}×{width}; set `maps = false`")
        }
        [.., channels, height, width] if channels * height * width == below => return Ok([height, width]),
        _ => format!("`maps` need images (channels, height, width); {example:?}, {below} numbers below, are none"),
    };
    Err(unfit(problem))
}

pub(super) fn unfit(problem: impl Into<String>) -> Error {
    Error::unfit("recurrent", problem)
}
