//! A small language model for tests: the architecture `shallow`, a softmax over the
//! tokens of a window, and its sampler `slots`.

use onward::candle_core::Tensor;
use onward::optim::{OptimiserSpec, Span};
use onward::{
    Architecture, Batch, BuildContext, Head, Input, NegativeSampler, Net, Prediction, Readout,
    Result, Role, Step, StepReport, Values, Views,
};

onward::settings! {
    /// One-hot tokens of a window, concatenated.
    struct Slots {}
}

struct OneHot {
    classes: usize,
}

impl NegativeSampler for OneHot {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, _: &Step) -> Result<Views> {
        Views::new(self.neutral(batch)?, vec![Role::Positive])
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        let slots = Values::OneHot {
            index: batch.rows().clone(),
            classes: self.classes,
            strength: 1.,
        };
        Input::new(
            vec![slots],
            batch.size(),
            1,
            &[batch.rows().dim(1)? * self.classes],
        )
    }
}

onward::register! {
    dyn NegativeSampler, "slots", "one-hot tokens of a window, concatenated (for these tests, 2026)",
    |_settings: Slots, context| Ok(Box::new(OneHot { classes: context.classes }))
}

onward::settings! {
    /// A softmax over the tokens of the window.
    struct Shallow {
        /// Whether the scores are not log-probabilities, contrary to the declaration.
        lies: bool = false;
    }
}

struct Softmax {
    net: Net,
    lies: bool,
}

impl Softmax {
    fn new(settings: &Shallow, context: &BuildContext) -> Result<Self> {
        let (vars, span) = (context.scope("head").vars, Span::Epochs(0..context.epochs));
        let spec = OptimiserSpec {
            lr: 0.3,
            weight_decay: 0.,
            ..OptimiserSpec::default()
        };
        let head = Head::new(&vars, context.inputs(), context.classes, spec, span)?;
        let readout = |name| Readout::new(name).cheap();
        let readouts = vec![
            readout("bare"),
            readout("flat").with_log_probabilities(),
            readout("softmax").with_log_probabilities(),
        ];
        let net = Net {
            heads: vec![head],
            readouts,
            ..Net::default()
        };
        Ok(Self {
            net,
            lies: settings.lies,
        })
    }
}

impl Architecture for Softmax {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, StepReport)>> {
        let input = sampler.neutral(batch)?;
        let head = &mut self.net.heads[0];
        let log = head.log_probabilities(&input)?;
        head.learn(&input, &log, batch.labels()?, step)?;
        Ok(Vec::new())
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        readout: &Readout,
        _: &Step,
    ) -> Result<Tensor> {
        let log = self.net.heads[0].log_probabilities(&sampler.neutral(batch)?)?;
        Ok(match readout.name {
            "flat" => {
                let half = (log.exp()? * 0.5)?;
                half.affine(1., 0.5 / log.dim(1)? as f64)?.log()?
            }
            "bare" => log.affine(2., 3.)?,
            _ if self.lies => log.affine(2., 0.)?,
            _ => log,
        })
    }

    fn net(&self) -> &Net {
        &self.net
    }

    fn net_mut(&mut self) -> &mut Net {
        &mut self.net
    }
}

onward::register! {
    dyn Architecture, "shallow", "a softmax over the tokens of the window (for these tests, 2026)",
    |settings: Shallow, context| Ok(Box::new(Softmax::new(&settings, context)?))
}
