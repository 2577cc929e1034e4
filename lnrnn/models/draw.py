"""DRAW: a recurrent autoencoder that draws an image glimpse by glimpse."""

from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from lnrnn import engine, recurrent_bn
from lnrnn.errors import choices
from lnrnn.linen_cells import LSTMCell
from lnrnn.models import glimpse

NORMED = ("both", "encoder", "decoder")


def _by_source(*widths: int) -> nn.initializers.Initializer:
  """Draws the rows of each source by its own number of inputs.

  By the common number the few values that are read would be drowned in the
  many of the decoder's state.
  """

  def init(key, shape, dtype=jnp.float32):
    keys = jax.random.split(key, len(widths))
    lecun = nn.initializers.lecun_normal()
    parts = zip(keys, widths, strict=True)
    return jnp.concatenate([lecun(k, (n, shape[1]), dtype) for k, n in parts])

  return init


class Terms(NamedTuple):
  """What one pass says about each image, [..., b] each, in nats.

  Attributes:
    nll: -log p(x | z), of the pixels.
    kl: KL(q(z_1:T | x) || p(z_1:T)), summed over the glimpses.
    log_weight: log p(x, z) - log q(z | x) of the latents drawn; the mean of
      its exponential is p(x).
  """

  nll: jax.Array
  kl: jax.Array
  log_weight: jax.Array

  @property
  def bound(self) -> jax.Array:
    """The variational bound on -log p(x) (Gregor et al. 2015, eq. (12))."""
    return self.nll + self.kl


class Drawing(NamedTuple):
  """The course of a drawing.

  Attributes:
    canvas: [t, b, height, width] ink probabilities after each glimpse.
    window: where each wrote, fields [t, b]; None without attention.
  """

  canvas: jax.Array
  window: glimpse.Window | None


class DRAW(nn.Module):
  """DRAW with LSTMs of any norm.

  Attributes:
    glimpses: T, steps of drawing.
    features: units of the encoder, and of the decoder.
    latents: width of z.
    read_size: N x N filters that read; 0 reads the whole images.
    write_size: N x N filters that write; 0 writes the whole canvas.
    height: B of the images, in pixels.
    width: A of the images, in pixels.
    norm: one of `norms.NAMES`, in the LSTMs.
    form: where it stands, one of `cells.FORMS`; the paper's is "cell".
    normed: which LSTMs have it, one of `NORMED`.
    eps: of the norm, in squared units of what it normalises.
    gain_init: of the norm's gains; None is 1, and 0.1 for batch norm.
    forget_bias: added to the forget gates' initial biases.
    init_sd: standard deviation of the initial weights of latents, patch and
      windows. Where it is large, an untrained canvas is all noise, and what
      is learned first is to leave the latents alone.
    read_start: (stride, standard deviation) of the reading filters of an
      untrained model, in pixels.
    write_start: the same of the writing filters.
    bn_momentum: weight of the past in batch norm's averages.
    backward: of `engine.scan`.
    remat_steps: of `engine.scan`.

  Source: Gregor et al. 2015; Ba et al. 2016, section 6.4 and supplement,
  eqs. (29)-(31).
  """

  glimpses: int = 64
  features: int = 256
  latents: int = 100
  read_size: int = 2
  write_size: int = 5
  height: int = 28
  width: int = 28
  norm: str = "layer"
  form: str = "cell"
  normed: str = "both"
  eps: float = 1e-5
  gain_init: float | None = None
  forget_bias: float = 1.0
  init_sd: float = 0.01
  read_start: tuple[float, float] = (7.0, 3.0)
  write_start: tuple[float, float] = (2.0, 1.0)
  bn_momentum: float = 0.99
  backward: str = "fast"
  remat_steps: int = 0

  def __post_init__(self):
    if self.normed not in NORMED:
      raise ValueError(
        f"DRAW: normed={self.normed!r}: {choices(self.normed, NORMED)}"
      )
    for name in ("read_size", "write_size"):
      if (n := getattr(self, name)) != 0 and n < 2:
        raise ValueError(f"DRAW: {name}={n} is not 0, nor 2 or more")
    for name in ("glimpses", "features", "latents", "height", "width"):
      if (n := getattr(self, name)) < 1:
        raise ValueError(f"DRAW: {name}={n} is below 1")
    super().__post_init__()

  def setup(self):
    """Declares the parts."""
    pixels = self.height * self.width
    self.seen = 2 * (self.read_size**2 or pixels)
    self.written = self.write_size**2 or pixels
    h = self.features
    self.encoder = self._lstm("encoder", kernel_init=_by_source(self.seen, h))
    self.decoder = self._lstm("decoder")
    self.to_latent = self._linear("latent", 2 * self.latents)
    self.to_patch = self._linear("patch", self.written)
    windows = {
      "read": (self.read_size, *self.read_start),
      "write": (self.write_size, *self.write_start),
    }
    self.to_window = {
      name: self._linear(f"{name}_window", 5, self._window_bias(*w))
      for name, w in windows.items()
      if w[0]
    }
    # Gregor et al. learn the first canvas and the first states.
    zeros = nn.initializers.zeros
    self.canvas_start = self.param(
      "canvas_start", zeros, (self.height, self.width)
    )
    self.starts = [
      tuple(self.param(f"{part}_start_{n}", zeros, (h,)) for n in "ch")
      for part in ("encoder", "decoder")
    ]
    if self.norm == "batch":
      self.statistics = recurrent_bn.StepStatistics(
        sites=self._recurrence(self._lstms()).sites,
        t_max=self.glimpses,
        momentum=self.bn_momentum,
        dtype=jnp.promote_types(self.canvas_start.dtype, jnp.float32),
      )

  def _lstm(self, part: str, **options) -> LSTMCell:
    own = self.normed in ("both", part)
    gain = self.gain_init
    return LSTMCell(
      self.features,
      norm=self.norm if own else "none",
      form=self.form,
      eps=self.eps,
      gain_init=None if gain is None else nn.initializers.constant(gain),
      forget_bias=self.forget_bias,
      **options,
    )

  def _linear(self, name: str, n: int, bias: jax.Array | None = None):
    """Declares kernel [features, n] and bias [n] of a map of a state."""
    init = nn.initializers.normal(self.init_sd)
    zeros = nn.initializers.zeros
    return (
      self.param(f"{name}_kernel", init, (self.features, n)),
      self.param(
        f"{name}_bias", zeros if bias is None else lambda *_: bias, (n,)
      ),
    )

  def _window_bias(self, n, stride, deviation) -> jax.Array:
    """The five outputs for a centred window, gamma 1."""
    largest = (max(self.height, self.width) - 1) / (n - 1)
    logs = jnp.log(jnp.array([deviation**2, stride / largest, 1.0]))
    return jnp.concatenate([jnp.zeros(2), logs])

  def __call__(
    self, image: jax.Array, key: jax.Array, *, train: bool = False
  ) -> Terms:
    """Encodes and decodes images with latents drawn once.

    Args:
      image: [b, height, width] of 0 and 1, uint8 or booleans.
      key: of the latents.
      train: batch norm normalises by the minibatch, and takes it into its
        averages where `batch_stats` is mutable.

    Returns:
      The terms of the bound.

    Raises:
      ValueError: images of another shape or dtype.
    """
    (canvas, *_), (kl, log_ratio) = self._run(image, key, train=train)
    x = image.astype(canvas.dtype)
    # -log p(x | z) of a Bernoulli with log-odds c: softplus(c) - x c.
    nll = (jax.nn.softplus(canvas) - x * canvas).sum(axis=(-2, -1))
    return Terms(nll, kl.sum(axis=0), log_ratio.sum(axis=0) - nll)

  def reconstruct(self, image: jax.Array, key: jax.Array) -> Drawing:
    """The course of drawing images [b, height, width] again."""
    return self._run(image, key, show=True)[1]

  def generate(self, key: jax.Array, n: int) -> Drawing:
    """The course of drawing n images from latents of the prior."""
    return self._run(None, key, n=n, show=True)[1]

  def _run(self, image, key, *, n=0, train=False, show=False):
    """Scans over the glimpses; without image, from the prior."""
    n = n if image is None else len(image)
    noise = jax.random.normal(key, (self.glimpses, n, self.latents))
    if image is not None:
      fits = image.shape[1:] == (self.height, self.width)
      # Of a wider type a part would be cut off in silence.
      if not fits or image.dtype not in (jnp.uint8, jnp.bool_):
        raise ValueError(
          f"DRAW: images of shape {image.shape} and dtype {image.dtype}:"
          f" uint8 or booleans [b, {self.height}, {self.width}] are needed"
        )
      # Bytes have no gradient, which would be an image per glimpse.
      image = image.astype(jnp.uint8)
    layer = self._recurrence(self._lstms(), image, show=show)
    carry = jax.tree.map(
      lambda a: jnp.broadcast_to(a, (n, *a.shape)),
      (self.canvas_start, *map(tuple, self.starts)),
    )

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

    if not layer.sites:
      return scan(layer.step, layer.consts, carry, noise)
    return self.statistics.run(
      scan, layer, carry, noise, eps=self.eps, train=train
    )

  def _lstms(self) -> dict[str, engine.Recurrence]:
    read = self.seen + self.features
    return {
      "encoder": self.encoder.recurrences(read)[0],
      "decoder": self.decoder.recurrences(self.latents)[0],
    }

  def _recurrence(self, lstms, image=None, *, show=False) -> engine.Recurrence:
    """The step over glimpses, with its weights, as the engine takes it."""
    linear = {"latent": self.to_latent, "patch": self.to_patch}
    linear |= {f"{name}_window": v for name, v in self.to_window.items()}
    weights = {name: kernel for name, (kernel, _) in linear.items()}
    for part, lstm in lstms.items():
      weights |= {f"{part}/{name}": w for name, w in lstm.weights.items()}
    consts = {
      "image": image,
      **{part: lstm.consts for part, lstm in lstms.items()},
      **{name: bias for name, (_, bias) in linear.items()},
    }

    def normalised(normalise):
      def part(name):
        if not lstms[name].sites:
          return lstms[name].step
        return lstms[name].normalised(
          lambda site, a, affine: normalise(f"{name}_{site}", a, affine)
        )

      return self._step(part("encoder"), part("decoder"), show=show)

    return engine.Recurrence(
      step=self._step(*(lstm.step for lstm in lstms.values()), show=show),
      weights=weights,
      consts=consts,
      sites={
        f"{part}_{site}": width
        for part, lstm in lstms.items()
        for site, width in lstm.sites.items()
      },
      normalised=normalised,
    )

  def _step(self, encode, decode, *, show: bool) -> engine.Step:
    """One glimpse.

    Args:
      encode: step of the encoder's LSTM.
      decode: step of the decoder's LSTM.
      show: put out canvas and window, not the terms of the bound.

    Returns:
      (dot, consts, (canvas, encoder, decoder), noise) -> (the same of the
      next glimpse, what is put out).
    """

    def step(dot, consts, carry, noise):
      canvas, encoder, decoder = carry

      def linear(v, name):
        return dot(v, name) + consts[name]

      def lstm(run, name, state, x):
        own = lambda v, w: dot(v, f"{name}/{w}")
        return run(own, consts[name], state, x)

      z, terms = noise, None
      if consts["image"] is not None:
        h = decoder[1]
        seen = self._read(linear, consts["image"], canvas, h)
        encoder, h = lstm(
          encode, "encoder", encoder, jnp.concatenate([seen, h], axis=-1)
        )
        # Gregor et al., eqs. (1), (2), (5) and (11).
        mean, log_sd = jnp.split(linear(h, "latent"), 2, axis=-1)
        z = mean + jnp.exp(log_sd) * noise
        square = jnp.square
        kl = (square(mean) + jnp.exp(2 * log_sd) - 1) / 2 - log_sd
        log_ratio = (square(noise) - square(z)) / 2 + log_sd
        terms = kl.sum(axis=-1), log_ratio.sum(axis=-1)
      decoder, h = lstm(decode, "decoder", decoder, z)
      added, window = self._write(linear, h)
      canvas = canvas + added
      out = Drawing(jax.nn.sigmoid(canvas), window) if show else terms
      return (canvas, encoder, decoder), out

    return step

  def _read(self, linear, image, canvas, h) -> jax.Array:
    """What the encoder sees of image and error image, [b, seen]."""
    x = image.astype(canvas.dtype)
    both = jnp.stack([x, x - jax.nn.sigmoid(canvas)])
    if n := self.read_size:
      window = glimpse.window(
        linear(h, "read_window"), n=n, height=self.height, width=self.width
      )
      both = glimpse.read(both, window, n=n)
    return jnp.moveaxis(both, 0, 1).reshape(len(x), -1)

  def _write(self, linear, h) -> tuple[jax.Array, glimpse.Window | None]:
    """What is added to the canvas, [b, height, width], and where."""
    size = {"height": self.height, "width": self.width}
    patch = linear(h, "patch")
    if not (n := self.write_size):
      return patch.reshape(len(h), self.height, self.width), None
    window = glimpse.window(linear(h, "write_window"), n=n, **size)
    patch = patch.reshape(len(h), n, n)
    return glimpse.write(patch, window, **size), window
