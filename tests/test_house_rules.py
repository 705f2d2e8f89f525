"""Rules of the house: what is imported only when it is needed, and who may print or exit."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest


def modules_after(arguments, cwd):
    script = (
        "import sys\nfrom emacheck.cli import invoke\n"
        f"code = invoke({[str(a) for a in arguments]!r})\n"
        "print('\\n' + ' '.join(sorted({m.partition('.')[0] for m in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_imports_neither_numpy_nor_pandas(tmp_path):
    assert not modules_after(["--help"], tmp_path) & {
        "numpy",
        "pandas",
        "torch",
        "mmengine",
        "matplotlib",
        "rich",
        "scipy",
        "jinja2",
    }


def test_compare_imports_neither_torch_nor_matplotlib_nor_pandas_nor_scipy_nor_jinja2(logs):
    heavy = {"torch", "mmengine", "mmcv", "mmseg", "matplotlib", "pandas", "scipy", "jinja2", "markupsafe"}
    assert not modules_after(["compare", "reference.json", "good.json"], logs) & heavy


def test_a_page_imports_jinja2_and_nothing_else_that_is_heavy(logs):
    loaded = modules_after(["compare", "reference.json", "good.json", "--html", "page.html"], logs)
    assert "jinja2" in loaded
    assert not loaded & {"torch", "mmengine", "mmcv", "mmseg", "matplotlib", "pandas", "scipy"}


def test_the_public_api_is_what_it_says():
    import emacheck

    for name in emacheck.__all__:
        assert getattr(emacheck, name) is not None
    assert len(emacheck.__all__) <= 14
    with pytest.raises(AttributeError, match="nonsense"):
        _ = emacheck.nonsense


def test_only_the_command_line_prints_or_exits():
    package = Path(__file__).parent.parent / "emacheck"
    for source in package.rglob("*.py"):
        # The worker and the probe are processes of their own and must exit with a code.
        if "cli" not in source.parts and source.name not in ("worker.py", "probe.py"):
            calls = [node.func for node in ast.walk(ast.parse(source.read_bytes())) if isinstance(node, ast.Call)]
            assert not {ast.unparse(call) for call in calls} & {"print", "sys.exit", "exit", "click.echo"}, source
