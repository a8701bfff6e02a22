"""The design, policed: what may be imported where, and how thin the client is."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST_FILES = 14
BLOCK_TORCH = "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None; "


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_client_imports_neither_torch_nor_the_server() -> None:
    run(
        BLOCK_TORCH + "sys.modules['manyview_server'] = None; import manyview; "
        "[getattr(manyview, name) for name in manyview.__all__]; import manyview._cli.main, manyview.testing"
    )


def test_the_front_imports_neither_torch_nor_an_image_library() -> None:
    run(BLOCK_TORCH + "sys.modules['PIL'] = sys.modules['simplejpeg'] = None; import manyview_server.front.app")


def test_learning_needs_neither_grpc_nor_anything_else_of_ours() -> None:
    code = (
        "import sys; sys.modules['grpc'] = sys.modules['google'] = None; import manyview_server.learn.methods, "
        "manyview_server.learn.step, manyview_server.learn.views, manyview_server.learn.evaluation.knn; "
        "print(sorted({n.split('.')[1] for n in sys.modules if n.startswith('manyview_server.')}))"
    )
    assert run(code) == "['configuration', 'learn']"


def test_nothing_is_fetched_and_nothing_phones_home() -> None:
    """No module of ours imports anything that makes requests, and networks of libraries come without weights."""
    requesting = {"urllib.request", "http.client", "requests", "httpx", "aiohttp", "ftplib", "huggingface_hub"}
    for path in sources("client/manyview", "server/manyview_server"):
        if path.suffix != ".py":
            continue
        tree = ast.parse(path.read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {f"{node.module}" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert imported & requesting == set(), path
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg in ("pretrained", "weights"):
                where = f"{path}:{node.value.lineno}"
                assert not (isinstance(node.value, ast.Constant) and node.value.value is True), where


def test_the_roots_are_no_packages() -> None:
    roots = "{name.split('.')[0] for name in sys.modules} & {'client', 'server'}"
    assert run(f"import manyview, manyview_server, sys; print({roots})") == "set()"


def sources(*folders: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.splitlines()]


def test_no_folder_holds_more_files_than_a_reader_can_survey() -> None:
    # The generator decides how many stubs there are, and each benchmark has a file of results.
    counted = (path for path in sources() if path.parent.name != "v1" and path.parent.name != "results")
    sizes = Counter(path.parent.relative_to(ROOT).as_posix() for path in counted)
    assert {folder: size for folder, size in sizes.items() if size > MOST_FILES} == {}


def test_every_package_says_what_each_of_its_files_is() -> None:
    for folder in sorted({path.parent for path in sources("client/manyview", "server/manyview_server")}):
        if folder.name == "v1" or not (folder / "__init__.py").exists():
            continue
        says = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
        missing = {file for file in files if f"`{file}`" not in says}
        assert missing == set(), folder


def imported(path: Path) -> set[str]:
    """Return the full names of our modules and packages that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_every_package_says_what_it_may_import_beside_itself() -> None:
    """A package names the files and packages of its own folder that it imports. Deeper ones say whose rule holds."""
    for init in sources("client/manyview", "server/manyview_server"):
        folder = init.parent
        if init.name != "__init__.py" or folder.name == "v1" or folder.parent.name in ("client", "server"):
            continue
        says = ast.get_docstring(ast.parse(init.read_text())) or ""
        beside = {path.stem for path in folder.parent.iterdir()} - {folder.name, "__init__", "v1"}
        parent = ".".join(folder.parent.relative_to(ROOT).parts[1:])
        names = {name for path in folder.rglob("*.py") for name in imported(path)}
        used = {name for name in beside if any(f"{each}.".startswith(f"{parent}.{name}.") for each in names)}
        if f"the files of `{folder.parent.name}`" not in " ".join(says.split()):
            assert {name for name in used if f"`{name}" not in says} == set(), folder
