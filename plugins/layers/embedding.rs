//! Layer `embedding`: a table of token embeddings, then rectified units.

use onward_core::candle_core::{Tensor, Var};
use onward_core::candle_nn::Init;
use onward_core::flow::input::{Part, CONTEXT};
use onward_core::kernels::{self, Gate};
use onward_core::optim::{Gradient, Product};
use onward_core::{
    BuildContext, Error, Input, Lesson, Linear, LocalLayer, Optimiser, Result, Step, Values,
};

onward_core::settings! {
    /// Token embeddings, then rectified units. Each one-hot slot picks a row of a table
    /// `E`:
    ///
    /// `a = max(0, (E[t₁] | … | E[t_K])·W + b)`
    ///
    /// | tensor | shape      |                                           |
    /// |--------|------------|-------------------------------------------|
    /// | `t`    | `(V·B, K)` | the tokens; an empty slot stays zero      |
    /// | `E`    | `(T, D)`   | `T` tokens, `D = dims`; starts as N(0, 1) |
    /// | `W`    | `(K·D, N)` | starts as N(0, 1/√(K·D))                  |
    ///
    /// Table and weight are one layer and learn in one step from the gradient with
    /// respect to `a`, in closed form: `W` from `δ = gradient·[a > 0]`, `E` from `δ·Wᵀ`,
    /// added to the rows that were looked up. All of this is local to the layer. The
    /// normalisation of the slots is ignored, since rows of the table have a mean square
    /// near 1.
    ///
    /// # Reference
    /// Bengio, Ducharme, Vincent, Jauvin, "A Neural Probabilistic Language Model", 2003
    /// (JMLR 3), for the table. The local learning rule is from onward.
    pub struct Embedding {
        /// The size of an embedding, `D`.
        dims: usize = 64, in 1..;
        /// The number of units. Default: the architecture's `hidden`.
        units: Option<usize> = None, in 1..;
    }
}

struct Layer {
    table: (String, Var),
    linear: Linear,
    tokens: usize,
    slots: usize,
    dims: usize,
}

/// Refuses context inputs, which may have as many columns as there are tokens.
fn check_tokens(part: &Part) -> Result<()> {
    match part.name {
        Some(CONTEXT) => {
            let problem = "expected every part of the input to be tokens, found context inputs; \
                           set sampler.ngrams=0, sampler.words=0, sampler.layout=false and \
                           sampler.recent=0, or choose another layer";
            Err(Error::unfit("embedding", problem))
        }
        _ => Ok(()),
    }
}

impl Layer {
    fn new(settings: Embedding, context: &BuildContext) -> Result<Self> {
        let (units, vars) = (context.units_or(settings.units)?, &context.vars);
        let (inputs, tokens, dims) = (context.inputs(), context.classes, settings.dims);
        let mut neutral = context.neutral.iter().flat_map(Input::parts);
        neutral.try_for_each(check_tokens)?;
        if tokens == 0 || inputs % tokens != 0 {
            let problem = format!(
                "expected one-hot slots of {tokens} tokens, \
                 found an input of {inputs} numbers"
            );
            return Err(Error::unfit("embedding", problem));
        }
        let slots = inputs / tokens;
        let of_weight = Init::Randn {
            mean: 0.,
            stdev: 1. / ((slots * dims) as f64).sqrt(),
        };
        let linear = Linear::new(vars, slots * dims, units, of_weight, true)?;
        let of_table = Init::Randn {
            mean: 0.,
            stdev: 1.,
        };
        let table = (
            vars.path("table"),
            vars.get("table", (tokens, dims), of_table)?,
        );
        Ok(Self {
            table,
            linear,
            tokens,
            slots,
            dims,
        })
    }

    /// The rows of the table for each slot, part by part: the input of the weight.
    fn look_up(&self, input: &Input) -> Result<Input> {
        let table = self.table.1.as_detached_tensor();
        let mut parts = Vec::with_capacity(input.parts().len());
        for part in input.parts() {
            parts.push(match self.slots_of(part)? {
                Slots::Tokens(index, strength) => {
                    let (rows, slots) = index.dims2()?;
                    let found = table.index_select(&index.flatten_all()?, 0)?;
                    let found = found.reshape((rows, slots * self.dims))?;
                    Values::dense(if strength == 1. {
                        found
                    } else {
                        (found * strength)?
                    })?
                }
                Slots::Empty { rows, slots } => Values::Zeros {
                    rows,
                    width: slots * self.dims,
                },
            });
        }
        Input::new(
            parts,
            input.batch(),
            input.views(),
            &[self.slots * self.dims],
        )
    }

    fn slots_of<'a>(&self, part: &'a Part) -> Result<Slots<'a>> {
        check_tokens(part)?;
        match &part.values {
            Values::OneHot {
                index,
                classes,
                strength,
            } if *classes == self.tokens => Ok(Slots::Tokens(index, *strength)),
            Values::Zeros { rows, width } if width % self.tokens == 0 => Ok(Slots::Empty {
                rows: *rows,
                slots: width / self.tokens,
            }),
            _ => {
                let problem = format!(
                    "expected every part of the input to be one-hot slots of {} tokens",
                    self.tokens
                );
                Err(Error::unfit("embedding", problem))
            }
        }
    }
}

/// The slots of a part of the input.
enum Slots<'a> {
    /// The token of each slot, `(R, K)`, and the value of its entry.
    Tokens(&'a Tensor, f64),
    Empty {
        rows: usize,
        slots: usize,
    },
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, _step: &Step) -> Result<Tensor> {
        self.linear.forward(&self.look_up(input)?, true)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let gradient = kernels::gate(lesson.gradient()?, lesson.activity, Gate::default())?;
        let found = self.look_up(lesson.input)?;
        // All slots share the table, so their gradients are stacked.
        let (mut indices, mut gradients) = (Vec::new(), Vec::new());
        let below = self.linear.input_gradients(&found, &gradient)?;
        for (part, below) in lesson.input.parts().iter().zip(below) {
            if let Slots::Tokens(index, strength) = self.slots_of(part)? {
                let rows = index.elem_count();
                indices.push(index.reshape((rows, 1))?);
                gradients.push((below.reshape((rows, self.dims))? * strength)?);
            }
        }
        self.linear.update(&found, &gradient, optimiser, step)?;
        if indices.is_empty() {
            return Ok(());
        }
        let index = Tensor::cat(&indices, 0)?;
        let values = Values::OneHot {
            index,
            classes: self.tokens,
            strength: 1.,
        };
        let products = [Product {
            values,
            delta: Tensor::cat(&gradients, 0)?.into(),
        }];
        let (name, table) = &self.table;
        optimiser.update(name, table, Gradient::Products(&products), step)
    }
}

onward_core::register! {
    dyn LocalLayer, "embedding",
    "token embeddings, then rectified units \
     (Bengio et al. 2003, JMLR 3; local rule: onward)",
    |settings: Embedding, context| Ok(Box::new(Layer::new(settings, context)?))
}
