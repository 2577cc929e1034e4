"""Pictures as arrays: grids of images, windows drawn on them."""

import numpy as np

from lnrnn.models.glimpse import Window

_RED = (214, 39, 40)


def grid(images: np.ndarray, columns: int, *, border: int = 1) -> np.ndarray:
  """Lays images out in rows, from left to right.

  Args:
    images: [n, height, width] or [n, height, width, 3], 0 to 1.
    columns: images in a row.
    border: pixels between them.

  Returns:
    [h, w] or [h, w, 3], 0 to 1; places that are left over, and borders, are
    grey.
  """
  n, height, width, *rest = images.shape
  rows = -(-n // columns)
  step_y, step_x = height + border, width + border
  shape = (rows * step_y - border, columns * step_x - border, *rest)
  out = np.full(shape, 0.5, np.float32)
  for i, image in enumerate(images):
    y, x = i // columns * step_y, i % columns * step_x
    out[y : y + height, x : x + width] = image
  return out


def framed(
  canvas: np.ndarray, window: Window | None, *, n: int, scale: int = 3
) -> np.ndarray:
  """Ink on paper, enlarged, with the frame of each window drawn on it.

  The frame runs through the outer filters; its line is the thicker the wider
  the filters are, as in the figures of Gregor et al. 2015.

  Args:
    canvas: [..., height, width] ink, 0 to 1.
    window: fields [...], in pixels; None draws none.
    n: filters along each axis.
    scale: pixels of the result for each of the canvas.

  Returns:
    [..., scale * height, scale * width, 3], 0 to 1, black on white.
  """
  from PIL import Image, ImageDraw  # Not needed by `import lnrnn`.

  *lead, height, width = canvas.shape
  flat = np.nan_to_num(canvas).reshape(-1, height, width)
  large = 1 - flat.repeat(scale, axis=1).repeat(scale, axis=2)
  out = np.stack([large] * 3, axis=-1).astype(np.float32)
  if window is not None:
    fields = [np.asarray(field).reshape(-1) for field in window[:4]]
    for i, (x, y, stride, variance) in enumerate(zip(*fields, strict=True)):
      if not np.isfinite([x, y, stride, variance]).all():
        continue  # Of a model that is lost.
      half = stride * (n - 1) / 2
      # Pixels count from 1, and the first reaches from 0 to `scale`.
      box = [x - 0.5 - half, y - 0.5 - half, x - 0.5 + half, y - 0.5 + half]
      # Farther out it is out of sight.
      box = scale * np.clip(box, -10, max(height, width) + 10)
      line = int(np.clip(round(float(np.sqrt(variance))), 1, scale))
      picture = Image.fromarray((255 * out[i]).astype(np.uint8))
      draw = ImageDraw.Draw(picture)
      draw.rectangle(box.tolist(), outline=_RED, width=line)
      out[i] = np.asarray(picture, np.float32) / 255
  return out.reshape(*lead, *out.shape[1:])
