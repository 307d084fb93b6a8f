"""Build the page into output/demo and serve it on this machine. Needs Python's standard library only.

The server sends COOP and COEP headers: browsers give threads only to pages that have them.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent
RUNTIME = HERE / "node_modules" / "onnxruntime-web"
RUNTIME_FILES = (  # for processors, and for graphics processors
    "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm",
)  # fmt: skip
BUNDLED = CHECKOUT / "data" / "weights" / "posenet.onnx"
EXAMPLE = CHECKOUT / "images" / "test.jpg"
EXAMPLE_BOX = [61, 48, 292, 292]
PAGE = ("index.html", "style.css", "icon.svg", "js")
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cache-Control": "no-cache",
}
SCRIPTS = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
EXAMPLES = """examples:
  python demo/serve.py --model posenet.onnx
  python demo/serve.py --build-only --output site/
"""


class DemoError(Exception):
    """Something the user can fix, in one line."""


def build(output: Path, model: Path | None) -> None:
    """Copy page, ONNX Runtime, example and network, if there is one, into a folder that any host can serve."""
    for source in (HERE, model):
        if source and output.resolve() in (source.resolve(), *source.resolve().parents):
            raise DemoError(f"{output} is emptied first, and {source} is in it; name another folder with --output")
    if not RUNTIME.is_dir():
        raise DemoError("onnxruntime-web is not installed; run: npm ci --prefix demo --ignore-scripts")
    if model and not model.is_file():
        raise DemoError(f"no such network: {model}; pose_estimation/export.py writes one")
    if model and model.suffix != ".onnx":
        raise DemoError(f"the page runs .onnx files, not {model.name}; pose_estimation/export.py writes one")
    if output.exists() and any(output.iterdir()) and not (output / "js" / "engine.js").is_file():
        raise DemoError(f"{output} holds other files; name another folder with --output")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    for name in PAGE:
        copy = shutil.copytree if (HERE / name).is_dir() else shutil.copy
        copy(HERE / name, output / name)
    (output / "ort").mkdir()
    for name in RUNTIME_FILES:
        shutil.copy(RUNTIME / "dist" / name, output / "ort")
    for file in (EXAMPLE, *([model] if model else [])):
        shutil.copy(file, output)
    example = {"file": EXAMPLE.name, "box": EXAMPLE_BOX}
    site = {"network": model.name if model else None, "example": example}
    (output / "site.json").write_text(json.dumps(site), encoding="utf-8")


class Handler(http.server.SimpleHTTPRequestHandler):
    def guess_type(self, path: str) -> str:
        """By ending; Windows may have learnt other types for scripts, which browsers refuse."""
        return SCRIPTS.get(Path(path).suffix) or super().guess_type(path)

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *args: object) -> None:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, default=BUNDLED if BUNDLED.is_file() else None, metavar="FILE",
        help="network of export.py that the page opens with; default: the bundled one")  # fmt: skip
    add("--output", type=Path, default=CHECKOUT / "output" / "demo", metavar="FOLDER", help="default: output/demo")
    add("--port", type=int, default=8000, help="default: %(default)s; 0 takes any that is free")
    add("--build-only", action="store_true", help="do not serve")
    args = parser.parse_args()
    build(args.output, args.model)
    print(f"=> {args.output}: the page, {'with ' + str(args.model) if args.model else 'without a network'}")
    if args.build_only:
        return 0
    try:
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", args.port), functools.partial(Handler, directory=str(args.output))
        )
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise DemoError(f"port {args.port} cannot be used ({why}); try another --port") from None
    print(f"=> http://localhost:{server.server_port} (Ctrl+C stops it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (DemoError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
