"""From `config.optimizer` to an optax gradient transformation."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

NAMES = ("adam", "adam_authors", "adamw", "sgd", "momentum", "rmsprop")
CLIP_RULES = ("global", "authors")
SCHEDULES = ("constant", "linear", "cosine")


def schedule(optimizer: Any, train_steps: int) -> optax.Schedule:
  """Learning rate by step: linear warm-up, then the schedule down to 0.

  Args:
    optimizer: the config's `optimizer`.
    train_steps: length of the run, in updates.

  Returns:
    step -> learning rate.

  Raises:
    ValueError: for a schedule that is not in `SCHEDULES`.
  """
  rate, warmup = optimizer.learning_rate, optimizer.warmup_steps
  rest = max(train_steps - warmup, 1)
  if optimizer.schedule == "constant":
    main = optax.constant_schedule(rate)
  elif optimizer.schedule == "linear":
    main = optax.linear_schedule(rate, 0.0, rest)
  elif optimizer.schedule == "cosine":
    main = optax.cosine_decay_schedule(rate, rest)
  else:
    raise ValueError(
      f"schedule {optimizer.schedule!r} is not one of {', '.join(SCHEDULES)}"
    )
  if not warmup:
    return main
  rise = optax.linear_schedule(rate / warmup, rate, warmup - 1)
  return optax.join_schedules([rise, main], [warmup])


def make(optimizer: Any, train_steps: int) -> optax.GradientTransformation:
  """The optimiser of a run.

  Args:
    optimizer: the config's `optimizer`, with name, learning_rate, schedule,
      warmup_steps, b1, b2, eps, weight_decay, clip, clip_rule,
      clip_per_tensor. `clip` is the largest global norm of the gradient, or
      what `clip_authors` makes of it; `clip_per_tensor` is the largest norm of
      each parameter tensor by itself; 0 switches either off.
    train_steps: length of the run, in updates.

  Returns:
    The transformation: clipping, then the named optimiser.

  Raises:
    ValueError: for a name that is not in `NAMES`, or a rule that is not in
      `CLIP_RULES`.
  """
  o, rate = optimizer, schedule(optimizer, train_steps)
  if o.name == "adam":
    main = optax.adam(rate, b1=o.b1, b2=o.b2, eps=o.eps)
  elif o.name == "adam_authors":
    main = adam_authors(rate, b1=o.b1, b2=o.b2, eps=o.eps)
  elif o.name == "adamw":
    main = optax.adamw(
      rate, b1=o.b1, b2=o.b2, eps=o.eps, weight_decay=o.weight_decay
    )
  elif o.name == "sgd":
    main = optax.sgd(rate)
  elif o.name == "momentum":
    main = optax.sgd(rate, momentum=o.b1)
  elif o.name == "rmsprop":
    main = optax.rmsprop(rate, decay=o.b2, eps=o.eps)
  else:
    raise ValueError(f"optimizer {o.name!r} is not one of {', '.join(NAMES)}")
  clips = []
  if o.clip:
    if o.clip_rule not in CLIP_RULES:
      raise ValueError(
        f"clip_rule {o.clip_rule!r} is not one of {', '.join(CLIP_RULES)}"
      )
    authors = o.clip_rule == "authors"
    rule = clip_authors if authors else optax.clip_by_global_norm
    clips.append(rule(o.clip))
  if o.clip_per_tensor:
    clips.append(clip_per_tensor(o.clip_per_tensor))
  return optax.chain(*clips, main) if clips else main


def adam_authors(
  learning_rate: optax.ScalarOrSchedule, *, b1: float, b2: float, eps: float
) -> optax.GradientTransformation:
  """Adam as in the authors' order embeddings and skip-thoughts.

  Their code calls 1 - b1 and 1 - b2 the betas, and corrects the bias by those:
  by 1 - (1 - b1)^t and 1 - (1 - b2)^t, which is next to nothing from the first
  steps on. So early steps are larger than Adam's, for a constant gradient 3.5
  times at step 1, 6.5 times at step 10 and 3.2 times at step 100.

  Args:
    learning_rate: a number, or step -> number.
    b1: weight of the past in the mean gradient.
    b2: likewise in the mean square.
    eps: added to the root of the mean square.

  Source: ivendrov/order-embedding and ryankiros/skip-thoughts, `optim.py`.
  """

  def correct(count):
    t = count + 1
    return jnp.sqrt(1 - (1 - b2) ** t) / (1 - (1 - b1) ** t)

  def init(params):
    zeros = lambda: jax.tree.map(jnp.zeros_like, params)
    return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), zeros(), zeros())

  def update(updates, state, params=None):
    del params
    mean = optax.tree.update_moment(updates, state.mu, b1, 1)
    square = optax.tree.update_moment(updates, state.nu, b2, 2)
    factor = correct(state.count)
    steps = jax.tree.map(
      lambda m, v: factor * m / (jnp.sqrt(v) + eps), mean, square
    )
    count = optax.safe_increment(state.count)
    return steps, optax.ScaleByAdamState(count, mean, square)

  return optax.chain(
    optax.GradientTransformation(init, update),
    optax.scale_by_learning_rate(learning_rate),
  )


def clip_authors(clip: float) -> optax.GradientTransformation:
  """Clips as in the authors' attentive reader.

  Their code compares the gradient's norm with clip^2, and divides by the root
  of the norm: a gradient longer than clip^2 gets the length
  clip * sqrt(norm), and so may still be far above `clip`.

  Args:
    clip: 10 in their commands.

  Source: cooijmanstim/Attentive_reader, `attentive_reader.py` and
  `training.py`.
  """

  def update(updates, _):
    norm = optax.tree.norm(updates)
    # The floor keeps a zero gradient from becoming 0/0.
    scale = clip * jax.lax.rsqrt(jnp.maximum(norm, 1e-24))
    scale = jnp.where(norm > clip**2, scale, 1)
    return jax.tree.map(lambda g: g * scale, updates)

  return optax.stateless(update)


def clip_per_tensor(max_norm: float) -> optax.GradientTransformation:
  """Rescales each parameter tensor's gradient to at most `max_norm`.

  Source: the authors' order-embedding code (clip 2 for each tensor).
  """

  def clip(g):
    # The floor keeps a zero gradient from becoming 0/0.
    norm = jnp.sqrt(jnp.maximum(jnp.square(g).sum(), 1e-24))
    return g * jnp.minimum(1.0, max_norm / norm)

  return optax.stateless(lambda updates, _: jax.tree.map(clip, updates))
