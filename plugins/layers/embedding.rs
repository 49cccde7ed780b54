//! Layer `embedding`: tokens through a table that all slots share, then rectified units.

use onward_core::candle_core::Tensor;
use onward_core::candle_nn::Init;
use onward_core::kernels;
use onward_core::optim::{Gradient, Product};
use onward_core::{
    BuildContext, Error, Input, Lesson, Linear, LocalLayer, Optimiser, Result, Step, Values,
};

onward_core::settings! {
    /// One-hot slots, each replaced by a row of a table `E`, side by side, then rectified units:
    ///
    /// `a = max(0, (E[t₁] | … | E[t_K])·W + b)`
    ///
    /// | tensor | shape      |                                                           |
    /// |--------|------------|-----------------------------------------------------------|
    /// | `t`    | `(V·B, K)` | the tokens; a slot that is silent stays zero               |
    /// | `E`    | `(T, D)`   | `T` tokens, `D = dims`; starts as N(0, 1)                  |
    /// | `W`    | `(K·D, N)` | starts as N(0, 1/√(K·D))                                   |
    ///
    /// Table and weight are one layer, and learn in one step from the gradient with respect to `a`, in closed form: `W`
    /// from `δ = gradient·[a > 0]`, `E` from `δ·Wᵀ`, scattered to the rows that were gathered. Nothing outside the layer
    /// is needed for it. How the slots were normalised before is ignored: rows of the table have a mean square near 1.
    ///
    /// # Reference
    /// Bengio, Ducharme, Vincent, Jauvin, "A Neural Probabilistic Language Model", 2003 (JMLR 3), for the table; made
    /// for onward as a layer that learns by itself.
    pub struct Embedding {
        /// The length of a row of the table, `D`.
        dims: usize = 64, in 1..;
        /// How many units; usually the architecture says it.
        units: Option<usize> = None, in 1..;
    }
}

struct Layer {
    table: (String, onward_core::candle_core::Var),
    linear: Linear,
    tokens: usize,
    slots: usize,
    dims: usize,
}

impl Layer {
    fn new(settings: Embedding, context: &BuildContext) -> Result<Self> {
        let fault = |problem: String| Error::Mismatch {
            place: "embedding".into(),
            problem,
        };
        let units = settings
            .units
            .or(context.units)
            .ok_or_else(|| fault("nobody says how many `units`".into()))?;
        let (inputs, tokens, dims) = (
            context.input.iter().product::<usize>(),
            context.classes,
            settings.dims,
        );
        if tokens == 0 || inputs % tokens != 0 {
            return Err(fault(format!(
                "an input of {inputs} numbers is not made of one-hot slots of {tokens} tokens"
            )));
        }
        let slots = inputs / tokens;
        let init = Init::Randn {
            mean: 0.,
            stdev: 1. / ((slots * dims) as f64).sqrt(),
        };
        let linear = Linear::new(&context.vars, slots * dims, units, init, true)?;
        let table = context.vars.get(
            "table",
            (tokens, dims),
            Init::Randn {
                mean: 0.,
                stdev: 1.,
            },
        )?;
        Ok(Self {
            table: (context.vars.path("table"), table),
            linear,
            tokens,
            slots,
            dims,
        })
    }

    /// The slots' rows of the table, part by part: what the weight meets.
    fn gather(&self, input: &Input) -> Result<Input> {
        let table = self.table.1.as_detached_tensor();
        let mut parts = Vec::with_capacity(input.parts().len());
        for part in input.parts() {
            let (index, strength) = self.slots_of(&part.values)?;
            let (rows, slots) = index.dims2()?;
            let gathered = table
                .index_select(&index.flatten_all()?, 0)?
                .reshape((rows, slots * self.dims))?;
            parts.push(Values::dense(if strength == 1. {
                gathered
            } else {
                (gathered * strength)?
            })?);
        }
        Input::new(
            parts,
            input.batch(),
            input.views(),
            &[self.slots * self.dims],
        )
    }

    fn slots_of<'a>(&self, values: &'a Values) -> Result<(&'a Tensor, f64)> {
        match values {
            Values::OneHot {
                index,
                classes,
                strength,
            } if *classes == self.tokens => Ok((index, *strength)),
            _ => Err(Error::Mismatch {
                place: "embedding".into(),
                problem: format!(
                    "every part of the input has to be one-hot slots of {} tokens",
                    self.tokens
                ),
            }),
        }
    }
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, _step: &Step) -> Result<Tensor> {
        self.linear.forward(&self.gather(input)?, true)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let delta = kernels::gate(lesson.gradient()?, lesson.activity, 1.)?;
        let gathered = self.gather(lesson.input)?;
        // All slots meet the same rows: their deltas stand one upon the other.
        let (mut indices, mut deltas) = (Vec::new(), Vec::new());
        for (part, below) in lesson
            .input
            .parts()
            .iter()
            .zip(self.linear.below(&gathered, &delta)?)
        {
            let (index, strength) = self.slots_of(&part.values)?;
            if strength != 0. {
                let rows = index.elem_count();
                indices.push(index.reshape((rows, 1))?);
                deltas.push((below.reshape((rows, self.dims))? * strength)?);
            }
        }
        self.linear.learn(&gathered, &delta, optimiser, step)?;
        if indices.is_empty() {
            return Ok(());
        }
        let values = Values::OneHot {
            index: Tensor::cat(&indices, 0)?,
            classes: self.tokens,
            strength: 1.,
        };
        let products = [Product {
            values,
            delta: Tensor::cat(&deltas, 0)?.into(),
        }];
        optimiser.learn(
            &self.table.0,
            &self.table.1,
            Gradient::Products(&products),
            step,
        )
    }
}

onward_core::register! {
    dyn LocalLayer, "embedding", "tokens through a shared table, then rectified units (Bengio et al. 2003, JMLR 3; made for onward)",
    |settings: Embedding, context| Ok(Box::new(Layer::new(settings, context)?))
}
