"""An LSTM that reads a whole sequence and then names its class."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from lnrnn.linen_cells import LSTMCell
from lnrnn.rnn import RNN


class SequenceClassifier(nn.Module):
  """An LSTM of any norm, and a softmax layer on its last state.

  The blocks of W_h start orthogonal, each by itself, as in all cells here; in
  the code of Cooijmans et al. that of the candidate starts as the identity.
  They also learn the initial state, which here is zero.

  Attributes:
    classes: k, number of outputs.
    features: h, units of the LSTM.
    norm: one of `norms.NAMES`, in the LSTM.
    form: where it stands, one of `cells.FORMS`.
    eps: of the norm, in squared units of what it normalises.
    gain_init: of the norm's gains; None is 1, and 0.1 for batch norm.
    forget_bias: added to the forget gate's initial bias.
    state_noise: standard deviation of the Gaussian noise that the initial h
      is in training, by a random key "noise". Without it batch norm's variance
      is zero for as long as the inputs of all cases are the same, and after
      some thirty such steps the gradient through it is not finite.
    t_max: longest training sequence, in steps; batch norm needs it.
    bn_momentum: weight of the past in batch norm's averages.
    bn_test: of `RNN`: what batch norm uses where it is not trained.
    backward: of `engine.scan`.
    remat_steps: of `engine.scan`.

  Source: Cooijmans et al. 2016, section 5.1.
  """

  classes: int = 10
  features: int = 100
  norm: str = "layer"
  form: str = "separate"
  eps: float = 1e-5
  gain_init: float | None = None
  forget_bias: float = 0.0
  state_noise: float = 0.0
  t_max: int | None = None
  bn_momentum: float = 0.99
  bn_test: str = "population"
  backward: str = "fast"
  remat_steps: int = 0

  def setup(self):
    """Declares the parts."""
    gain = self.gain_init
    self.encoder = RNN(
      LSTMCell(
        self.features,
        norm=self.norm,
        form=self.form,
        eps=self.eps,
        gain_init=None if gain is None else nn.initializers.constant(gain),
        forget_bias=self.forget_bias,
      ),
      return_carry=True,
      time_major=True,
      t_max=self.t_max,
      bn_momentum=self.bn_momentum,
      bn_test=self.bn_test,
      backward=self.backward,
      remat_steps=self.remat_steps,
    )
    self.output = nn.Dense(
      self.classes, kernel_init=nn.initializers.orthogonal()
    )

  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps sequences of one length to logits.

    Args:
      x: [b, t, d] inputs.
      train: the initial state is noisy, and batch norm normalises by the
        minibatch.

    Returns:
      [b, k] logits, float32 or wider.
    """
    dtype = jnp.result_type(x, jnp.float32)
    c = jnp.zeros((len(x), self.features), dtype)
    h = c
    if train and self.state_noise:
      noise = jax.random.normal(self.make_rng("noise"), h.shape, dtype)
      h = self.state_noise * noise
    (_, last), _ = self.encoder(
      jnp.swapaxes(x, 0, 1), initial_carry=(c, h), train=train
    )
    return self.output(last)
