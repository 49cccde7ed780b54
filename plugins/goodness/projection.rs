//! Goodness `projection`: a learned linear map from the activity to a goodness for each
//! class.

use onward_core::candle_core::Tensor;
use onward_core::candle_nn::Init;
use onward_core::plugin::registry::Preset;
use onward_core::{
    kernels, BuildContext, Error, GoodnessFn, Grade, Input, LastResult, Linear, Optimiser, Result,
    Step, Targets,
};

onward_core::settings! {
    /// A goodness for each class: a linear map of the activity that learns with the
    /// layer.
    ///
    /// `g[b, c] = Σᵢ cell(a)[b, i]·M[i, c]`, where `M` is `(D, C)` and learns from the
    /// same loss. If `grid` is not 0, activities of images, `(B, N, H, W)`, are first
    /// averaged over a grid of `grid×grid` cells. `(B, …)` to `(B, C)`.
    ///
    /// With the loss `cross_entropy` every block is a layer with a local classifier,
    /// without negatives. This is closer to deep supervision than to contrastive
    /// learning. The prediction of the network is the sum of the blocks' goodness.
    ///
    /// # Reference
    /// Gong, Li, Abdulla, "Mono-Forward: Backpropagation-Free Algorithm", 2025
    /// (<https://arxiv.org/abs/2501.09238>), without averages; Nøkland and Eidnes,
    /// "Training Neural Networks with Local Error Signals", 2019
    /// (<https://arxiv.org/abs/1901.06656>), for the average.
    pub struct Projection {
        /// The number of cells per side for averaging the activities of images; 0 for no
        /// averages.
        grid: usize = 0;
    }
}

struct Goodness {
    linear: Linear,
    classes: usize,
    /// The height and width of a cell, if `grid` is not 0.
    cell: Option<(usize, usize)>,
    /// The averages of the last activity, which are needed three times per step.
    kept: LastResult<Input>,
}

impl Goodness {
    fn new(settings: &Projection, context: &BuildContext) -> Result<Self> {
        let (mut inputs, mut cell) = (context.input.iter().product::<usize>(), None);
        if let (1.., &[channels, height, width]) = (settings.grid, &context.input[..]) {
            let grid = settings.grid;
            if height % grid != 0 || width % grid != 0 {
                let problem = format!(
                    "found activities of {height}×{width}, expected a `grid` that \
                     divides them, not {grid}"
                );
                return Err(Error::unfit("projection", problem));
            }
            cell = Some((height / grid, width / grid));
            inputs = channels * grid * grid;
        }
        let linear = Linear::new(
            &context.vars,
            inputs,
            context.classes,
            Init::Const(0.),
            false,
        )?;
        Ok(Self {
            linear,
            classes: context.classes,
            cell,
            kept: LastResult::default(),
        })
    }

    fn averaged(&self, activity: &Tensor) -> Result<Input> {
        let Some((height, width)) = self.cell.filter(|&cell| cell != (1, 1)) else {
            return Input::of(activity.flatten_from(1)?);
        };
        if let Some(averages) = self.kept.get(activity) {
            return Ok(averages);
        }
        let averages = kernels::cell_means(activity, [height, width])?;
        let averages = Input::of(averages.flatten_from(1)?)?;
        self.kept.put(activity, averages.clone());
        Ok(averages)
    }
}

impl GoodnessFn for Goodness {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        self.linear.forward(&self.averaged(activity)?, false)
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        let gradient = self.linear.joined_gradient(upstream)?;
        let Some((height, width)) = self.cell else {
            return Ok(gradient.reshape(activity.shape())?);
        };
        let (rows, channels, h, w) = activity.dims4()?;
        let cells = gradient.reshape((rows, channels, h / height, w / width))?;
        kernels::cell_means_gradient(&cells, [height, width])
    }

    fn learn(
        &mut self,
        activity: &Tensor,
        grade: &Grade,
        _targets: &Targets,
        optimiser: &mut Optimiser,
        step: &Step,
    ) -> Result<()> {
        match &grade.upstream {
            Some(upstream) => {
                self.linear
                    .update(&self.averaged(activity)?, upstream, optimiser, step)
            }
            None => Ok(()),
        }
    }
}

/// A goodness for each class has the loss of a classifier and needs no negatives.
const PRESETS: &[Preset] = &[Preset {
    name: "classifier",
    about: "the loss of a local classifier, without negatives",
    settings: r#"
        loss = "cross_entropy"
        sampler = "plain"
        optimiser = "adam"
        lr = 0.001
    "#,
}];

onward_core::register! {
    dyn GoodnessFn, "projection",
    "linear map to a goodness for each class, for the loss cross_entropy \
     (Mono-Forward 2025, arXiv 2501.09238)",
    |settings: Projection, context| Ok(Box::new(Goodness::new(&settings, context)?)),
    .presets(PRESETS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onward_core::candle_core::{DType, Device};
    use onward_core::Vars;

    #[test]
    fn cells_are_averaged() -> Result<()> {
        let vars = Vars::new(1, DType::F32, &Device::Cpu);
        let mut context = BuildContext::new(vars, 1).with_input(&[1, 2, 4]);
        context.classes = 2;
        let goodness = Goodness::new(&Projection { grid: 2 }, &context)?;
        let activity = Tensor::new(&[[[[1f32, 3., 0., 2.], [5., 7., 4., 8.]]]], &Device::Cpu)?;
        let cells = goodness.averaged(&activity)?.join()?.to_vec2::<f32>()?;
        assert_eq!(cells, [[2., 1., 6., 6.]]); // 1×2 pixels each
        assert!(Goodness::new(&Projection { grid: 3 }, &context).is_err());
        Ok(())
    }
}
