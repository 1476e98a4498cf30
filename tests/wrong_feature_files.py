"""Ways in which the feature file of a slide is wrong, each with what is said of it.

Each function takes the folder that holds `features/`, and a slide; it changes or replaces the slide's file there.
"""

import os

import feature_files as files
import h5py
import numpy as np
import torch


def place(tmp_path, name="s3"):
    return tmp_path / "features" / f"{name}.h5"


def another_width(tmp_path, slide):
    files.trident(tmp_path / "features", files.make_slide(slide.name, 5, width=8))


def another_encoder(tmp_path, slide):
    files.trident(tmp_path / "features", slide, encoder="conch_v15")


def another_magnification(tmp_path, slide):
    files.trident(tmp_path / "features", slide, magnification=40)


def another_unit(tmp_path, slide):
    files.stamp(tmp_path / "features", slide)


def fewer_coords(tmp_path, slide):
    with h5py.File(place(tmp_path, slide.name), "a") as file:
        file["coords"].resize((3, 2))


def three_coords(tmp_path, slide):
    with h5py.File(place(tmp_path, slide.name), "a") as file:
        del file["coords"]
        file["coords"] = np.zeros((len(slide.vectors), 3))


def no_number(tmp_path, slide):
    with h5py.File(place(tmp_path, slide.name), "a") as file:
        file["features"][2, 5] = np.nan
        file["features"][4, 0] = np.inf


def empty_slide(tmp_path, slide):
    files.trident(tmp_path / "features", files.make_slide(slide.name, 0))


def cut_short(tmp_path, slide):
    whole = place(tmp_path, slide.name).read_bytes()
    place(tmp_path, slide.name).write_bytes(whole[: len(whole) - 500])


def no_bytes(tmp_path, slide):
    place(tmp_path, slide.name).write_bytes(b"")


def only_coordinates(tmp_path, slide):
    files.clam_patches(tmp_path / "features", slide)


def other_data(tmp_path, slide):
    with h5py.File(place(tmp_path, slide.name), "w") as file:
        file["embeddings"] = slide.vectors
        file.create_group("tiles")


def whole_slide_vector(tmp_path, slide):
    files.stamp(tmp_path / "features", slide, feat_type="slide")


def one_dimension(tmp_path, slide):
    with h5py.File(place(tmp_path, slide.name), "w") as file:
        file["features"] = slide.vectors[0]


def whole_numbers(tmp_path, slide):
    with h5py.File(place(tmp_path, slide.name), "w") as file:
        file["features"] = slide.vectors.astype(int)


def trident_pickle(tmp_path, slide):
    place(tmp_path, slide.name).unlink()
    files.trident_pt(tmp_path / "features", slide)


class Evil:
    def __reduce__(self):
        return (print, ("code has run",))


def pickled_code(tmp_path, slide):
    place(tmp_path, slide.name).unlink()
    torch.save({"features": Evil()}, tmp_path / "features" / f"{slide.name}.pt")


def pickled_objects(tmp_path, slide):
    place(tmp_path, slide.name).unlink()
    np.save(tmp_path / "features" / f"{slide.name}.npy", np.array([Evil(), None], object), allow_pickle=True)


def damaged_pt(tmp_path, slide):
    place(tmp_path, slide.name).unlink()
    path = files.clam_pt(tmp_path / "features", slide)
    path.write_bytes(path.read_bytes()[:-200])


def short_npy(tmp_path, slide):
    place(tmp_path, slide.name).unlink()
    path = files.npy(tmp_path / "features", slide)
    path.write_bytes(path.read_bytes()[:-7])


def an_image(tmp_path, slide):
    place(tmp_path, slide.name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))


def a_pointer(tmp_path, slide):
    place(tmp_path, slide.name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")


def places_that_are_none(tmp_path, slide):
    with h5py.File(place(tmp_path, slide.name), "a") as file:
        attributes = dict(file["coords"].attrs)
        del file["coords"]
        values = slide.coords.astype(float)
        values[4] = np.nan, np.inf
        file["coords"] = values
        file["coords"].attrs.update(attributes)


def nothing_in_hdf5(tmp_path, slide):
    with h5py.File(place(tmp_path, slide.name), "w") as file:
        file["features"] = h5py.Empty("f4")


def no_coords_in_hdf5(tmp_path, slide):
    with h5py.File(place(tmp_path, slide.name), "a") as file:
        del file["coords"]
        file["coords"] = h5py.Empty("f4")


def changed_bit(tmp_path, slide):
    """In vectors that HDF5 keeps a checksum of: found when they are read, not when the file is opened."""
    with h5py.File(place(tmp_path, slide.name), "w") as file:
        made = file.create_dataset("features", data=slide.vectors, chunks=slide.vectors.shape, fletcher32=True)
        at = made.id.get_chunk_info(0).byte_offset
    content = bytearray(place(tmp_path, slide.name).read_bytes())
    content[at] ^= 1
    place(tmp_path, slide.name).write_bytes(content)


def a_folder(tmp_path, slide):
    place(tmp_path, slide.name).unlink()
    place(tmp_path, slide.name).mkdir()


def a_pipe(tmp_path, slide):
    place(tmp_path, slide.name).unlink()
    os.mkfifo(place(tmp_path, slide.name))


def _tensor(tmp_path, slide, change):
    place(tmp_path, slide.name).unlink()
    torch.save(change(torch.from_numpy(slide.vectors)), tmp_path / "features" / f"{slide.name}.pt")


def sparse_tensor(tmp_path, slide):
    _tensor(tmp_path, slide, torch.Tensor.to_sparse)


def meta_tensor(tmp_path, slide):
    _tensor(tmp_path, slide, lambda tensor: tensor.to("meta"))


def tensor_of_eight_bits(tmp_path, slide):
    _tensor(tmp_path, slide, lambda tensor: tensor.to(torch.float8_e4m3fn))


def sparse_places(tmp_path, slide):
    _tensor(tmp_path, slide, lambda tensor: {"features": tensor, "coords": tensor[:, :2].to_sparse()})


def a_list_of_numbers(tmp_path, slide):
    _tensor(tmp_path, slide, lambda tensor: {"features": tensor.tolist()})


def _header(tmp_path, slide, shape):
    place(tmp_path, slide.name).unlink()
    path = files.npy(tmp_path / "features", slide)
    path.write_bytes(path.read_bytes().replace(b"(9, 12)", shape))


def more_rows_than_bytes(tmp_path, slide):
    _header(tmp_path, slide, b"(9" + b"0" * 15 + b", 12)")


def rows_below_none(tmp_path, slide):
    _header(tmp_path, slide, b"(-1, 12)")


def gone(tmp_path, slide):
    place(tmp_path, slide.name).unlink()


def two_files(tmp_path, slide):
    files.clam_pt(tmp_path / "features", slide)


PROBLEMS = {
    another_width: "s3.h5: vectors of 8 dimensions; 9 of 10 files have vectors of 12 dimensions (s0.h5)",
    another_encoder: "s3.h5: encoder 'conch_v15'; 9 of 10 files have encoder 'uni_v1' (s0.h5)",
    another_magnification: "s3.h5: tiles of 256 px at 40×; 9 of 10 files have tiles of 256 px at 20× (s0.h5)",
    another_unit: "s3.h5: places in µm; 9 of 10 files have places in level-0 pixels (s0.h5)",
    fewer_coords: "s3.h5: 3 rows in coords, but 9 vectors",
    three_coords: "s3.h5: coords has the shape (9, 3); expected (N, 2)",
    no_number: "s3.h5: 2 of 9 vectors hold NaN or infinity, the first of them row 2 (from 0)",
    empty_slide: "s3.h5: a slide without vectors (no tissue was found?); data.skip_empty: true leaves it out",
    cut_short: "s3.h5: cut short: ",
    no_bytes: "s3.h5: an empty file of 0 bytes",
    only_coordinates: "s3.h5: coordinates of tiles, but no features (as CLAM and TRIDENT write to `patches`",
    other_data: "s3.h5: no dataset features or feats (found: embeddings, tiles/)",
    whole_slide_vector: "s3.h5: feat_type is 'slide': one vector for a whole slide",
    one_dimension: "s3.h5: features has the shape (12,) (one vector of the whole slide?); expected (N, D)",
    whole_numbers: "s3.h5: features is of type int64; expected float16, float32 or float64",
    trident_pickle: "s3.pt: an array of numpy as a pickle, not a tensor (so TRIDENT writes .pt)",
    pickled_code: "s3.pt: Python objects as a pickle",
    pickled_objects: "s3.npy: the array holds Python objects (a pickle), which is not read",
    damaged_pt: "s3.pt: cannot be read as a file of torch",
    short_npy: "s3.npy: cut short: 425 of 432 bytes",
    places_that_are_none: "s3.h5: 1 of 9 rows in coords hold NaN or infinity, the first of them row 4 (from 0)",
    nothing_in_hdf5: "s3.h5: features holds nothing, not even an array; expected (N, D)",
    no_coords_in_hdf5: "s3.h5: coords holds nothing, not even an array; leave it out",
    changed_bit: "s3.h5: cannot be read as features: Can't synchronously read data",
    a_folder: "s3.h5: a folder, not a file of features",
    a_pipe: "s3.h5: a pipe or a device, not a file of features",
    sparse_tensor: "s3.pt: the tensor is sparse; expected a plain (dense) tensor",
    meta_tensor: "s3.pt: the tensor is without values (meta); expected a plain",
    tensor_of_eight_bits: "s3.pt: the tensor is of type float8_e4m3fn; expected float16",
    sparse_places: "s3.pt: coords is sparse; expected a plain (dense) tensor",
    a_list_of_numbers: "s3.pt: a dictionary without a tensor features or feats (found: features (list))",
    more_rows_than_bytes: "s3.npy: cut short: 447 of 432,",
    rows_below_none: "s3.npy: cannot be read as an array of numpy: shape is not valid: (-1, 12)",
    an_image: "s3.h5: this is a PNG image; extract features first",
    a_pointer: "s3.h5: this is a pointer of Git LFS, not the file itself",
    gone: "row 5, column slide_id (taken as bag): 's3': no feature file in ",
    two_files: "'s3': s3.h5, s3.pt are files of it; leave one",
}
