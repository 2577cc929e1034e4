"""An identity that says why forward-mode differentiation is not there."""

import jax
from jax.extend import core as jex_core
from jax.interpreters import ad, batching, mlir

# JAX meets forward-mode differentiation of a custom_vjp function with a
# message that helps nobody here; this identity meets it first. It is linear,
# and its transpose the identity, so reverse mode passes.
_ADVICE = 'backward="fast" has no forward mode (jvp); use backward="plain"'
_reverse_only_p = jex_core.Primitive("reverse_only")


def _refuse(*unused, **params):
  raise TypeError(_ADVICE)


_reverse_only_p.def_impl(_refuse)
_reverse_only_p.def_abstract_eval(lambda a: a)
ad.deflinear2(_reverse_only_p, lambda cotangent, _: [cotangent])
batching.defvectorized(_reverse_only_p)
mlir.register_lowering(_reverse_only_p, _refuse)


@jax.custom_jvp
def reverse_only(a):
  """`a`, differentiable in reverse mode alone."""
  return a


reverse_only.defjvp(
  lambda primals, tangents: (primals[0], _reverse_only_p.bind(tangents[0]))
)
