"""What a file is that holds no weights which can be read here, by how it begins or what it is called."""

import zipfile
from pathlib import Path

BEGINNINGS = (
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file; fetch that with `git lfs pull`"),
    (b"\x1f\x8b", "is compressed; unpack it with gunzip, and give what was in it"),
    (b"BZh", "is compressed; unpack it with bunzip2, and give what was in it"),
    (b"7z\xbc\xaf", "is an archive; unpack it, and give what was in it"),
    (b"\x93NUMPY", "is an array of NumPy, not weights by name"),
    (b"\x89HDF", "holds weights of Keras; convert them to PyTorch's names and shapes first"),
    (b"GGUF", "holds weights of llama.cpp"),
    (b"\xff\xd8\xff", "is a picture"),
    (b"\x89PNG", "is a picture"),
)
PYTORCH = b"\x80\x02\x8a\n"
"""How PyTorch's files began before they were archives; any other pickle is somebody else's."""
ENDINGS = {
    ".onnx": "is an ONNX network; give the PyTorch weights that it was made of",
    ".tflite": "is a network of TensorFlow Lite; give weights of PyTorch",
    ".pb": "is a graph of TensorFlow; give weights of PyTorch",
    ".index": "is part of a checkpoint of TensorFlow; give weights of PyTorch",
    ".ckpt.meta": "is part of a checkpoint of TensorFlow; give weights of PyTorch",
    ".data-00000-of-00001": "is part of a checkpoint of TensorFlow; give weights of PyTorch",
    ".msgpack": "holds weights of Flax; give weights of PyTorch",
    ".ot": "holds weights of rust's tch; give weights of PyTorch",
}


def foreign_kind(path: Path) -> str:
    """What the file is, as the rest of a sentence, if it is known to hold no weights that can be read; else ""."""
    if path.is_dir():
        return "is a folder; give a file in it, such as model.safetensors"
    if not path.is_file():
        return "is not there"
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "is empty; was it downloaded or copied whole?"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return ""  # safetensors: it begins with the length of its header, which may look like the beginning of anything
    for beginning, words in BEGINNINGS:
        if head.startswith(beginning):
            return words
    for ending, words in ENDINGS.items():
        if path.name.endswith(ending):
            return words
    if head.startswith(b"PK"):
        return _of_archive(path)
    if head.startswith(b"\x80") and not head.startswith(PYTORCH):
        return "is a pickle that PyTorch did not write, and reading it could run any code that it brings"
    if not any(head):
        return "is no file of weights: it begins with zeros"
    if b"ustar" in head:
        return "is an archive; unpack it, and give what was in it"
    return _of_text(head)


def _of_archive(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        return "is cut off: the end of the archive is missing; download or copy it again"
    with zipfile.ZipFile(path) as archive:
        inside = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in inside):
        return "is a program of TorchScript; save its weights: torch.save(torch.jit.load(FILE).state_dict(), NEW)"
    if any(name.endswith("data.pkl") for name in inside):
        return ""
    if inside and all(name.endswith(".npy") for name in inside):
        return "holds arrays of NumPy, not PyTorch's weights"
    return f"is an archive of {', '.join(inside[:3]) or 'nothing'}; unpack it, and give what was in it"


def _of_text(head: bytes) -> str:
    try:
        text = head[:400].decode("utf-8").lstrip().lower()
    except UnicodeDecodeError:
        return ""
    if not all(letter.isprintable() or letter.isspace() for letter in text):
        return ""
    if text.startswith(("<!doctype", "<html", "<?xml")):
        return "is a web page, not the file that it links to; download that"
    return "is text, not weights"
