"""Start-up hook: serves ``python -m lavis.train`` and mends what LAVIS 1.0.2 needs before it is imported.

``import lavis`` loads all of LAVIS before any ``lavis.train`` could run, so whatever must happen before has
to be in place when the interpreter starts. ``ealign_startup.pth`` imports this module at every start of
Python, LAVIS or not; therefore it uses the standard library only and does nothing but put one finder on
``sys.meta_path``, which waits for these names:

    lavis.train, lavis.evaluate        LAVIS has no such modules; ealign_plugin.cli has
    torchvision._meta_registrations    before: operators are defined that a foreign torch does not have
    timm.data                          after: names are added that LAVIS's timm does not have yet
    lavis                              before: names are given back that newer transformers dropped
                                       after: ealign_plugin registers, if it is imported
    ealign_plugin.*                    after: the same, when LAVIS came in while one of them was loading

Without the hook (a checkout on PYTHONPATH) ``import ealign_plugin`` puts the same finder in place.
"""

import sys

COMMANDS = ("lavis.train", "lavis.evaluate")
OURS = "ealign_plugin"

_libraries: list = []  # operators live as long as their torch.library.Library


class CommandLoader:
    """Loads ``lavis.train`` or ``lavis.evaluate`` as two lines that call the module of ealign_plugin.cli."""

    def create_module(self, spec):
        return None

    def get_code(self, name):
        source = f"from {OURS}.cli.{name.rpartition('.')[2]} import main\n"
        source += "if __name__ == '__main__':\n    raise SystemExit(main())\n"
        return compile(source, name, "exec")

    def exec_module(self, module):
        exec(self.get_code(module.__name__), module.__dict__)


class HostFinder:
    """First on ``sys.meta_path``; for a name that it does not wait for it costs a few comparisons."""

    def __init__(self):
        self.loading = 0  # how many modules of ours are being executed
        self.pending = False  # LAVIS was imported meanwhile, so registration waits for them
        self.checked = False  # the command line, which looks for LAVIS too

    def find_spec(self, name, path=None, target=None):
        if name in COMMANDS:
            from importlib.machinery import ModuleSpec

            origin = f"{OURS}.cli.{name.rpartition('.')[2]}"
            return ModuleSpec(name, CommandLoader(), origin=origin)  # type: ignore[arg-type]
        if name == "lavis":
            around = self.load_lavis
        elif name.startswith(OURS + "."):
            around = self.load_ours
        elif name == "torchvision._meta_registrations":
            around = load_meta_registrations
        elif name == "timm.data":
            around = load_timm_data
        else:
            return None
        if name == "lavis" and self.command() and not self.checked:
            self.checked = True
            from ealign_plugin.cli.command_line import preflight

            preflight(self.command())
        others = (finder for finder in list(sys.meta_path) if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module
            # On the instance, which is this spec's own: the loader keeps its class and its other methods.
            spec.loader.exec_module = lambda module: around(load, module)  # type: ignore[method-assign]
        return spec

    @staticmethod
    def command():
        """'lavis.train' where that is what ``python -m`` is about to run, else None."""
        if sys.argv[:1] != ["-m"]:  # runpy puts the file's name here before it runs the module
            return None
        name = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
        return name if name in COMMANDS else None

    def load_lavis(self, load, module):
        def load_mended():
            mend_transformers()
            load(module)

        def register_ours():
            self.pending = OURS in sys.modules
            self.register_if_loaded()

        if self.command():
            from ealign_plugin.cli.command_line import import_or_exit

            import_or_exit(load_mended, register_ours)
        else:
            load_mended()
            register_ours()

    def load_ours(self, load, module):
        self.loading += 1
        try:
            load(module)
        finally:
            self.loading -= 1
        self.register_if_loaded()

    def register_if_loaded(self):
        """Register, unless a module of ours is half loaded: what registers would import it by its names."""
        if self.pending and not self.loading:
            self.pending = False
            from ealign_plugin.registered import register

            register()


def load_meta_registrations(load, module):
    """torchvision built for CUDA beside a torch without: it asks for operators that its library defines.

    The symptom is "operator torchvision::nms does not exist". A definition without an implementation is
    enough; calling the operator still fails, as it must.
    """
    import torch

    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _libraries.append(library)
    load(module)


def load_timm_data(load, module):
    load(module)
    mend_timm(module)


def mend_timm(data):
    """Add two names to ``timm.data`` that transformers' wrapper of timm imports where it finds any timm.

    LAVIS's timm 0.4.12 is older than they are. transformers 4.51 imports the wrapper for the first model that
    `AutoModel` makes, and so for every LLaVA; the symptom is "cannot import name 'ImageNetInfo' from
    'timm.data'".
    """
    if not hasattr(data, "infer_imagenet_subset"):
        data.infer_imagenet_subset = infer_imagenet_subset
    if not hasattr(data, "ImageNetInfo"):
        data.ImageNetInfo = None  # what describes a subset that was found


def infer_imagenet_subset(model_or_cfg):
    """None: no subset of ImageNet is known to be the model's."""
    return None


def mend_transformers():
    """Put back the names that LAVIS imports and newer transformers dropped (4.56 and 5.0)."""
    try:
        from transformers import modeling_utils, pytorch_utils
    except ImportError:
        return  # LAVIS's own import says it better
    if not hasattr(pytorch_utils, "find_pruneable_heads_and_indices"):
        pytorch_utils.find_pruneable_heads_and_indices = find_pruneable_heads_and_indices
    for name in ("apply_chunking_to_forward", "find_pruneable_heads_and_indices", "prune_linear_layer"):
        if not hasattr(modeling_utils, name):
            setattr(modeling_utils, name, getattr(pytorch_utils, name))
    try:
        import transformers.utils.model_parallel_utils  # noqa: F401
    except ImportError:
        from types import ModuleType

        parallel = ModuleType("transformers.utils.model_parallel_utils")
        vars(parallel).update(get_device_map=get_device_map, assert_device_map=assert_device_map)
        sys.modules[parallel.__name__] = parallel


def find_pruneable_heads_and_indices(heads, n_heads, head_size, already_pruned_heads):
    """The heads still to prune and the flat indices of the rows of a weight that stay.

    ``n_heads`` counts the heads left, ``heads`` are numbered as before any pruning.
    """
    import torch

    heads = set(heads) - already_pruned_heads
    gone = {head - sum(earlier < head for earlier in already_pruned_heads) for head in heads}
    rows = [
        i
        for head in range(n_heads)
        if head not in gone
        for i in range(head * head_size, (head + 1) * head_size)
    ]
    return heads, torch.tensor(rows, dtype=torch.long)


def get_device_map(n_layers, devices):
    """Layers 0 .. n_layers-1 in order on the devices, as evenly as whole layers allow."""
    share = -(-n_layers // len(devices))
    return {device: list(range(n_layers))[i * share : (i + 1) * share] for i, device in enumerate(devices)}


def assert_device_map(device_map, num_blocks):
    """ValueError unless every block is on exactly one device."""
    placed = sorted(block for blocks in device_map.values() for block in blocks)
    if placed != list(range(num_blocks)):
        raise ValueError(f"device map places blocks {placed}, expected each of 0..{num_blocks - 1} once")


def lavis_is_loaded():
    """True where ``import lavis`` has run to its end."""
    lavis = sys.modules.get("lavis")
    return lavis is not None and not getattr(lavis.__spec__, "_initializing", False)


def install():
    """Put the finder first, once: site-packages and a checkout may both bring this file."""
    if not any(type(finder).__name__ == HostFinder.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, HostFinder())
        data = sys.modules.get("timm.data")
        if data is not None:  # imported before a checkout's finder was there
            mend_timm(data)


install()
