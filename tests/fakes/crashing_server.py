"""A model server that answers its golden set and then dies on the tenth single request.

    python crashing_server.py BUNDLE MODEL PORT [PLACE]

Answers are the linear model's own, so that only its crash can stop it. With PLACE it dies only if its
bundle lies in a folder of that name, which is how a release fails in one region alone.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

BUNDLE, MODEL, PORT = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
DIES = len(sys.argv) < 5 or sys.argv[4] in BUNDLE.parts
TENSORS = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(BUNDLE / "model.onnx")).graph.initializer}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    singles = 0

    def do_GET(self) -> None:
        self._answer({"ready": True})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        tensor = body["inputs"][0]
        if tensor["shape"][0] == 1:
            Handler.singles += 1
        if DIES and Handler.singles >= 10:
            print("fatal: out of memory, as planned", flush=True)
            os._exit(3)
        x = np.asarray(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
        logits = x @ TENSORS["W"] + TENSORS["b"]
        output = {"name": "logits", "shape": list(logits.shape), "datatype": "FP32", "data": logits.ravel().tolist()}
        self._answer({"model_name": MODEL, "model_version": "1", "outputs": [output]})

    def _answer(self, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the log to what matters: its last line is shown as the reason of a crash."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
