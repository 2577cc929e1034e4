"""Graves's network for handwriting, with LSTMs of any norm."""

from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lnrnn import engine, recurrent_bn
from lnrnn.linen_cells import LSTMCell
from lnrnn.models import mixture, soft_window

INPUTS = ("together", "apart")


class Text(NamedTuple):
  """Texts that are written.

  Attributes:
    codes: [b, u] characters, integers below the number of them.
    lengths: [b] how many of them count.
  """

  codes: jax.Array | np.ndarray
  lengths: jax.Array | np.ndarray


class State(NamedTuple):
  """What the network carries from point to point.

  Attributes:
    lstms: (c, h) of each layer, [b, h] each.
    seen: [b, characters] what the window shows; None without text.
    place: [b, K] where its Gaussians are; None without text.
    point: [b, 3] the last point.
  """

  lstms: tuple[tuple[jax.Array, jax.Array], ...]
  seen: jax.Array | None
  place: jax.Array | None
  point: jax.Array


class Written(NamedTuple):
  """Sampled handwriting.

  Attributes:
    ink: [b, t, 3] offsets and ends of strokes; zero after the last point.
    lengths: [b] points.
    attention: [b, t, u] how much each character was seen; None without text.
  """

  ink: Any
  lengths: Any
  attention: Any


class Handwriting(nn.Module):
  """Predicts each point of a line of handwriting from those before it.

  All layers see the point and the window on the text, and each the layer
  below; all are seen by the output.

  Attributes:
    features: units of each LSTM.
    layers: number of LSTMs.
    window: K, Gaussians of the window; 0 is the prediction network, which
      knows no text.
    characters: size of the alphabet.
    mixtures: bivariate Gaussians of the output.
    norm: one of `norms.NAMES`, in the LSTMs.
    form: where it stands, one of `cells.FORMS`.
    inputs: "together": one norm for W_x [point; window; lower layer];
      "apart": one for each of the three.
    peepholes: of `LSTMCell`; Graves has them, the paper's equations not.
    eps: of the norm, in squared units of what it normalises.
    gain_init: of the norm's gains; None is 1, and 0.1 for batch norm.
    forget_bias: added to the forget gates' initial biases.
    pace: characters that an untrained window moves on in a step.
    init_sd: standard deviation of the initial weights of window and output.
    min_deviation: of the Gaussians of the output, in units of the data.
    t_max: longest training sequence, in steps; batch norm needs it.
    bn_momentum: weight of the past in batch norm's averages.
    backward: of `engine.scan`.
    remat_steps: of `engine.scan`.

  Source: Graves 2013, sections 4 and 5; Ba et al. 2016, section 6.5.
  """

  features: int = 400
  layers: int = 3
  window: int = 10
  characters: int = 57
  mixtures: int = 20
  norm: str = "layer"
  form: str = "separate"
  inputs: str = "together"
  peepholes: bool = False
  eps: float = 1e-5
  gain_init: float | None = None
  forget_bias: float = 0.0
  pace: float = 0.04
  init_sd: float = 0.075
  min_deviation: float = 0.0
  t_max: int | None = None
  bn_momentum: float = 0.99
  backward: str = "fast"
  remat_steps: int = 0

  def setup(self):
    """Declares the parts."""
    sources = [3, self.characters] if self.window else [3]
    self.widths = [sources] + [[*sources, self.features]] * (self.layers - 1)
    gain = self.gain_init
    self.lstms = [
      LSTMCell(
        self.features,
        norm=self.norm,
        form=self.form,
        sources=tuple(w) if self.inputs == "apart" else (),
        peepholes=self.peepholes,
        eps=self.eps,
        gain_init=None if gain is None else nn.initializers.constant(gain),
        forget_bias=self.forget_bias,
      )
      for w in self.widths
    ]
    if self.window:
      n = self.window
      start = jnp.repeat(jnp.array([0.0, 0.0, jnp.log(self.pace)]), n)
      self.to_window = self._linear("window", self.features, 3 * n, start)
    self.to_output = self._linear(
      "output", self.layers * self.features, mixture.width(self.mixtures)
    )
    if self.norm == "batch":
      if self.t_max is None:
        raise ValueError(
          "Handwriting: batch norm keeps statistics for each time step and"
          " needs t_max, the length of the longest training sequence"
        )
      self.statistics = [
        recurrent_bn.StepStatistics(
          sites=layer.sites,
          t_max=self.t_max,
          momentum=self.bn_momentum,
          dtype=jnp.promote_types(layer.dtype, jnp.float32),
        )
        for layer in self._recurrences(None)
      ]

  def _linear(self, name, d, n, start=None):
    """Declares kernel [d, n] and bias [n]."""
    init = nn.initializers.normal(self.init_sd)
    zeros = nn.initializers.zeros
    return (
      self.param(f"{name}_kernel", init, (d, n)),
      self.param(
        f"{name}_bias", zeros if start is None else lambda *_: start, (n,)
      ),
    )

  def __call__(
    self,
    ink: jax.Array,
    lengths: jax.Array,
    text: Text | None = None,
    *,
    state: State | None = None,
    train: bool = False,
  ) -> tuple[State, jax.Array]:
    """How likely each point is, given those before it.

    Args:
      ink: [b, t, 3] points: offset from the point before, and 1 where a
        stroke ends.
      lengths: [b] how many points count.
      text: what is written; the prediction network needs none.
      state: to go on from; None at the beginning of lines.
      train: batch norm normalises by the minibatch, and takes it into its
        averages where `batch_stats` is mutable.

    Returns:
      The state after the last points that count, and -log p of each point,
      [b, t] in nats, zero where none counts.

    Source: Graves 2013, eq. (26), the terms of its sum.
    """
    live = jnp.arange(ink.shape[1]) < jnp.asarray(lengths)[:, None]
    # What the padding holds, NaN included, does not matter.
    ink = jnp.where(live[..., None], ink, 0)
    state, outputs = self._run(ink, lengths, text, state, train=train)
    mix = mixture.mixture(outputs, min_deviation=self.min_deviation)
    nll = -mixture.log_likelihood(mix, jnp.moveaxis(ink, 0, 1))
    return state, jnp.where(live, nll.T, 0)

  def start(self, b: int) -> State:
    """The state at the beginning of lines; all is zero."""
    zeros = lambda *shape: jnp.zeros((b, *shape), self.to_output[0].dtype)
    wide = bool(self.window)
    return State(
      lstms=tuple(
        (zeros(self.features), zeros(self.features)) for _ in self.lstms
      ),
      seen=zeros(self.characters) if wide else None,
      place=zeros(self.window) if wide else None,
      point=zeros(3),
    )

  def sample(
    self,
    key: jax.Array,
    text: Text | None = None,
    *,
    n: int = 1,
    steps: int,
    bias: jax.Array | float = 0.0,
    prime: tuple[jax.Array, jax.Array, Text | None] | None = None,
  ) -> Written:
    """Writes texts.

    A line ends when the window is more on what follows its text than on any
    of its characters, or after so many steps.

    Args:
      key: of all that is random.
      text: to write.
      n: lines, where there is no text.
      steps: most points.
      bias: of `mixture.mixture`, [b] or a number.
      prime: (ink [b, t, 3], lengths [b], its text) of lines to go on from, in
        whose style is written then.

    Returns:
      What was written.

    Source: Graves 2013, sections 5.3 to 5.5.
    """
    n = n if text is None else len(text.lengths)
    state = self.start(n)
    if prime is not None:
      ink, lengths, before = prime
      if text is not None and before is not None:
        text = joined(before, text)
      state, _ = self._run(ink, lengths, text, state)
    layers = self._recurrences(text, show=True)
    steps_of = [layer.step for layer in layers]
    moments = [None] * len(layers)
    if self.norm == "batch":
      steps_of = [recurrent_bn.by_population(v, self.eps) for v in layers]
      # Lines to go on from are taken as of one length, which the sampler's are.
      done = 0 if prime is None else prime[0].shape[1]
      moments = [
        jax.tree.map(lambda a: a[done:], s.population(done + steps))
        for s in self.statistics
      ]
    keys = jax.random.split(key, steps)
    u = 0 if text is None else text.codes.shape[1]
    text_ends = None if text is None else jnp.asarray(text.lengths)[:, None]
    buffers = (
      jnp.zeros((steps, n, 3), state.point.dtype),
      jnp.zeros((steps, n, u), state.point.dtype),
    )

    def unfinished(loop):
      t, _, live, _ = loop
      return (t < steps) & live.any()

    def write(loop):
      t, state, live, (ink, seen) = loop
      at = jax.tree.map(lambda a: a[t], moments)
      state, outputs, phi = self._advance(layers, steps_of, at, state)
      mix = mixture.mixture(
        outputs, min_deviation=self.min_deviation, bias=bias
      )
      point = mixture.sample(mix, keys[t])
      if text_ends is not None:
        # Eq. (46) one character beyond the text tells that it is written.
        beyond = jnp.take_along_axis(phi, text_ends, axis=1)[:, 0]
        mine = jnp.arange(u) < text_ends
        phi = jnp.where(mine, phi[:, :u], 0)
        # Where all Gaussians are far beyond, both may be 0.
        within = state.place.min(axis=1) <= text_ends[:, 0] + 1
        live &= within & (beyond <= phi.max(axis=1))
        seen = seen.at[t].set(jnp.where(live[:, None], phi, 0))
      ink = ink.at[t].set(jnp.where(live[:, None], point, 0))
      state = state._replace(point=point)
      return t + 1, state, live, (ink, seen)

    live = jnp.ones(n, bool)
    lengths = jnp.zeros(n, jnp.int32)

    def counted(loop):
      loop, lengths = loop
      loop = write(loop)
      return loop, lengths + loop[2]

    loop, lengths = jax.lax.while_loop(
      lambda v: unfinished(v[0]), counted, ((0, state, live, buffers), lengths)
    )
    ink, seen = (jnp.moveaxis(v, 0, 1) for v in loop[3])
    return Written(ink, lengths, None if text is None else seen)

  def _run(self, ink, lengths, text, state, *, train=False):
    """Runs over given points: (state, outputs [t, b, m])."""
    state = self.start(len(ink)) if state is None else state
    lengths = jnp.asarray(lengths, jnp.int32)
    points = jnp.moveaxis(ink, 0, 1)
    # Each point is predicted from the one before.
    x = jnp.concatenate([state.point[None], points[:-1]])
    live = jnp.arange(len(x))[:, None] < lengths
    lstms, hs, inputs = [], [], x
    for i, layer in enumerate(self._recurrences(text)):
      carry = state.lstms[i]
      if i == 0 and self.window:
        carry = (carry, state.seen, state.place)
      carry, y = self._scan(i, layer, carry, inputs, live, train)
      if i == 0 and self.window:
        carry, state_seen, place = carry
        y, seen = y
        x = jnp.concatenate([x, seen], axis=-1)
        state = state._replace(seen=state_seen, place=place)
      lstms.append(carry)
      hs.append(jnp.where(live[..., None], y, 0))
      inputs = jnp.concatenate([x, hs[-1]], axis=-1)
    last = jnp.clip(lengths - 1, 0)[:, None, None]
    point = jnp.take_along_axis(ink, last, axis=1)[:, 0]
    state = state._replace(
      lstms=tuple(lstms),
      point=jnp.where(lengths[:, None] > 0, point, state.point),
    )
    kernel, bias = self.to_output
    return state, jnp.concatenate(hs, axis=-1) @ kernel + bias

  def _scan(self, i, layer, carry, xs, live, train):
    """Runs one layer over all steps."""

    def scan(step, consts, carry, xs):
      return engine.scan(
        step,
        layer.weights,
        consts,
        carry,
        xs,
        backward=self.backward,
        remat_steps=self.remat_steps,
      )

    if self.norm == "batch":
      return self.statistics[i].run(
        scan, layer, carry, xs, live, eps=self.eps, train=train
      )
    return scan(engine.masked(layer.step), layer.consts, carry, (xs, live))

  def _advance(self, layers, steps, moments, state: State) -> Any:
    """One point on: (state, outputs [b, m], phi [b, u + 1])."""
    x, lstms, hs, seen, phi = state.point, [], [], None, None
    place = state.place
    inputs = x
    for i, (layer, step) in enumerate(zip(layers, steps, strict=True)):
      carry = state.lstms[i]
      if i == 0 and self.window:
        carry = (carry, state.seen, state.place)
      given = inputs if moments[i] is None else (inputs, moments[i])
      dot = lambda v, name, weights=layer.weights: v @ weights[name]
      carry, h = step(dot, layer.consts, carry, given)
      if i == 0 and self.window:
        carry, seen, place = carry
        h, _, phi = h
        x = jnp.concatenate([x, seen], axis=-1)
      lstms.append(carry)
      hs.append(h)
      inputs = jnp.concatenate([x, h], axis=-1)
    kernel, bias = self.to_output
    outputs = jnp.concatenate(hs, axis=-1) @ kernel + bias
    return State(tuple(lstms), seen, place, state.point), outputs, phi

  def _recurrences(
    self, text: Text | None, *, show: bool = False
  ) -> list[engine.Recurrence]:
    """The layers, the first with the window in its loop."""
    layers = [
      lstm.recurrences(sum(widths))[0]
      for lstm, widths in zip(self.lstms, self.widths, strict=True)
    ]
    if self.window:
      layers[0] = self._windowed(layers[0], text, show)
    return layers

  def _windowed(self, lstm: engine.Recurrence, text, show: bool):
    """The first layer and the window, which is among its own inputs."""
    kernel, bias = self.to_window
    codes = lengths = None
    if text is not None:
      # Integers have no gradient, which would be a text for every step.
      codes = jnp.asarray(text.codes)
      lengths = jnp.asarray(text.lengths, jnp.int32)
      u = codes.shape[1]

    def step_with(lstm_step: Any) -> engine.Step:
      def step(dot, consts, carry, x):
        state, seen, place = carry
        state, h = lstm_step(
          dot, consts["lstm"], state, jnp.concatenate([x, seen], axis=-1)
        )
        window = soft_window.window(dot(h, "window") + consts["window"], place)
        phi = soft_window.attention(window, u + 1)
        mine = jnp.arange(u) < consts["lengths"][:, None]
        one_hot = jax.nn.one_hot(
          jnp.where(mine, consts["codes"], -1), self.characters, dtype=phi.dtype
        )
        # Graves 2013, eq. (47).
        seen = jnp.einsum("bu,buc->bc", phi[:, :u], one_hot)
        out = (h, seen, phi) if show else (h, seen)
        return (state, seen, window.place), out

      return step

    renormalised: Any = lstm.normalised
    return lstm._replace(
      step=step_with(lstm.step),
      weights={**lstm.weights, "window": kernel},
      consts={
        "lstm": lstm.consts,
        "window": bias,
        "codes": codes,
        "lengths": lengths,
      },
      normalised=lambda normalise: step_with(renormalised(normalise)),
    )


def joined(first: Text, second: Text) -> Text:
  """Texts [b] one after the other."""
  u = first.codes.shape[1] + second.codes.shape[1]
  at = jnp.arange(u)
  into = at - first.lengths[:, None]
  pick = lambda text, at: jnp.take_along_axis(
    text.codes, jnp.clip(at, 0, text.codes.shape[1] - 1), axis=1
  )
  wide = jnp.broadcast_to(at, into.shape)
  codes = jnp.where(into < 0, pick(first, wide), pick(second, into))
  return Text(codes, first.lengths + second.lengths)
