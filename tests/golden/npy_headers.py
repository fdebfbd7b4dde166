"""Writes npy_headers.txt: headers as NumPy writes them (needs numpy and ml_dtypes; made with numpy 2.4.6)."""

import io
import itertools
import pathlib

import ml_dtypes
import numpy as np

DTYPES = {
    "f16": "f2", "bf16": ml_dtypes.bfloat16, "f32": "f4", "f64": "f8",
    "i8": "i1", "i16": "i2", "i32": "i4", "i64": "i8",
    "u8": "u1", "u16": "u2", "u32": "u4", "u64": "u8",
}  # fmt: skip
SHAPES = [
    (), (1,), (7,), (0, 7), (5, 7), (7, 0), (2, 3, 4), (10**9, 256), (256, 10**9), (10**17,), (1,) * 3 + (99,),
    (1,) * 8, (1,) * 20, (10,) * 12, (1,) * 32, (1,) * 64,
]  # fmt: skip


def escaped(data):
    return "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\x{b:02x}" for b in data)


def header(dtype, shape, fortran):
    out = io.BytesIO()
    d = {"descr": np.dtype(dtype).str, "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(out, d)
    return out.getvalue()


cases = [(name, (5, 7), False) for name in DTYPES]
cases += [("f32", shape, fortran) for shape, fortran in itertools.product(SHAPES, (False, True))]
lines = ["# scalar|order|shape|bytes"]
for name, shape, fortran in cases:
    text = escaped(header(DTYPES[name], shape, fortran))
    lines.append("|".join([name, "F" if fortran else "C", ",".join(map(str, shape)), text]))
pathlib.Path(__file__).with_suffix(".txt").write_text("\n".join(lines) + "\n")
