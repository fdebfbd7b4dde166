"""Writes npy_header/: one tiny valid file start for every dialect of the .npy format. Python 3, no packages."""

import pathlib
import struct

FOLDER = pathlib.Path(__file__).parent / "npy_header"
DTYPES = "<f2 >f2 <f4 >f4 <f8 >f8 |i1 <i2 >i2 <i4 >i4 <i8 >i8 |u1 <u2 >u2 <u4 >u4 <u8 >u8 |V2 <V2 >V2 |O |b1 <c8".split()
SHAPES = "() (3,) (5, 7) (0, 7) (2, 3, 4) (5L, 7L) (5, 7,) (1, 1, 1, 1, 1, 1, 1, 1) (1000000000, 256)".split(") ")


def write(name, version, text):
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    (FOLDER / name).write_bytes(b"\x93NUMPY" + bytes([version, 0]) + size + text.encode("latin1"))


def entries(descr, order, shape, end="}\n"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, {end}"


FOLDER.mkdir(exist_ok=True)
for version in (1, 2, 3):
    write(f"version-{version}", version, entries("'<f4'", False, "(5, 7)"))
for i, dtype in enumerate(DTYPES):
    write(f"dtype-{i:02}", 1, entries(repr(dtype), bool(i % 2), "(2, 3)"))
for i, shape in enumerate(SHAPES):
    write(f"shape-{i:02}", 1, entries("'<f4'", True, shape.rstrip(")") + ")"))
write("double-quotes", 1, entries('"<f4"', True, "(3,)").replace("'", '"'))
write("other-order", 1, "{'shape':(3,4),'fortran_order':True,'descr':'>f8'}")
write("spaces", 2, "\t{\n'shape' :( 3 ,\r4 , ) , 'fortran_order': False,'descr' : '<i2' , } \n")
write("padded", 1, entries("'<f4'", False, "(3,)", "}" + " " * 50 + "\n"))
write("structured", 1, entries("[('x', '<f4'), ('y', '<i2', (3,))]", False, "(3,)"))
write("negative", 1, entries("'<f4'", False, "(-1, 3)"))
write("beyond-64-bits", 1, entries("'<f4'", False, "(18446744073709551615, 2)"))
