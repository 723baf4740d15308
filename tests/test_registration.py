"""Registration with timm, whichever of zoo and timm is imported first, and by whatever statement."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import zoo

ROOT = Path(zoo.__file__).parents[1]
REGISTERED = "import timm; assert timm.is_model('cbam_resnet50') and len(timm.list_models(module='catalog')) > 50"
ONCE = {
    "then timm": "import zoo; assert 'timm' not in sys.modules; import timm",
    "then a part of timm": "import zoo; import timm.models.resnet",
    "then a name of timm": "import zoo; from timm import create_model; create_model('cbam_resnet20_cifar')",
    "after timm": "import timm, zoo",
    "twice": "import zoo, importlib; importlib.reload(zoo); assert str(sys.meta_path).count('zoo.registration') == 1",
    "timm twice": "import zoo, importlib, timm; importlib.reload(timm)",
    "the catalogue first": "import zoo.models.catalog",
    # Files that the catalogue imports and that import timm themselves.
    "a network first": "import zoo.networks.hacnn",
    "placement first": "from zoo.models.placement import Site",
    "the data room first": "from zoo.data import open_data",
    "processes first": "import zoo.processes",
    "training first": "from zoo.training.start import train",
    "a file that fails": """
sys.modules['zoo.training.watch'] = None
try:
    import zoo.training.start
except ImportError:
    pass
assert 'timm' in sys.modules""",
    "names that need timm": """
import zoo
assert {'warm_start', 'WarmStartError', '__version__'} <= set(dir(zoo)) and not hasattr(zoo, 'cold_start')
assert 'timm' not in sys.modules
from zoo import WarmStartError, warm_start
assert issubclass(WarmStartError, ValueError) and zoo.warm_start is warm_start""",
    "in a thread": """
import threading
thread = threading.Thread(target=__import__, args=('zoo',))
thread.start(), thread.join()
import timm""",
    "in threads": """
import threading, zoo
threads = [threading.Thread(target=__import__, args=(name,)) for name in ('timm', 'zoo.models.catalog', 'zoo.data')]
[thread.start() for thread in threads], [thread.join() for thread in threads]""",
    "asked for and not imported": """
import importlib.util, zoo
for _ in range(2):
    spec = importlib.util.find_spec('timm')
    assert spec.origin.endswith('__init__.py') and 'create_model' in spec.loader.get_source('timm')
    assert list(spec.submodule_search_locations) and 'timm' not in sys.modules
assert importlib.util.find_spec('zoo.files').name == 'zoo.files' and importlib.util.find_spec('tinn') is None
import timm
assert type(timm.__loader__) is type(timm.__spec__.loader) is type(json.__loader__)""",
    "by a pickle": """
import zoo.attention, pickle
pickled = pickle.dumps(zoo.attention.CBAM)
for name in [name for name in sys.modules if name.split('.')[0] == 'zoo']:
    del sys.modules[name]
sys.meta_path[:] = [finder for finder in sys.meta_path if 'zoo' not in type(finder).__module__]
assert pickle.loads(pickled).__name__ == 'CBAM'""",
    "after a wrong manifest": """
import zoo, zoo.weights.manifest as manifest
read, manifest.read_manifest = manifest.read_manifest, lambda: manifest.Weights(**wrong)
wrong = dict(model='cbam_resnet18', tag='x', sha256='', bytes=0, config={})
for _ in range(2):
    try:
        import timm
    except manifest.ManifestError as error:
        assert 'registers' in error.__notes__[0] and 'timm' not in sys.modules
    else:
        assert False, 'timm is imported without the models of zoo'
manifest.read_manifest = read""",
}
"""Ways to import, after each of which the models are registered."""

FORKING = """
import json, os, sys, traceback, warnings
import torch, torchvision  # most of the time that timm takes to import, and once here
results = {}
for name, code in json.load(sys.stdin).items():
    sys.stdout.flush()
    reader, writer = os.pipe()
    with warnings.catch_warnings(action="ignore"):
        child = os.fork()
    if not child:
        os.dup2(writer, 1), os.dup2(writer, 2)
        try:
            exec(code, {"__name__": "__main__", "sys": sys, "json": json})
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        said = pipe.read()
    results[name] = (os.waitpid(child, 0)[1], said)
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def ended() -> dict[str, tuple[int, str]]:
    """How each of ONCE ended, in a process of its own, and what it said."""
    codes = {name: f"{code}\n{REGISTERED}" for name, code in ONCE.items()}
    command = [sys.executable, "-W", "error", "-c", FORKING]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(
        command, input=json.dumps(codes), capture_output=True, text=True, env=environment, cwd=ROOT.parent
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("name", ONCE)
def test_registered_and_silent(name: str, ended: dict[str, tuple[int, str]]) -> None:
    assert ended[name] == [0, ""], ended[name][1]


def test_zoo_alone_imports_nothing_heavy() -> None:
    code = "import sys, zoo; print(sorted({'torch', 'timm', 'numpy', 'pydantic'} & set(sys.modules)), zoo.__version__)"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == (f"[] {zoo.__version__}\n", "")


def test_where_timm_is_not_installed() -> None:
    """Python without its site-packages."""
    code = "import zoo; print(zoo.__version__); import timm"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, env=environment)
    assert run.returncode == 1 and run.stdout == f"{zoo.__version__}\n"
    assert run.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'timm'"
