"""A model server that answers its golden set well and misbehaves with users, in one way.

    python misbehaving_server.py BUNDLE MODEL PORT FAULT

Answers are the linear model's own and take some milliseconds. Single samples are users', batches are the golden set.
Faults:

    none            nothing
    refuses-all     400 to every user
    refuses-tools   400 to completions with tools, which are one in five
    hangs-half      every second user gets no answer
    slower          half as slow again
    loses           one answer in sixteen names another class
"""

import hashlib
import itertools
import json
import math
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

BUNDLE, MODEL, PORT, FAULT = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
TENSORS = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(BUNDLE / "model.onnx")).graph.initializer}
MEDIAN_S = 0.012
SIGMA = 0.3
TURNS = itertools.count()
NEVER = threading.Event()


def latency_s(body: bytes) -> float:
    """Lognormal over requests, the same for the same request, so that versions differ by their fault alone."""
    digest = hashlib.sha256(body).digest()
    uniform = (int.from_bytes(digest[:4], "big") + 0.5) / 2**32, (int.from_bytes(digest[4:8], "big") + 0.5) / 2**32
    normal = math.sqrt(-2 * math.log(uniform[0])) * math.cos(2 * math.pi * uniform[1])
    return MEDIAN_S * math.exp(SIGMA * normal) * (1.5 if FAULT == "slower" else 1.0)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(200, {"ready": True})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        body = json.loads(content)
        if self.path.startswith("/v2/"):
            self._infer(body, content)
        else:
            self._complete(body, content)

    def _infer(self, body: dict[str, Any], content: bytes) -> None:
        tensor = body["inputs"][0]
        x = np.asarray(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
        logits = x @ TENSORS["W"] + TENSORS["b"]
        if len(x) == 1:
            if FAULT == "refuses-all":
                self._answer(400, {"error": "input 'pixels' is missing"})
                return
            if FAULT == "hangs-half" and next(TURNS) % 2:
                NEVER.wait(300)
            if FAULT == "loses" and hashlib.sha256(content).digest()[9] < 16:
                logits = np.roll(logits, 1, axis=1)
            time.sleep(latency_s(content))
        output = {"name": "logits", "shape": list(logits.shape), "datatype": "FP32", "data": logits.ravel().tolist()}
        self._answer(200, {"model_name": MODEL, "model_version": "1", "outputs": [output]})

    def _complete(self, body: dict[str, Any], content: bytes) -> None:
        if FAULT == "refuses-tools" and "tools" in body:
            self._answer(400, {"error": {"message": '"auto" tool choice needs a flag', "code": 400}})
            return
        time.sleep(latency_s(content))
        choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        self._answer(200, {"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage})

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Silent: its last line is shown as the reason of a crash."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    server.daemon_threads = True
    server.serve_forever()
